//! Which Debian archive to build from.

use std::path::Path;

use crate::{BuildError, BuildRequest};

/// Every image is made of these suites: released, updated, with all security fixes.
pub(crate) const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];
/// The keys Debian signs with, where the host has them (package debian-archive-keyring).
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of one archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(crate) suite: String,
    /// Keyring the archive is signed with; without it, apt's trusted keys count.
    signed_by: Option<String>,
    /// The host takes the archive unsigned (a local mirror).
    trusted: bool,
    /// A state of the past: its Valid-Until is over, and that is as it should be.
    pub(crate) dated: bool,
}

impl Source {
    /// Whether a build takes packages from it.
    fn is_ours(&self, kinds: &[&str], components: &[&str]) -> bool {
        SUITES.contains(&self.suite.as_str())
            && kinds.contains(&"deb")
            && components.contains(&"main")
    }
}

/// Our suites among the sources of the host's apt: its files with their texts, in apt's order. Of
/// several archives of one suite the first wins.
pub(crate) fn from_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for (name, text) in files {
        let found = if name.ends_with(".sources") {
            from_stanzas(text)
        } else {
            from_lines(text)
        };
        for source in found {
            if !sources.iter().any(|other| other.suite == source.suite) {
                sources.push(source);
            }
        }
    }
    sources
}

/// The one-line format of sources.list(5): `deb [signed-by=KEYRING] URI SUITE COMPONENT…`.
fn from_lines(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let option = |name: &str| {
            let mut options = options.split_whitespace().filter_map(|o| o.split_once('='));
            options
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let words: Vec<_> = rest.split_whitespace().collect();
        if let [uri, suite, components @ ..] = words.as_slice() {
            let source = Source {
                uri: (*uri).into(),
                suite: (*suite).into(),
                signed_by: option("signed-by").map(str::to_owned),
                trusted: option("trusted") == Some("yes"),
                dated: false,
            };
            if source.is_ours(&[kind], components) {
                sources.push(source);
            }
        }
    }
    sources
}

/// The deb822 format of sources.list(5): stanzas of `Field: words`, in which a line that begins
/// with a blank goes on with the field above.
fn from_stanzas(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            let mut lines = stanza.iter().skip_while(|line| {
                let key = line.split_once(':').map(|(key, _)| key);
                line.starts_with(char::is_whitespace)
                    || !key.is_some_and(|key| key.eq_ignore_ascii_case(name))
            });
            let first = lines.next().and_then(|line| line.split_once(':'))?.1;
            let more = lines.take_while(|line| line.starts_with(char::is_whitespace));
            let words = first.split_whitespace();
            Some(
                words
                    .chain(more.flat_map(|line| line.split_whitespace()))
                    .collect::<Vec<_>>(),
            )
        };
        let words = |name: &str| field(name).unwrap_or_default();
        if words("Enabled") == ["no"] {
            continue;
        }
        // A key written out in the stanza itself has to be among apt's trusted ones too.
        let signed_by = words("Signed-By")
            .first()
            .filter(|key| key.starts_with('/'))
            .copied();
        for uri in words("URIs") {
            for suite in words("Suites") {
                let source = Source {
                    uri: uri.into(),
                    suite: suite.into(),
                    signed_by: signed_by.map(str::to_owned),
                    trusted: words("Trusted") == ["yes"],
                    dated: false,
                };
                if source.is_ours(&words("Types"), &words("Components")) {
                    sources.push(source);
                }
            }
        }
    }
    sources
}

/// The three suites of a mirror named on the command line. Debian's own layout has security in an
/// archive of its own beside the main one.
///
/// # Errors
/// [`BuildError::BadRequest`] for what is no archive address.
pub(crate) fn from_mirror(url: &str, keyring: Option<&Path>) -> Result<Vec<Source>, BuildError> {
    if !is_address(url) {
        return Err(BuildError::BadRequest {
            field: "--mirror",
            value: url.into(),
            remedy: "give an address such as http://deb.debian.org/debian".into(),
        });
    }
    let url = url.trim_end_matches('/');
    let security = format!("{}-security", url.strip_suffix("-security").unwrap_or(url));
    let keyring = signed_by(keyring)?;
    let at = |suite: &str| Source {
        uri: if suite.ends_with("-security") {
            security.clone()
        } else {
            url.to_owned()
        },
        suite: suite.to_owned(),
        signed_by: keyring.clone(),
        trusted: false,
        dated: false,
    };
    Ok(SUITES.map(at).to_vec())
}

