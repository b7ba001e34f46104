//! Where snapshots are kept: made once by whoever comes first, shared by all processes, and evicted
//! when they take too much room.
//!
//! Per snapshot there is a directory with its key as name, and a lock file beside it: held
//! exclusively by whoever makes or removes it, shared by whoever uses it. A directory appears by
//! rename and disappears by rename, so that what is there under its name is whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use keeper::draft::{self, Draft};
use keeper::lease::{Hold, Lease};

use super::manifest::files;
use super::{Key, Manifest, SnapshotError};

/// How often a waiting process looks whether the maker is done.
const LOOK: Duration = Duration::from_millis(20);

/// What snapshots may take on disk unless the caller says otherwise, in bytes.
pub const DEFAULT_CAP: u64 = 8 << 30;

/// The snapshots in one directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    cap: u64,
}

/// A snapshot as a list shows it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub key: Key,
    /// Its facts; `None` when they cannot be read.
    pub manifest: Option<Manifest>,
    /// What it takes on disk, in bytes.
    pub bytes: u64,
    /// When it was last used.
    pub used: SystemTime,
    /// Whether some process is making or using it.
    pub busy: bool,
}

/// A snapshot's lock, and what it allows.
pub(super) enum Claim {
    /// The snapshot is there and stays for as long as this lives.
    Use(PathBuf, Lease),
    /// It is not there, and making it is up to us.
    Make(Box<Making>),
}

/// The exclusive right to make a snapshot.
pub(super) struct Making {
    lock: Lease,
    /// Where its files go; removed if it is not published.
    draft: Draft,
    place: PathBuf,
}

impl Making {
    /// The directory to put the files into (mode 0700).
    pub(super) fn dir(&self) -> &Path {
        self.draft.dir()
    }

    /// Removes what an earlier try has left in it.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.dir())? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Sees to it that the draft, which is large, goes even if this process is killed.
    pub(super) async fn keep(&mut self) -> io::Result<()> {
        self.draft.keep().await
    }

    /// Makes the files appear under the snapshot's name, and turns the right to make it into the
    /// right to use it.
    pub(super) fn publish(self) -> io::Result<(PathBuf, Lease)> {
        let Making { lock, draft, place } = self;
        draft.sync()?;
        File::create(draft.dir().join(files::USED))?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        draft.publish(&name)?;
        lock.share()?;
        Ok((place, lock))
    }
}

