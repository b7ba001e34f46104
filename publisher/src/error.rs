//! What can go wrong, as sentences.

use std::io;
use std::path::{Path, PathBuf};

/// Why a bundle was not made or not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The words of `--publish` name no place.
    #[error("`{word}` is no place to publish to: {remedy}")]
    Destination {
        /// What was given.
        word: String,
        /// What is understood.
        remedy: String,
    },
    /// A file or folder of this host.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started or did not do its part.
    #[error("cannot {doing}: {said}")]
    Program {
        /// What it was for, with the place.
        doing: String,
        /// What it said.
        said: String,
    },
    /// Somebody else is at it.
    #[error(
        "another run is publishing {variant} to {place}: try again when it has ended \
         (nothing was changed there)"
    )]
    Busy {
        /// The variant.
        variant: String,
        /// The destination.
        place: String,
    },
    /// What arrived is not what was sent.
    #[error("{name} has SHA-256 {is} at {place}, not {wanted}: it was taken away again there")]
    Digest {
        /// The file.
        name: String,
        /// The destination.
        place: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        is: String,
    },
    /// What is there cannot be read.
    #[error("{what} at {place} cannot be used: {said}")]
    Unreadable {
        /// Which file.
        what: String,
        /// The destination.
        place: String,
        /// Why.
        said: String,
    },
}

impl PublishError {
    /// For `map_err`: an error of reading, writing and the like.
    pub(crate) fn io(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> PublishError {
        let path = path.as_ref().to_owned();
        move |source| PublishError::Io {
            doing,
            path,
            source,
        }
    }
}
