//! The words of `--publish`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::PublishError;

/// Where a bundle is brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A folder of this host.
    Folder(PathBuf),
    /// A folder behind the OpenSSH client.
    Ssh {
        /// `user@host`, or a name of ssh_config(5).
        host: String,
        /// Its port, unless the configuration says.
        port: Option<u16>,
        /// The folder there.
        folder: PathBuf,
    },
    /// An OCI image layout of this host.
    OciLayout(PathBuf),
    /// A repository of an OCI registry, through skopeo(1).
    OciRegistry(String),
}

const REMEDY: &str = "it is a folder, ssh://[USER@]HOST[:PORT]/FOLDER, oci:/FOLDER for an OCI layout, or \
     oci:REGISTRY/REPOSITORY";

impl FromStr for Destination {
    type Err = PublishError;

    fn from_str(word: &str) -> Result<Destination, PublishError> {
        let bad = || PublishError::Destination {
            word: word.to_owned(),
            remedy: REMEDY.to_owned(),
        };
        if let Some(rest) = word.strip_prefix("ssh:") {
            return ssh(rest.trim_start_matches("//")).ok_or_else(bad);
        }
        if let Some(rest) = word.strip_prefix("oci:") {
            if rest.starts_with(['/', '.']) {
                return Ok(Destination::OciLayout(absolute(rest)?));
            }
            let parts: Vec<&str> = rest.split('/').collect();
            let fine = parts.len() > 1 && parts.iter().all(|part| !part.is_empty());
            let plain = !rest.contains(|c: char| c.is_whitespace() || c == '@');
            // A tag is ours to choose; a colon before the first slash is a port.
            let tagged = parts[1..].iter().any(|part| part.contains(':'));
            return match fine && plain && !tagged {
                true => Ok(Destination::OciRegistry(rest.to_owned())),
                false => Err(bad()),
            };
        }
        // An address of something else is no folder name that anybody means.
        if word.is_empty() || word.contains("://") {
            return Err(bad());
        }
        Ok(Destination::Folder(absolute(word)?))
    }
}

fn absolute(path: &str) -> Result<PathBuf, PublishError> {
    std::path::absolute(path).map_err(PublishError::io("find", path))
}

fn ssh(rest: &str) -> Option<Destination> {
    let (host, folder) = rest.split_once('/')?;
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (host, None),
    };
    // A name that begins with a dash would be an option of ssh.
    let named = !host.is_empty() && !host.starts_with('-') && !folder.is_empty();
    let plain = host
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "@._-".contains(c));
    (named && plain).then(|| Destination::Ssh {
        host: host.to_owned(),
        port,
        folder: Path::new("/").join(folder),
    })
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Destination::Folder(path) => write!(f, "{}", path.display()),
            Destination::Ssh { host, port, folder } => {
                write!(f, "ssh://{host}")?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                write!(f, "{}", folder.display())
            }
            Destination::OciLayout(path) => write!(f, "oci:{}", path.display()),
            Destination::OciRegistry(repository) => write!(f, "oci:{repository}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        for (word, like) in [
            ("/srv/images", "Folder"),
            ("out/published", "Folder"),
            ("ssh://ci@files.example:2222/srv/images", "Ssh"),
            ("ssh:files/srv/images", "Ssh"),
            ("oci:/srv/layout", "OciLayout"),
            ("oci:./layout", "OciLayout"),
            ("oci:registry.example:5000/vexfs/images", "OciRegistry"),
        ] {
            let place: Destination = word.parse().expect(word);
            assert!(format!("{place:?}").starts_with(like), "{word}: {place:?}");
            let again: Destination = place.to_string().parse().expect(word);
            assert_eq!(again, place, "{word}");
        }
    }

    #[test]
    fn what_names_no_place_is_refused_with_a_remedy() {
        for word in [
            "",
            "ssh://host",
            "ssh:///srv",
            "ssh://-oProxyCommand=x/srv",
            "ssh://host:port/srv",
            "ssh://host;reboot/srv",
            "oci:alone",
            "oci:registry.example/repo:tag",
            "https://files.example/images",
        ] {
            let error = word.parse::<Destination>().expect_err(word);
            assert!(error.to_string().contains("it is a folder"), "{error}");
        }
    }
}
