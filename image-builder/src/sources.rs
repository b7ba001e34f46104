//! Which Debian archive to build from.

use crate::BuildError;

/// Every image is made of these suites: released, updated, with all security fixes.
pub(crate) const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];
/// Format for apt-get(8) `indextargets`, one line per index of every source the host's apt knows,
/// whichever of its two file formats it is written in.
pub(crate) const TARGET_FORMAT: &str = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)";
/// The keys Debian signs with, where the host has them (package debian-archive-keyring).
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(crate) suite: String,
}

/// Reads the output of `apt-get indextargets` in [`TARGET_FORMAT`]. Of several archives of one suite
/// the first wins; suites and components we do not build from are left out.
pub(crate) fn from_index_targets(text: &str) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for line in text.lines() {
        let [uri, suite, component, created_by] = line.split('|').collect::<Vec<_>>()[..] else {
            continue;
        };
        let ours = SUITES.contains(&suite) && component == "main" && created_by == "Packages";
        if ours && !sources.iter().any(|source| source.suite == suite) {
            sources.push(Source {
                uri: uri.to_owned(),
                suite: suite.to_owned(),
            });
        }
    }
    sources
}

/// The three suites of a mirror named on the command line. Debian's own layout has security in an
/// archive of its own beside the main one.
///
/// # Errors
/// [`BuildError::BadRequest`] for what is no archive address.
pub(crate) fn from_mirror(url: &str) -> Result<Vec<Source>, BuildError> {
    let scheme = ["http://", "https://", "file:/", "copy:/"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    if !scheme || url.contains(char::is_whitespace) {
        return Err(BuildError::BadRequest {
            field: "--mirror",
            value: url.into(),
            remedy: "give an address such as http://deb.debian.org/debian".into(),
        });
    }
    let url = url.trim_end_matches('/');
    let security = format!("{}-security", url.strip_suffix("-security").unwrap_or(url));
    let at = |suite: &str| Source {
        uri: if suite.ends_with("-security") {
            security.clone()
        } else {
            url.to_owned()
        },
        suite: suite.to_owned(),
    };
    Ok(SUITES.map(at).to_vec())
}

/// A sources.list(5) in the one-line format.
pub(crate) fn list(sources: &[Source], keyring: Option<&str>) -> String {
    let option = keyring.map_or_else(String::new, |keyring| format!("[signed-by={keyring}] "));
    sources
        .iter()
        .map(|source| format!("deb {option}{} {} main\n", source.uri, source.suite))
        .collect()
}

/// The sources file inside an image, in the deb822 format.
pub(crate) fn in_image(mirror: &str, security: &str) -> String {
    let stanza = |uri: &str, suites: &str| {
        format!(
            "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n"
        )
    };
    format!(
        "{}\n{}",
        stanza(mirror, &SUITES[..2].join(" ")),
        stanza(security, SUITES[2])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
https://packages.example.org/node/|nodistro|main|Packages
http://mirror.example.org/debian/|bookworm|main|Packages
http://mirror.example.org/debian/|bookworm|main|DEP-11
http://mirror.example.org/debian/|bookworm|contrib|Packages
http://second.example.org/debian/|bookworm|main|Packages
http://mirror.example.org/debian/|bookworm-updates|main|Packages
http://mirror.example.org/debian-security/|bookworm-security|main|Packages
http://mirror.example.org/debian/|trixie|main|Packages
";

    #[test]
    fn the_hosts_first_archive_of_each_suite_is_taken() {
        assert_eq!(
            list(&from_index_targets(TARGETS), None),
            "deb http://mirror.example.org/debian/ bookworm main\n\
             deb http://mirror.example.org/debian/ bookworm-updates main\n\
             deb http://mirror.example.org/debian-security/ bookworm-security main\n"
        );
        assert_eq!(from_index_targets(""), []);
    }

    #[test]
    fn security_lies_beside_a_named_mirror() {
        let sources = from_mirror("http://m.example.org/debian/").expect("a mirror");
        assert_eq!(
            list(&sources, Some("/k.gpg")),
            "deb [signed-by=/k.gpg] http://m.example.org/debian bookworm main\n\
             deb [signed-by=/k.gpg] http://m.example.org/debian bookworm-updates main\n\
             deb [signed-by=/k.gpg] http://m.example.org/debian-security bookworm-security main\n"
        );
        for bad in ["m.example.org", "http://m.example.org/debian bookworm", ""] {
            assert!(from_mirror(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_image_gets_its_own_sources() {
        let text = in_image("http://a/debian", "http://b/debian-security");
        assert!(text.contains("URIs: http://a/debian\nSuites: bookworm bookworm-updates\n"));
        assert!(text.contains("URIs: http://b/debian-security\nSuites: bookworm-security\n"));
    }
}
