//! The invitation: the secret of this boot, handed over as a systemd credential.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use agent_protocol::handshake::SecretError;
use agent_protocol::{CREDENTIAL, Secret};

/// Why there is no secret, and so no listener.
#[derive(Debug, thiserror::Error)]
pub enum NotInvited {
    /// Not started by systemd with `LoadCredential=`.
    #[error(
        "not invited: $CREDENTIALS_DIRECTORY is not set; the unit's LoadCredential={CREDENTIAL} sets it"
    )]
    NoDirectory,
    /// The host gave no credential.
    #[error("not invited: cannot read {path}: {source}")]
    Unreadable {
        /// The credential's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host gave something else.
    #[error("not invited: {path}: {source}")]
    Malformed {
        /// The credential's file.
        path: PathBuf,
        /// Why.
        source: SecretError,
    },
}

/// Reads the secret from `directory`, the value of `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
///
/// # Errors
/// [`NotInvited`]: the agent must then end without listening.
pub fn read(directory: Option<&OsStr>) -> Result<Secret, NotInvited> {
    let directory = directory.ok_or(NotInvited::NoDirectory)?;
    let path = Path::new(directory).join(CREDENTIAL);
    let text = std::fs::read_to_string(&path).map_err(|source| NotInvited::Unreadable {
        path: path.clone(),
        source,
    })?;
    text.parse()
        .map_err(|source| NotInvited::Malformed { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_secret_is_an_invitation() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(CREDENTIAL);
        let here = Some(directory.path().as_os_str());

        assert!(matches!(read(None), Err(NotInvited::NoDirectory)));
        assert!(matches!(read(here), Err(NotInvited::Unreadable { .. })));
        std::fs::write(&file, "abcd").unwrap();
        assert!(matches!(read(here), Err(NotInvited::Malformed { .. })));
        std::fs::write(&file, "g".repeat(64)).unwrap();
        assert!(matches!(read(here), Err(NotInvited::Malformed { .. })));
        std::fs::write(&file, "0a".repeat(32) + "\n").unwrap();
        assert_eq!(read(here).unwrap().to_hex(), "0a".repeat(32));
    }

    #[test]
    fn an_error_never_shows_the_secret() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(CREDENTIAL), "5ec2e7".repeat(11)).unwrap();
        let error = read(Some(directory.path().as_os_str())).unwrap_err();
        assert!(!error.to_string().contains("5ec2e7") && !format!("{error:?}").contains("5ec2e7"));
    }
}