impl Store {
    /// The snapshots in `dir`, which is made if missing, taking at most `cap` bytes together.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: impl Into<PathBuf>, cap: u64) -> Result<Store, SnapshotError> {
        let dir = dir.into();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(SnapshotError::io(format!("cannot make {}", dir.display())))?;
        let dir = dir
            .canonicalize()
            .map_err(SnapshotError::io(format!("cannot use {}", dir.display())))?;
        Ok(Store { dir, cap })
    }

    /// Waits until the snapshot is there or it is up to us to make it. A snapshot that is not whole
    /// any more is removed on the way.
    pub(super) async fn claim(&self, key: &Key) -> io::Result<Claim> {
        let place = self.dir.join(&key.0);
        loop {
            if let Some(lease) = self.lock(key, Hold::Shared)?
                && let Ok(manifest) = Manifest::read(&place)
                && manifest.key == *key
                && manifest.flaw(&place).is_none()
            {
                // When it was used is all that says which one to evict; not knowing is no harm.
                File::create(place.join(files::USED))
                    .map(drop)
                    .unwrap_or_default();
                return Ok(Claim::Use(place, lease));
            }
            if let Some(lock) = self.lock(key, Hold::Alone)? {
                let sound = Manifest::read(&place).is_ok_and(|m| m.flaw(&place).is_none());
                if sound {
                    // Somebody made it between our two looks.
                    continue;
                }
                draft::discard(&place)?;
                let draft = Draft::begin(&self.dir)?;
                return Ok(Claim::Make(Box::new(Making { lock, draft, place })));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The snapshots, most recently used first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, SnapshotError> {
        let list = || -> io::Result<Vec<Listed>> {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&self.dir)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if !entry.file_type()?.is_dir() || name.starts_with('.') {
                    continue;
                }
                let key = Key(name);
                let used = std::fs::metadata(entry.path().join(files::USED))
                    .and_then(|meta| meta.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Listed {
                    manifest: Manifest::read(&entry.path()).ok(),
                    bytes: size(&entry.path())?,
                    busy: self.lock(&key, Hold::Alone)?.is_none(),
                    key,
                    used,
                });
            }
            found.sort_by_key(|listed| std::cmp::Reverse(listed.used));
            Ok(found)
        };
        list().map_err(SnapshotError::io(format!(
            "cannot list {}",
            self.dir.display()
        )))
    }

    /// Removes a snapshot unless some process makes or uses it; says whether it did.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, key: &Key) -> Result<bool, SnapshotError> {
        let place = self.dir.join(&key.0);
        let gone = || -> io::Result<bool> {
            let Some(_lock) = self.lock(key, Hold::Alone)? else {
                return Ok(false);
            };
            draft::discard(&place)?;
            Ok(true)
        };
        gone().map_err(SnapshotError::io(format!(
            "cannot remove {}",
            place.display()
        )))
    }

    /// Removes what nobody has used longest until the rest fits the cap. Snapshots in use stay.
    /// Returns the bytes freed.
    ///
    /// # Errors
    /// When the directory cannot be read, or a snapshot not removed.
    pub fn evict(&self) -> Result<u64, SnapshotError> {
        let listed = self.list()?;
        let mut total: u64 = listed.iter().map(|listed| listed.bytes).sum();
        let mut freed = 0;
        for oldest in listed.iter().rev() {
            if total <= self.cap {
                break;
            }
            if self.remove(&oldest.key)? {
                total -= oldest.bytes;
                freed += oldest.bytes;
            }
        }
        Ok(freed)
    }

    /// Removes all snapshots that no process makes or uses, and drafts whose maker was killed.
    /// Returns the bytes freed.
    ///
    /// # Errors
    /// When the directory cannot be read, or a snapshot not removed.
    pub fn clean(&self) -> Result<u64, SnapshotError> {
        let mut freed = self.drop_drafts()?;
        for listed in self.list()? {
            if self.remove(&listed.key)? {
                freed += listed.bytes;
            }
        }
        Ok(freed)
    }

    /// Drafts belong to whoever holds some key's lock exclusively: when nobody does, they are
    /// nobody's.
    pub(super) fn drop_drafts(&self) -> Result<u64, SnapshotError> {
        let what = format!("cannot clean {}", self.dir.display());
        let drop = || -> io::Result<u64> {
            let names = std::fs::read_dir(&self.dir)?.collect::<io::Result<Vec<_>>>()?;
            let names: Vec<String> = names
                .iter()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            let mut locks = Vec::new();
            for key in names.iter().filter_map(|name| name.strip_suffix(".lock")) {
                match self.lock(&Key(key.into()), Hold::Shared)? {
                    Some(lock) => locks.push(lock),
                    None => return Ok(0),
                }
            }
            let mut freed = 0;
            for draft in names.iter().filter(|name| name.starts_with(draft::PREFIX)) {
                freed += size(&self.dir.join(draft))?;
                std::fs::remove_dir_all(self.dir.join(draft))?;
            }
            Ok(freed)
        };
        drop().map_err(SnapshotError::io(what))
    }

    /// Where it is noted that making a snapshot failed.
    pub(super) fn failure_file(&self, key: &Key) -> PathBuf {
        self.dir.join(format!("{key}.failed"))
    }

    /// The lock of a key, if nobody has it in a way that excludes this one.
    fn lock(&self, key: &Key, hold: Hold) -> io::Result<Option<Lease>> {
        Lease::take(&self.dir.join(format!("{key}.lock")), hold)
    }
}

/// What the files of a directory take on disk, in bytes.
fn size(dir: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        total += entry?.metadata()?.blocks() * 512;
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
