//! When files of a tree are saved.
//!
//! inotify(7) only wakes: whether anything changed is seen by comparing contents. So it does not matter
//! how an editor saves: in place, by a temporary file that is renamed, with a backup, in several steps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A save is over when nothing has come for so long: an editor that writes a backup, a new file and a
/// rename does that within a few milliseconds.
const QUIET: Duration = Duration::from_millis(25);

/// But not waited for longer than this: something that writes all the time must not stop the loop.
const LONGEST: Duration = Duration::from_millis(400);

/// Folders that are not looked into, for nothing in them is source.
const SKIPPED: &[&str] = &[".git", "target", "out", ".tmp_versions"];

/// How a tree is listened to.
pub struct Saves {
    inotify: AsyncFd<Descriptor>,
    root: PathBuf,
}

/// An inotify instance as tokio wants it.
struct Descriptor(Inotify);

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Saves {
    /// Listens to the tree at `root`.
    ///
    /// # Errors
    /// When the system grants no more watches, with the sysctl that says how many there are.
    pub fn of(root: &Path) -> io::Result<Saves> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(|errno| too_many(errno, root))?;
        // SAFETY: the descriptor is the instance's own, always the same, and open for as long as the
        // instance lives, which belongs to what is made here.
        #[allow(unsafe_code)]
        let inotify =
            unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE)? };
        let saves = Saves {
            inotify,
            root: root.to_owned(),
        };
        saves.watch(root)?;
        Ok(saves)
    }

    /// Waits for the next save, and says when it was. What was saved before the call counts too.
    ///
    /// # Errors
    /// Those of inotify(7).
    pub async fn next(&mut self) -> io::Result<Instant> {
        self.drain().await?;
        let first = Instant::now();
        let mut last = first;
        while last.elapsed() < QUIET && first.elapsed() < LONGEST {
            let more = tokio::time::timeout(QUIET - last.elapsed().min(QUIET), self.drain()).await;
            match more {
                Ok(more) => {
                    more?;
                    last = Instant::now();
                }
                Err(_) => break,
            }
        }
        // A new folder has to be listened to as well.
        self.watch(&self.root)?;
        Ok(first)
    }

    /// Waits for events and takes all there are.
    async fn drain(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut relevant = false;
            loop {
                match self.inotify.get_ref().0.read_events() {
                    Ok(events) => {
                        relevant |= events.iter().any(|event| {
                            let name = event.name.as_deref().unwrap_or_default();
                            !is_scratch(&name.to_string_lossy())
                        });
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            ready.clear_ready();
            if relevant {
                return Ok(());
            }
        }
    }

    /// Adds watches to a folder and all below it; one that is there already stays the same.
    fn watch(&self, dir: &Path) -> io::Result<()> {
        let what = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.get_ref().0.add_watch(dir, what) {
            Ok(_) => {}
            // It went while we looked.
            Err(Errno::ENOENT | Errno::ENOTDIR) if dir != self.root => return Ok(()),
            Err(errno) => return Err(too_many(errno, dir)),
        }
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries.flatten() {
            let skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
            if !skipped && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.watch(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Files that editors make beside the one that is edited.
fn is_scratch(name: &str) -> bool {
    name.ends_with('~')
        || name.starts_with(".#")
        || [".swp", ".swx", ".swo"]
            .iter()
            .any(|end| name.ends_with(end))
        || name == "4913"
}

fn too_many(errno: Errno, dir: &Path) -> io::Error {
    let remedy = match errno {
        Errno::ENOSPC | Errno::EMFILE => {
            ": raise fs.inotify.max_user_watches or fs.inotify.max_user_instances (sysctl)"
        }
        _ => "",
    };
    let said = format!("cannot watch {}: {errno}{remedy}", dir.display());
    io::Error::new(io::Error::from(errno).kind(), said)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn woken(saves: &mut Saves) -> bool {
        let next = tokio::time::timeout(Duration::from_secs(5), saves.next());
        next.await.is_ok_and(|next| next.is_ok())
    }

    async fn quiet(saves: &mut Saves) -> bool {
        let next = tokio::time::timeout(Duration::from_millis(100), saves.next());
        next.await.is_err()
    }

    #[tokio::test]
    async fn every_way_of_saving_wakes() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.c");
        std::fs::create_dir(dir.path().join(".git")).expect("a directory");
        let mut saves = Saves::of(dir.path()).expect("watches");
        std::fs::write(&file, "1").expect("a file");
        assert!(woken(&mut saves).await, "in place");
        std::fs::write(dir.path().join("b.new"), "2").expect("a file");
        std::fs::rename(dir.path().join("b.new"), &file).expect("a rename");
        assert!(woken(&mut saves).await, "by a rename");
        assert!(quiet(&mut saves).await, "one save wakes once");
        std::fs::create_dir(dir.path().join("sub")).expect("a directory");
        assert!(woken(&mut saves).await, "a new folder");
        std::fs::write(dir.path().join("sub/c.c"), "1").expect("a file");
        assert!(woken(&mut saves).await, "in a new folder");
        std::fs::write(dir.path().join(".a.c.swp"), "1").expect("a file");
        std::fs::write(dir.path().join(".git/index"), "1").expect("a file");
        assert!(quiet(&mut saves).await, "nothing of the tree");
        std::fs::remove_file(&file).expect("removed");
        assert!(woken(&mut saves).await, "a removed file");
    }
}
