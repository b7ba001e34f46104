//! The cache: one directory per stage and content key, in place only when whole.
//!
//! `<cache>/<stage>/<key>/` is made under another name and renamed; `done.json` in it keeps the
//! inputs, for [`Inputs::why`]. Whoever makes or removes an entry holds a lock (flock(2)) on its name,
//! whoever uses it a shared one: builds side by side make it once, and nothing in use is removed.

pub(crate) mod cache;
pub(crate) mod key;
pub(crate) mod scratch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use image::{StageRecord, sparse};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::run::Site;
use crate::store::key::Inputs;
use crate::{BuildError, BuildEvent, run};

pub use cache::{DEFAULT_CACHE_CAP, clean_stages, empty_cache, parse_size};

/// File that makes a directory an entry.
pub(crate) const DONE: &str = "done.json";
/// How many entries of a stage are kept unless it is a large one: four variants with two kernels; the least recently used go
/// first. The cap on the cache ([`crate::store::cache`]) comes on top.
pub(crate) const KEPT: usize = 8;
/// After how long waiting for a lock is worth telling.
const LOCK_NEWS: Duration = Duration::from_secs(3);
/// How often a lock held by another build is tried.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// A stage before it runs: its name, and all that goes into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) inputs: Inputs,
    /// How many entries of it are kept.
    pub(crate) kept: usize,
}

/// What `done.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    seconds: f64,
    inputs: Inputs,
    /// Sizes of the entry's files, to notice one that is gone or cut.
    files: BTreeMap<String, u64>,
    /// Their digests ([`sparse::digest`]), to notice one that is another.
    #[serde(default)]
    digests: BTreeMap<String, String>,
}

/// Which state of an entry's file was hashed last: content cannot change without the change time
/// moving (as in [`image::Image::open`]). Kept beside the entry.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stamps(BTreeMap<String, (u64, i64, i64)>);

/// The result of a stage. While it lives, nobody removes it from the cache.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) dir: PathBuf,
    pub(crate) record: StageRecord,
    _lease: Option<Flock<File>>,
}

impl Entry {
    /// A directory like an entry's, of which somebody else sees to it that it stays.
    pub(crate) fn borrowed(name: &str, dir: PathBuf) -> Entry {
        Entry {
            dir,
            record: StageRecord {
                name: name.into(),
                key: String::new(),
                seconds: 0.0,
            },
            _lease: None,
        }
    }
}

/// What a build finds that wants an entry.
enum Claim {
    Use(Entry),
    Make(Flock<File>),
}

