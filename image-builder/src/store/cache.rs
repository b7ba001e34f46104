//! The cache as a whole: kept below its cap, cleaned, emptied.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::FlockArg;

use crate::run::Site;
use crate::{BuildError, store};

/// What finished stages and downloaded packages may take unless the caller says otherwise, in bytes:
/// all four variants, with room for their last change.
pub const DEFAULT_CACHE_CAP: u64 = 16 << 30;
/// Hex digits of a key.
const KEY: usize = 64;

/// Something that can go.
#[derive(Debug)]
struct Piece {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
    is_entry: bool,
}

/// Removes the least recently used stages and packages until the rest is at most `cap` bytes. What a
/// build uses stays, whatever it takes. Returns the bytes freed.
pub(crate) fn trim(cache: &Path, cap: u64) -> u64 {
    let mut pieces = pieces(cache);
    pieces.sort_by_key(|piece| piece.used);
    let mut all: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    let mut freed = 0;
    for piece in pieces {
        if all <= cap {
            break;
        }
        let gone = if piece.is_entry {
            store::remove(&piece.path)
        } else {
            remove_package(&piece.path)
        };
        if gone {
            all -= piece.bytes;
            freed += piece.bytes;
        }
    }
    freed
}

/// Removes every finished stage that no build uses, and the downloaded packages; returns the bytes
/// freed.
///
/// # Errors
/// [`BuildError::CacheBusy`] when something stays because a build uses it.
pub fn clean_stages(cache: &Path) -> Result<u64, BuildError> {
    let freed = trim(cache, 0);
    match pieces(cache).first() {
        None => Ok(freed),
        Some(left) => Err(BuildError::CacheBusy {
            cache: cache.to_owned(),
            what: left.path.display().to_string(),
        }),
    }
}

/// Empties the cache, whatever is in it; the directory itself stays (it may be a mount).
///
/// # Errors
/// [`BuildError::CacheBusy`] when a build or check holds a lock in it: then nothing is removed.
/// [`BuildError::CacheLeft`] naming what cannot be removed.
pub async fn empty_cache(cache: &Path) -> Result<(), BuildError> {
    let Ok(entries) = fs::read_dir(cache) else {
        return match cache.exists() {
            true => fs::read_dir(cache)
                .map(drop)
                .map_err(BuildError::io("list", cache)),
            false => Ok(()),
        };
    };
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let mut held = Vec::new();
    for lock in locks(cache, &paths) {
        match store::try_lock(&lock, FlockArg::LockExclusiveNonblock)? {
            // Until all is gone: nobody begins meanwhile.
            Some(lock) => held.push(lock),
            None => {
                return Err(BuildError::CacheBusy {
                    cache: cache.to_owned(),
                    what: lock.display().to_string(),
                });
            }
        }
    }
    for path in &paths {
        let removed = remove(path);
        if removed.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            as_lent_ids(path).await;
        }
    }
    let mut left = Vec::new();
    for path in paths {
        // Once more, for the reason.
        if let Err(error) = remove(&path) {
            left.push(format!("{}: {error}", path.display()));
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(BuildError::CacheLeft {
        cache: cache.to_owned(),
        left,
    })
}

/// Removes what belongs to the ids an ordinary user is lent; whether it worked is looked at
/// afterwards.
async fn as_lent_ids(path: &Path) {
    let command = Site::program("unshare")
        .args(store::scratch::AS_LENT_IDS)
        .arg(path);
    if let Ok(mut child) = command.spawn().await {
        let _looked_at_later = child.wait().await;
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The lock files by which builds and machines hold what they use.
fn locks(cache: &Path, homes: &[PathBuf]) -> Vec<PathBuf> {
    let mut locks = Vec::new();
    for home in homes {
        for entry in fs::read_dir(home).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_lock = path.extension().is_some_and(|e| e == "lock") || path.ends_with("lock");
            if is_lock && path.is_file() {
                locks.push(path);
            } else if home == &cache.join("tmp") && path.join("lock").is_file() {
                locks.push(path.join("lock"));
            }
        }
    }
    locks
}

/// Finished stages, and downloaded packages.
fn pieces(cache: &Path) -> Vec<Piece> {
    let list = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let is_key = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.len() == KEY && name.chars().all(|c| c.is_ascii_hexdigit())
    };
    let used = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let mut pieces = Vec::new();
    for dir in list(cache).iter().flat_map(|home| list(home)) {
        if is_key(&dir)
            && let Some(used) = used(&dir.join(store::DONE))
        {
            pieces.push(Piece {
                used,
                bytes: allocated(&dir),
                path: dir,
                is_entry: true,
            });
        }
    }
    for path in list(&cache.join("apt/archives")) {
        if path.extension().is_some_and(|e| e == "deb")
            && let Some(used) = used(&path)
        {
            pieces.push(Piece {
                used,
                bytes: allocated(&path),
                path,
                is_entry: false,
            });
        }
    }
    pieces
}

/// Removes a downloaded package unless somebody is fetching; tells whether it is gone.
fn remove_package(path: &Path) -> bool {
    let apt = path.ancestors().nth(2).unwrap_or(path);
    let lock = store::try_lock(&apt.join("lock"), FlockArg::LockExclusiveNonblock);
    matches!(lock, Ok(Some(_))) && fs::remove_file(path).is_ok()
}

/// What a file or folder takes on disk.
fn allocated(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512);
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let below = match is_dir {
        true => fs::read_dir(path).into_iter().flatten().flatten(),
        false => return own,
    };
    own + below.map(|entry| allocated(&entry.path())).sum::<u64>()
}

/// A size as people write it, `8G`, in bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let shift = match unit {
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Four entries of a MiB, the first the least recently used.
    fn cache() -> (tempfile::TempDir, Vec<PathBuf>) {
        let cache = tempfile::tempdir().expect("a directory");
        let mut entries = Vec::new();
        for n in 1..=4 {
            let dir = cache.path().join("base").join(format!("{n:064x}"));
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(dir.join("root"), vec![1; 1 << 20]).expect("a file");
            fs::write(dir.join(store::DONE), "{}").expect("a file");
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(n);
            let times = fs::FileTimes::new().set_modified(used);
            let done = fs::File::open(dir.join(store::DONE)).expect("a file");
            done.set_times(times).expect("a time");
            entries.push(dir);
        }
        (cache, entries)
    }

    #[test]
    fn the_least_recently_used_go_first_and_nothing_in_use() {
        let (cache, entries) = cache();
        let path = store::lock_of(&entries[0]);
        let lease = store::try_lock(&path, FlockArg::LockSharedNonblock).expect("a lock");
        assert!(trim(cache.path(), 8 << 20) == 0);
        assert!(trim(cache.path(), 5 << 19) > 1 << 20);
        let there: Vec<bool> = entries.iter().map(|dir| dir.exists()).collect();
        assert_eq!(there, [true, false, false, true]);
        let error = clean_stages(cache.path()).expect_err("one is in use");
        assert!(error.to_string().contains("is in use"), "{error}");
        drop(lease);
        clean_stages(cache.path()).expect("cleaned");
        assert!(entries.iter().all(|dir| !dir.exists()));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("8G"), Some(8 << 30));
        assert_eq!(parse_size("8"), None);
        assert_eq!(parse_size("99999999999T"), None);
        assert_eq!(parse_size(""), None);
    }
}
