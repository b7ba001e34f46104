//! Boot once, freeze, fork: how every check gets a fresh machine in a third of a second.
//!
//! A [`Recipe`] says which machine to boot. [`Store::snapshot`] finds its [`Snapshot`], or boots the
//! machine, waits until it has settled, and freezes it: guest memory, device state and disk
//! overlay. [`Snapshot::fork`] restores those into a new [`Fork`] with memory, disk and vsock of its
//! own, its clock set and its random pool stirred.
//!
//! The vsock device cannot be migrated when a daemon serves it, so a machine is frozen without it
//! and each fork gets one plugged in; the agent listens on whatever device there is.
//!
//! Many processes use one store at once (see [`Store`]), and how many machines run at once is
//! decided for the whole host (see [`crate::admission`]).

mod error;
mod fork;
mod freeze;
mod key;
mod manifest;
mod ram;
mod store;
mod watch;

pub use error::SnapshotError;
pub use fork::{Fork, Timing};
pub use freeze::freeze_as_it_is;
pub use key::{Key, Recipe, SETTLING};
pub use manifest::Manifest;
pub use ram::copy_file;
pub use store::{DEFAULT_CAP, Listed, Store};
pub use watch::{Stage, Watch};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clock::{Tries, Whose};
use keeper::lease::Lease;

/// A frozen machine that can be forked any number of times. It is not removed from the store while
/// a value of this type, or a fork of it, lives.
#[derive(Debug, Clone)]
pub struct Snapshot {
    dir: PathBuf,
    manifest: Arc<Manifest>,
    secret: agent_protocol::Secret,
    /// Keeps it in the store; `None` for one that is in none.
    lease: Option<Arc<Lease>>,
    /// What the host did to earlier tries of making it.
    troubles: Vec<String>,
    /// Who looks on while its forks are made.
    watch: Watch,
}

/// What tries came to, with the host's part in it; trouble that was there every time is an error that
/// says so.
fn persists<T>(
    result: Result<T, SnapshotError>,
    Tries { troubles }: Tries,
) -> Result<(T, Vec<String>), SnapshotError> {
    match result {
        Ok(made) => Ok((made, troubles)),
        Err(last) if last.whose() == Whose::Host && !troubles.is_empty() => {
            let last = Box::new(last);
            Err(SnapshotError::Persists { troubles, last })
        }
        Err(error) => Err(error),
    }
}

impl Snapshot {
    /// Its facts.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A machine that was frozen into `dir` by [`freeze_as_it_is`]. Nobody keeps its files from being
    /// removed; that its image and its QEMU are the right ones is for the caller to see to.
    ///
    /// # Errors
    /// When its secret or its manifest cannot be read.
    pub fn outside_the_store(dir: PathBuf) -> Result<Snapshot, SnapshotError> {
        Snapshot::open(dir, None)
    }

    fn open(dir: PathBuf, lease: Option<Lease>) -> Result<Snapshot, SnapshotError> {
        let read = |name: &str| {
            let path = dir.join(name);
            let what = format!("cannot read {}", path.display());
            std::fs::read_to_string(path).map_err(SnapshotError::io(what))
        };
        let secret =
            read(manifest::files::SECRET)?
                .parse()
                .map_err(|error| SnapshotError::Broken {
                    dir: dir.clone(),
                    why: format!("its secret: {error}"),
                })?;
        let manifest = Manifest::read(&dir).map_err(|error| SnapshotError::Broken {
            dir: dir.clone(),
            why: format!("its manifest: {error}"),
        })?;
        Ok(Snapshot {
            dir,
            manifest: Arc::new(manifest),
            secret,
            lease: lease.map(Arc::new),
            troubles: Vec::new(),
            watch: Watch::default(),
        })
    }
}