impl Site<'_> {
    /// Returns the stage's entry, making it with `make` if there is none. `make` gets an empty
    /// directory to fill.
    pub(crate) async fn stage<F>(
        &self,
        stage: &Stage,
        make: impl FnOnce(PathBuf) -> F,
    ) -> Result<Entry, BuildError>
    where
        F: Future<Output = Result<(), BuildError>>,
    {
        let key = stage.inputs.key();
        let home = self.cache.join(stage.name);
        fs::create_dir_all(&home).map_err(BuildError::io("make", &home))?;
        let dir = home.join(&key);
        let lock = match self.claim(stage.name, &key, &dir).await? {
            Claim::Use(entry) => {
                self.progress.event(&BuildEvent::StageCached {
                    stage: stage.name.into(),
                });
                return Ok(entry);
            }
            Claim::Make(lock) => lock,
        };
        if dir.join(DONE).exists() {
            self.note(format!("{} is damaged: made again", dir.display()));
        }
        self.progress.event(&BuildEvent::StageStarted {
            stage: stage.name.into(),
            why: stage.inputs.why(earlier(&home).iter()),
        });
        let since = Instant::now();
        run::fresh_log(&self.log(stage.name))?;
        let scratch = self.scratch(stage.name)?;
        let result = scratch.path().join("result");
        fs::create_dir(&result).map_err(BuildError::io("make", &result))?;
        make(result.clone()).await?;
        let seconds = (since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let files = sizes(&result).map_err(BuildError::io("list", &result))?;
        let digests = hashed(result.clone(), &files).await;
        let done = Done {
            seconds,
            inputs: stage.inputs.clone(),
            digests: digests.map_err(BuildError::io("read", &result))?,
            files,
        };
        let text = serde_json::to_vec_pretty(&done)
            .map_err(|e| BuildError::io("write", result.join(DONE))(std::io::Error::other(e)))?;
        fs::write(result.join(DONE), text).map_err(BuildError::io("write", result.join(DONE)))?;
        if dir.exists() {
            // Damaged, or it would have been used.
            fs::remove_dir_all(&dir).map_err(BuildError::io("remove", &dir))?;
        }
        fs::rename(&result, &dir).map_err(BuildError::io("rename", &result))?;
        remember(&dir, &done.files);
        // Shared from here on: others may use it too, and none may remove it.
        lock.relock(FlockArg::LockSharedNonblock)
            .map_err(|error| BuildError::io("lock", &dir)(error.into()))?;
        evict(&home, &dir, stage.kept);
        self.progress.event(&BuildEvent::StageDone {
            stage: stage.name.into(),
            seconds,
        });
        Ok(entry(stage.name, key, dir, seconds, lock))
    }

    /// The entry of a stage under a key that is known already, when it is still there and whole.
    pub(crate) async fn find(&self, name: &'static str, key: &str) -> Option<Entry> {
        let dir = self.cache.join(name).join(key);
        let lease = try_lock(&lock_of(&dir), FlockArg::LockSharedNonblock).ok()??;
        let done = whole(&dir).await?;
        self.progress
            .event(&BuildEvent::StageCached { stage: name.into() });
        Some(used(name, key, &dir, &done, lease))
    }

    /// The entry, or the right to make it; waits while another build makes it.
    async fn claim(&self, name: &str, key: &str, dir: &Path) -> Result<Claim, BuildError> {
        let path = lock_of(dir);
        let mut news = News::default();
        loop {
            if let Some(lease) = try_lock(&path, FlockArg::LockSharedNonblock)?
                && let Some(done) = whole(dir).await
            {
                return Ok(Claim::Use(used(name, key, dir, &done, lease)));
            }
            if let Some(lock) = try_lock(&path, FlockArg::LockExclusiveNonblock)?
                && whole(dir).await.is_none()
            {
                return Ok(Claim::Make(lock));
            }
            news.wait(self, &path).await;
        }
    }

    /// Takes a lock, waiting for another build that holds it, or another stage of this one. Dropping the
    /// guard gives it back.
    pub(crate) async fn lock(&self, path: &Path) -> Result<Held<'_>, BuildError> {
        let mut news = News::default();
        loop {
            if let Some(lock) = try_lock(path, FlockArg::LockExclusiveNonblock)? {
                self.held().insert(path.to_owned());
                return Ok(Held {
                    site: self,
                    path: path.to_owned(),
                    _lock: lock,
                });
            }
            if self.held().contains(path) {
                // What this build does itself is no news, and nobody else has waited for it.
                news = News::default();
            }
            news.wait(self, path).await;
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock a build holds.
pub(crate) struct Held<'a> {
    site: &'a Site<'a>,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.site.held().remove(&self.path);
    }
}

/// Waiting for a lock, and telling so.
struct News {
    since: Instant,
    told: bool,
}

impl Default for News {
    fn default() -> News {
        News {
            since: Instant::now(),
            told: false,
        }
    }
}

