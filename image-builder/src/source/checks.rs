//! What must be true of a source tree before anything is built from it, and how a refusal is said.

use std::path::{Path, PathBuf};

use keeper::Failure;
use serde::{Deserialize, Serialize};

use crate::BuildError;

/// What must be true of the source besides what its name says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceChecks {
    /// `sha256:…`, of the file when the source is a tarball, else of the tree (what `manifest.json`
    /// has at `source.sha256`).
    pub digest: Option<String>,
    /// The revision must be a tag with a signature that `git verify-tag` accepts.
    pub signed_tag: bool,
    /// SSH keys that may have signed it (ssh-keygen(1), "ALLOWED SIGNERS"); `None`: what git is
    /// configured to trust.
    pub allowed_signers: Option<PathBuf>,
    /// Read instead of the tree's own `vexfs-source.toml`.
    pub config: Option<PathBuf>,
}

/// What a failed program said.
pub(crate) fn words_of(error: BuildError) -> String {
    match error {
        BuildError::Step {
            source: Failure::Ended { tail, .. },
            ..
        } => tail,
        other => other.to_string(),
    }
}

pub(crate) fn refused(source: impl AsRef<Path>, said: impl Into<String>) -> BuildError {
    BuildError::SourceRefused {
        source_tree: without_secrets(&source.as_ref().to_string_lossy()),
        said: said.into(),
    }
}

/// The address without a name and a password in it.
pub(crate) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let host_ends = rest.find('/').unwrap_or(rest.len());
    match rest[..host_ends].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// Whether a file or tree is the one that was asked for.
pub(crate) fn check_digest(
    source: &Path,
    what: &str,
    want: Option<&str>,
    have: &str,
) -> Result<(), BuildError> {
    match want {
        Some(want) if want != have => Err(refused(
            source,
            format!("{what} has sha256:{have}, --source-digest says sha256:{want}"),
        )),
        _ => Ok(()),
    }
}
