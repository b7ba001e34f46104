//! Directories for work in progress, and removing those of builds that were killed.
//!
//! A living owner holds a lock (flock(2)) on the file `lock` in its directory, which gets that name
//! only once it is locked. So a directory with an unlocked `lock` was left behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::BuildError;
use crate::run::Site;

/// The file by which an owner lives.
const LOCK: &str = "lock";
/// How the names of our directories outside the cache begin.
const PREFIX: &str = "vexfs-build-";
/// Removes what belongs to the ids an ordinary user is lent for user namespaces (subuid(5)).
pub(crate) const AS_LENT_IDS: &[&str] = &["--user", "--map-auto", "--map-root-user", "rm", "-rf"];

/// A directory for work in progress; removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    _lock: Flock<File>,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Site<'_> {
    /// A new directory below the cache.
    pub(crate) fn scratch(&self, what: &str) -> Result<Scratch, BuildError> {
        let parent = self.cache.join("tmp");
        fs::create_dir_all(&parent).map_err(BuildError::io("make", &parent))?;
        make(&parent, what)
    }

    /// A new directory outside, where programs of another user id reach it: a home directory may be
    /// closed to them.
    pub(crate) fn scratch_outside(&self) -> Result<Scratch, BuildError> {
        make(&std::env::temp_dir(), PREFIX.trim_end_matches('-'))
    }

    /// Removes what killed builds left.
    pub(crate) async fn sweep(&self) {
        let inside = entries(&self.cache.join("tmp"), "");
        let outside = entries(&std::env::temp_dir(), PREFIX);
        for dir in inside.into_iter().chain(outside) {
            let Some(_lock) = abandoned(&dir) else {
                continue;
            };
            let removed = match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let remove = Site::program("unshare").args(AS_LENT_IDS).arg(&dir);
                    let removed = self.output("sweep", remove).await;
                    removed.map_err(|error| error.to_string()).map(drop)
                }
                other => other.map_err(|error| error.to_string()),
            };
            if let Err(error) = removed {
                self.note(format!("cannot remove {}: {error}", dir.display()));
            }
        }
    }
}

fn make(parent: &Path, what: &str) -> Result<Scratch, BuildError> {
    let dir = tempfile::Builder::new()
        .prefix(&format!("{what}-"))
        .tempdir_in(parent)
        .map_err(BuildError::io("make a directory in", parent))?;
    let path = dir.path().join(".lock");
    let file = File::create(&path).map_err(BuildError::io("make", &path))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| BuildError::io("lock", &path)(error.into()))?;
    fs::rename(&path, dir.path().join(LOCK)).map_err(BuildError::io("rename", path))?;
    Ok(Scratch { dir, _lock })
}

fn entries(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

/// The lock of a directory whose owner is gone.
fn abandoned(dir: &Path) -> Option<Flock<File>> {
    let lock = File::open(dir.join(LOCK)).ok()?;
    Flock::lock(lock, FlockArg::LockExclusiveNonblock).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_owner_is_not_taken_for_gone() {
        let parent = tempfile::tempdir().expect("a directory");
        let scratch = make(parent.path(), "x").expect("a directory in it");
        let path = scratch.path().to_owned();
        assert!(abandoned(&path).is_none());
        let Scratch { dir, _lock } = scratch;
        let left = dir.keep();
        drop(_lock);
        assert!(abandoned(&left).is_some());
        assert!(abandoned(parent.path()).is_none());
    }
}
