//! Locks on files (flock(2)) that processes agree by: the kernel gives them back when their holder ends,
//! however it ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// How a file is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Beside others who share it.
    Shared,
    /// By one alone.
    Alone,
}

/// A file that is held until this is dropped.
#[derive(Debug)]
pub struct Lease(Flock<File>);

impl Lease {
    /// Takes a file, which is made if missing; `None` when somebody has it in a way that excludes this one. A link
    /// is not followed.
    ///
    /// # Errors
    /// When it cannot be opened, or not be locked.
    pub fn take(path: &Path, hold: Hold) -> io::Result<Option<Lease>> {
        let how = match hold {
            Hold::Shared => FlockArg::LockSharedNonblock,
            Hold::Alone => FlockArg::LockExclusiveNonblock,
        };
        match Flock::lock(open(path)?, how) {
            Ok(lock) => Ok(Some(Lease(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Takes a file alone and waits, with this thread, for whoever has it.
    ///
    /// # Errors
    /// As [`Lease::take`].
    pub fn wait(path: &Path) -> io::Result<Lease> {
        match Flock::lock(open(path)?, FlockArg::LockExclusive) {
            Ok(lock) => Ok(Lease(lock)),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Lets others share it from now on.
    ///
    /// # Errors
    /// When the system does not.
    pub fn share(&self) -> io::Result<()> {
        Ok(self.0.relock(FlockArg::LockShared)?)
    }
}

/// Opened without cutting it: another process may be about to lock it.
fn open(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_excludes_all_and_sharers_only_that_one() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("lock");
        let take = |hold| Lease::take(&path, hold).expect("a lock");
        let alone = take(Hold::Alone).expect("nobody has it");
        assert!(take(Hold::Alone).is_none() && take(Hold::Shared).is_none());
        alone.share().expect("shared");
        let other = take(Hold::Shared).expect("shared");
        assert!(take(Hold::Alone).is_none());
        drop((alone, other));
        drop(Lease::wait(&path).expect("nobody has it"));
        assert!(take(Hold::Alone).is_some());
    }

    #[test]
    fn a_link_is_not_followed() {
        let home = tempfile::tempdir().expect("a folder");
        let (link, elsewhere) = (home.path().join("lock"), home.path().join("elsewhere"));
        std::os::unix::fs::symlink(&elsewhere, &link).expect("a link");
        let error = Lease::take(&link, Hold::Alone).expect_err("a link");
        assert_eq!(error.raw_os_error(), Some(nix::libc::ELOOP));
        assert!(!elsewhere.exists());
    }
}
