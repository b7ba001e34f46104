//! What is wrong with an image, or with what is said about one: sentences with a remedy.

use std::io;
use std::path::PathBuf;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A directory that does not hold what its manifest says.
    #[error("{} is not a whole image: {said}. Build it again, or remove that directory", dir.display())]
    NotWhole {
        /// The directory.
        dir: PathBuf,
        /// What does not fit.
        said: String,
    },
    /// What a source tree says about itself has a mistake.
    #[error("{}:{said}", path.display())]
    DataFile {
        /// The file.
        path: PathBuf,
        /// Line and column, and what is wrong there: `3:7: expected a value`.
        said: String,
    },
    /// Reading a file failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl ImageError {
    /// For `map_err`: an [`ImageError::Io`] with its verb and path.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| ImageError::Io {
            doing,
            path,
            source,
        }
    }
}
