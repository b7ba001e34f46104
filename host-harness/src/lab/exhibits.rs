//! Files that a failed check's dossier takes along besides its machines.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

/// Files, with names for the dossier, and what keeps them from being removed.
#[derive(Default)]
pub struct Exhibits {
    files: Vec<(String, PathBuf)>,
    holders: Vec<Arc<dyn Any + Send + Sync>>,
}

impl Exhibits {
    /// One more; it is there for as long as `holder` lives.
    pub fn add(&mut self, name: String, file: PathBuf, holder: Arc<dyn Any + Send + Sync>) {
        self.files.push((name, file));
        self.holders.push(holder);
    }

    /// Names and files.
    pub fn files(&self) -> &[(String, PathBuf)] {
        &self.files
    }
}