/// An archive of past states, and the date of the one to take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    /// Address with `{date}` in it, and `{archive}` for `debian` and `debian-security` where those
    /// are apart.
    pub(crate) pattern: &'a str,
    /// `2024-01-31`, or with a time `20240131T120000Z`.
    pub(crate) date: &'a str,
}

/// The three suites as they were.
///
/// # Errors
/// [`BuildError::BadRequest`] for what is no date or no pattern.
pub(crate) fn from_snapshot(
    of: Snapshot<'_>,
    keyring: Option<&Path>,
) -> Result<Vec<Source>, BuildError> {
    let date = date(of.date).ok_or_else(|| BuildError::BadRequest {
        field: "--snapshot-date",
        value: of.date.into(),
        remedy: "a date looks like 2024-01-31 or, with a time, 20240131T120000Z".into(),
    })?;
    if !is_address(of.pattern) || !of.pattern.contains("{date}") {
        return Err(BuildError::BadRequest {
            field: "--snapshot-mirror",
            value: of.pattern.into(),
            remedy: format!("give an address with {{date}} in it, such as {SNAPSHOT_ARCHIVE}"),
        });
    }
    let keyring = signed_by(keyring)?;
    let at = |suite: &str| {
        let archive = match suite.ends_with("-security") {
            true => "debian-security",
            false => "debian",
        };
        let url = of.pattern.replace("{date}", &date);
        Source {
            uri: url.replace("{archive}", archive),
            suite: suite.to_owned(),
            signed_by: keyring.clone(),
            trusted: false,
            dated: true,
        }
    };
    Ok(SUITES.map(at).to_vec())
}

/// Debian's own archive of past states.
pub(crate) const SNAPSHOT_ARCHIVE: &str = "http://snapshot.debian.org/archive/{archive}/{date}";

/// A date as archives of past states write it, `20240131T000000Z`.
fn date(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|c| !"-:".contains(*c)).collect();
    let (day, time) = plain.split_once('T').unwrap_or((&plain, "000000Z"));
    let time = time.strip_suffix('Z')?;
    let digits =
        |word: &str, count| word.len() == count && word.chars().all(|c| c.is_ascii_digit());
    if !digits(day, 8) || !digits(time, 6) {
        return None;
    }
    let part = |word: &str, at: usize| word[at..at + 2].parse::<u32>().ok();
    let (month, of_month) = (part(day, 4)?, part(day, 6)?);
    let (hour, minute, second) = (part(time, 0)?, part(time, 2)?, part(time, 4)?);
    let fits = (1..=12).contains(&month)
        && (1..=31).contains(&of_month)
        && hour < 24
        && minute < 60
        && second < 60;
    fits.then(|| format!("{day}T{time}Z"))
}

fn is_address(url: &str) -> bool {
    let schemes = ["http://", "https://", "file:/", "copy:/"];
    schemes.iter().any(|scheme| url.starts_with(scheme)) && !url.contains(char::is_whitespace)
}

/// The keyring a named archive is signed with: the one given, or Debian's where the host has it.
fn signed_by(keyring: Option<&Path>) -> Result<Option<String>, BuildError> {
    let Some(keyring) = keyring else {
        return Ok(Path::new(KEYRING).is_file().then(|| KEYRING.to_owned()));
    };
    let bad = |remedy: &str| BuildError::BadRequest {
        field: "--keyring",
        value: keyring.display().to_string(),
        remedy: remedy.into(),
    };
    let path = std::path::absolute(keyring).map_err(BuildError::io("find", keyring))?;
    if !path.is_file() {
        return Err(bad("there is no such file"));
    }
    match path
        .to_str()
        .filter(|path| !path.contains(char::is_whitespace))
    {
        Some(path) => Ok(Some(path.to_owned())),
        None => Err(bad("apt takes no path with blanks in it")),
    }
}