impl News {
    async fn wait(&mut self, site: &Site<'_>, path: &Path) {
        if !self.told && self.since.elapsed() > LOCK_NEWS {
            site.note(format!(
                "another build holds {}: waiting for it",
                path.display()
            ));
            self.told = true;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

/// The lock, unless somebody has it.
pub(crate) fn try_lock(path: &Path, how: FlockArg) -> Result<Option<Flock<File>>, BuildError> {
    // Not created by cutting: another build may be about to lock it.
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(BuildError::io("make", path))?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(BuildError::io("lock", path)(error.into())),
    }
}

/// The lock of an entry, beside it.
pub(crate) fn lock_of(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// An entry that was there, marked as used just now.
fn used(name: &str, key: &str, dir: &Path, done: &Done, lease: Flock<File>) -> Entry {
    touch(&dir.join(DONE));
    entry(name, key.to_owned(), dir.to_owned(), done.seconds, lease)
}

fn entry(name: &str, key: String, dir: PathBuf, seconds: f64, lease: Flock<File>) -> Entry {
    Entry {
        dir,
        record: StageRecord {
            name: name.into(),
            key,
            seconds,
        },
        _lease: Some(lease),
    }
}

/// What an entry says of itself, if its files are those it was made with. The caller holds its lock.
async fn whole(dir: &Path) -> Option<Done> {
    let done = read_done(dir)?;
    if sizes(dir).ok()? != done.files {
        return None;
    }
    let stamps: Stamps = fs::read(stamps_of(dir))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    // Entries of before there were digests have none.
    if !done.digests.is_empty() && stamps != stamp(dir, &done.files) {
        let digests = hashed(dir.to_owned(), &done.files).await.ok()?;
        if digests != done.digests {
            return None;
        }
        remember(dir, &done.files);
    }
    Some(done)
}

/// The digests of an entry's files, worked out beside what else is going on.
async fn hashed(
    dir: PathBuf,
    files: &BTreeMap<String, u64>,
) -> std::io::Result<BTreeMap<String, String>> {
    let names: Vec<String> = files.keys().cloned().collect();
    let hash = move || {
        let digest = |name: String| {
            let file = File::open(dir.join(&name))?;
            Ok((name, sparse::digest(&file)?))
        };
        names.into_iter().map(digest).collect()
    };
    tokio::task::spawn_blocking(hash)
        .await
        .map_err(std::io::Error::other)?
}

fn stamps_of(dir: &Path) -> PathBuf {
    dir.with_extension("stamps")
}

fn stamp(dir: &Path, files: &BTreeMap<String, u64>) -> Stamps {
    let one = |name: &String| {
        let meta = fs::metadata(dir.join(name)).ok()?;
        Some((name.clone(), (meta.ino(), meta.ctime(), meta.ctime_nsec())))
    };
    Stamps(files.keys().filter_map(one).collect())
}

/// Notes that the files were hashed as they are now. Without it they are hashed again.
fn remember(dir: &Path, files: &BTreeMap<String, u64>) {
    if let Ok(bytes) = serde_json::to_vec(&stamp(dir, files)) {
        let _slow_next_time = fs::write(stamps_of(dir), bytes);
    }
}

fn read_done(dir: &Path) -> Option<Done> {
    let bytes = fs::read(dir.join(DONE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Names and sizes of the files right in an entry.
fn sizes(dir: &Path) -> std::io::Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let (entry, name) = entry.map(|entry| (entry.metadata(), entry.file_name()))?;
        let meta = entry?;
        if meta.is_file() && name != DONE {
            sizes.insert(name.to_string_lossy().into_owned(), meta.len());
        }
    }
    Ok(sizes)
}

/// The inputs of all entries there are.
fn earlier(home: &Path) -> Vec<Inputs> {
    let dirs = fs::read_dir(home).into_iter().flatten().flatten();
    dirs.filter_map(|dir| read_done(&dir.path()))
        .map(|done| done.inputs)
        .collect()
}

/// Marks an entry as used just now. Only the order of eviction depends on it.
fn touch(path: &Path) {
    let now = fs::FileTimes::new().set_modified(SystemTime::now());
    let _best_effort = File::open(path).and_then(|file| file.set_times(now));
}

/// Removes the least recently used entries but `kept`, one of which is `keep`. What cannot be removed stays for the next
/// time: it costs space, not correctness.
fn evict(home: &Path, keep: &Path, kept: usize) {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    let mut used: Vec<(SystemTime, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|dir| dir != keep)
        .filter_map(|dir| {
            let used = fs::metadata(dir.join(DONE)).and_then(|meta| meta.modified());
            Some((used.ok()?, dir))
        })
        .collect();
    used.sort();
    used.reverse();
    for (_, dir) in used.drain(..).skip(kept - 1) {
        let _left = remove(&dir);
    }
}

/// Removes an entry unless a build uses it; tells whether it is gone.
pub(crate) fn remove(dir: &Path) -> bool {
    let Ok(Some(_lock)) = try_lock(&lock_of(dir), FlockArg::LockExclusiveNonblock) else {
        return false;
    };
    let _beside_it = fs::remove_file(stamps_of(dir));
    // Without its mark first: half an entry must not be found.
    fs::remove_file(dir.join(DONE)).is_ok() && fs::remove_dir_all(dir).is_ok()
}
