//! What is said of a round while it goes on, and what comes of it. Plain data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use image_builder::{BuildError, Product};

use results::{CaseResult, Outcome, Subject};

/// What happens in a round, as it happens.
#[derive(Debug, Clone)]
pub enum Said {
    /// Something that takes long has to be done first.
    Note(String),
    /// The module was built.
    Built(Box<Product>),
    /// The tree does not compile.
    DoesNotBuild {
        /// What the compiler said, with the user's paths; at least one line.
        said: Vec<String>,
        /// The command that failed.
        command: String,
        /// All of its output.
        log: PathBuf,
    },
    /// The module is the one that is known already: nothing is tested.
    Unchanged(String),
    /// The kernel said something it should not have; the verdict is still to come.
    Finding {
        /// What.
        title: String,
        /// Where in the source, the innermost function first.
        places: Vec<String>,
    },
    /// The smoke story has its verdict.
    Smoke {
        /// It.
        outcome: Outcome,
        /// The steps that were begun.
        steps: Vec<(&'static str, Duration)>,
        /// Where the first finding is in the source.
        places: Vec<String>,
        /// How the time went.
        took: Took,
    },
    /// A failure left a dossier.
    Dossier(PathBuf),
}

/// Who is told.
pub type Voice = Arc<dyn Fn(&Said) + Send + Sync>;

/// How the time of a round went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// To build the module.
    pub build: Duration,
    /// From then until a fork was ready; nothing when one was waiting.
    pub fork: Duration,
    /// To tell the smoke story and to judge it.
    pub smoke: Duration,
    /// From the save to the verdict.
    pub all: Duration,
}

/// What came of a round.
#[derive(Debug)]
pub enum Round {
    /// The tree does not compile.
    Broken,
    /// The module is one that is known already. Nothing was tested.
    Unchanged,
    /// The smoke story has been told.
    Judged {
        /// What it was told of.
        subject: Arc<Subject>,
        /// What came of it.
        result: Box<CaseResult>,
        /// How the time went.
        took: Took,
    },
}

/// What came of a check that was asked of a module.
#[derive(Debug)]
pub struct Asked {
    /// It.
    pub result: CaseResult,
    /// Where the first finding is in the source, relative to the tree.
    pub places: Vec<String>,
}

/// Why there was no round.
#[derive(Debug, thiserror::Error)]
pub enum TryoutError {
    /// The builder could not do its part, or the tree makes no sense.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The image's kernel takes only signed modules.
    #[error(
        "the kernel of image `{variant}` takes only modules its build has signed: try the module in an \
         image of another kernel, such as `cargo images build --variants minimal`"
    )]
    Signed {
        /// The image's variant.
        variant: String,
    },
    /// The image is not one of this tree's file system.
    #[error(
        "the image of `{variant}` was built from a tree that says otherwise ({differs}): build one of this \
         tree first, `cargo images build --vexfs-source {}`", source_tree.display()
    )]
    Unfit {
        /// The image's variant.
        variant: String,
        /// What differs.
        differs: String,
        /// The tree.
        source_tree: PathBuf,
    },
}