/// A sources.list(5) in the one-line format.
pub(crate) fn list(sources: &[Source]) -> String {
    let line = |source: &Source| {
        let signed_by = source.signed_by.as_ref();
        let mut options: Vec<_> = signed_by
            .map(|key| format!("signed-by={key}"))
            .into_iter()
            .collect();
        options.extend(source.trusted.then(|| "trusted=yes".to_owned()));
        options.extend(source.dated.then(|| "check-valid-until=no".to_owned()));
        let options = match options.as_slice() {
            [] => String::new(),
            options => format!("[{}] ", options.join(" ")),
        };
        // apt uses files where they lie; copies are what the cache keeps.
        let uri = match source.uri.strip_prefix("file:") {
            Some(path) => format!("copy:{path}"),
            None => source.uri.clone(),
        };
        format!("deb {options}{uri} {} main\n", source.suite)
    };
    sources.iter().map(line).collect()
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

/// The archive named in the request, if one is.
pub(crate) fn named(request: &BuildRequest) -> Result<Option<Vec<Source>>, BuildError> {
    let keyring = request.keyring.as_deref();
    match (&request.snapshot_date, &request.mirror) {
        (Some(date), _) => {
            let pattern = request.snapshot_mirror.as_deref();
            let pattern = pattern.unwrap_or(SNAPSHOT_ARCHIVE);
            from_snapshot(Snapshot { pattern, date }, keyring).map(Some)
        }
        (None, Some(url)) => from_mirror(url, keyring).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_taken_in_both_ways_of_writing_and_nothing_else() {
        assert_eq!(date("2024-01-31").as_deref(), Some("20240131T000000Z"));
        let time = Some("20240131T115959Z".to_owned());
        assert_eq!(date("20240131T115959Z"), time);
        assert_eq!(date("2024-01-31T11:59:59Z"), time);
        for bad in [
            "",
            "yesterday",
            "2024-13-01",
            "2024-1-1",
            "20240131T2400",
            "2024-01-31T11:59",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_snapshot_names_both_archives_and_forgives_their_age() {
        let of = |pattern| Snapshot {
            pattern,
            date: "2024-01-31",
        };
        let list = list(&from_snapshot(of(SNAPSHOT_ARCHIVE), None).expect("sources"));
        assert_eq!(list.matches("check-valid-until=no").count(), 3);
        for wanted in [
            "org/archive/debian/20240131T000000Z bookworm main",
            "org/archive/debian-security/20240131T000000Z bookworm-security main",
        ] {
            assert!(list.contains(wanted), "{list}");
        }
        let error = from_snapshot(of("http://m/debian"), None).expect_err("no {date}");
        assert!(error.to_string().contains("{date}"), "{error}");
    }

    const LINES: &str = "\
# deb http://commented.example.org/debian bookworm main
deb-src http://m.example.org/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://m.example.org/debian bookworm main contrib # the mirror
deb http://second.example.org/debian bookworm main
deb http://m.example.org/debian bookworm-updates contrib
deb [ trusted=yes ] http://m.example.org/security bookworm-security main
deb http://m.example.org/debian trixie main
";
    const STANZAS: &str = "\
# A comment
Types: deb deb-src
# another
URIs: http://m.example.org/debian
Suites: bookworm
 bookworm-updates trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://off.example.org/security
Suites: bookworm-security
Components: main

types: deb
uris: http://m.example.org/security
suites: bookworm-security
components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
";

    #[test]
    fn one_line_sources_are_read() {
        assert_eq!(
            list(&from_files([("sources.list", LINES)])),
            "deb [signed-by=/k.gpg] http://m.example.org/debian bookworm main\n\
             deb [trusted=yes] http://m.example.org/security bookworm-security main\n"
        );
    }

    #[test]
    fn deb822_sources_are_read() {
        assert_eq!(
            list(&from_files([("debian.sources", STANZAS)])),
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.example.org/debian bookworm main\n\
             deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.example.org/debian bookworm-updates main\n\
             deb http://m.example.org/security bookworm-security main\n"
        );
    }

    #[test]
    fn the_first_archive_of_a_suite_wins_across_files() {
        let files = [("a.list", LINES), ("b.sources", STANZAS)];
        let suites: Vec<_> = from_files(files)
            .into_iter()
            .map(|s| (s.suite, s.trusted))
            .collect();
        assert_eq!(
            suites,
            [
                ("bookworm".into(), false),
                ("bookworm-security".into(), true),
                ("bookworm-updates".into(), false)
            ]
        );
        assert_eq!(from_files([("empty.list", "")]), []);
    }

    #[test]
    fn security_lies_beside_a_named_mirror() {
        let sources = from_mirror("http://m.example.org/debian/", None).expect("a mirror");
        let uris: Vec<_> = sources
            .iter()
            .map(|s| (s.uri.as_str(), s.suite.as_str()))
            .collect();
        assert_eq!(
            uris,
            [
                ("http://m.example.org/debian", "bookworm"),
                ("http://m.example.org/debian", "bookworm-updates"),
                ("http://m.example.org/debian-security", "bookworm-security"),
            ]
        );
        for bad in ["m.example.org", "http://m.example.org/debian bookworm", ""] {
            assert!(from_mirror(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_image_gets_its_own_sources() {
        let text = in_image("http://a/debian", "http://b/debian-security");
        assert!(text.contains("URIs: http://a/debian\nSuites: bookworm bookworm-updates\n"));
        assert!(text.contains("URIs: http://b/debian-security\nSuites: bookworm-security\n"));
    }
}
