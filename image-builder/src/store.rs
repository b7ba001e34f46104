//! The cache: one directory per stage and content key, in place only when whole.
//!
//! `<cache>/<stage>/<key>/` is made under another name and renamed; `done.json` in it keeps the
//! inputs, for [`Inputs::why`]. Whoever makes an entry holds a lock (flock(2)) on its name, so that
//! builds side by side make it once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::key::Inputs;
use crate::run::Site;
use crate::{BuildError, BuildEvent, StageRecord, run};

/// File that makes a directory an entry.
const DONE: &str = "done.json";
/// How many entries of a stage are kept; the least recently used go first.
const KEPT: usize = 4;
/// Stages of which fewer are kept, for they are large: one is enough for each kernel series, and of tools
/// disks one for each tier, and the last one of either.
const KEPT_OF: &[(&str, usize)] = &[("builder", 3), ("linux", 3), ("tools", 3)];
/// After how long waiting for a lock is worth telling.
const LOCK_NEWS: Duration = Duration::from_secs(3);
/// How often a lock held by another build is tried.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// A stage before it runs: its name and all that goes into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) inputs: Inputs,
}

/// What `done.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    seconds: f64,
    inputs: Inputs,
    /// Sizes of the entry's files, to notice one that is gone or cut.
    files: BTreeMap<String, u64>,
}

/// The result of a stage.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) dir: PathBuf,
    pub(crate) record: StageRecord,
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
        if let Some(entry) = self.hit(stage.name, &key, &dir) {
            return Ok(entry);
        }
        let _lock = self.lock(&home.join(format!("{key}.lock"))).await?;
        if let Some(entry) = self.hit(stage.name, &key, &dir) {
            return Ok(entry);
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
        let done = Done {
            seconds,
            inputs: stage.inputs.clone(),
            files: sizes(&result).map_err(BuildError::io("list", &result))?,
        };
        let text = serde_json::to_vec_pretty(&done)
            .map_err(|e| BuildError::io("write", result.join(DONE))(std::io::Error::other(e)))?;
        fs::write(result.join(DONE), text).map_err(BuildError::io("write", result.join(DONE)))?;
        if dir.exists() {
            // Damaged, or `hit` would have found it.
            fs::remove_dir_all(&dir).map_err(BuildError::io("remove", &dir))?;
        }
        fs::rename(&result, &dir).map_err(BuildError::io("rename", &result))?;
        let kept = KEPT_OF.iter().find(|(name, _)| *name == stage.name);
        evict(&home, &dir, kept.map_or(KEPT, |(_, kept)| *kept));
        self.progress.event(&BuildEvent::StageDone {
            stage: stage.name.into(),
            seconds,
        });
        Ok(entry(stage.name, key, dir, seconds))
    }

    /// The entry of a stage under a key that is known already, when it is still there.
    pub(crate) fn find(&self, name: &'static str, key: &str) -> Option<Entry> {
        self.hit(name, key, &self.cache.join(name).join(key))
    }

    fn hit(&self, name: &'static str, key: &str, dir: &Path) -> Option<Entry> {
        let done = read_done(dir)?;
        if sizes(dir).ok()? != done.files {
            self.note(format!("{} is damaged: made again", dir.display()));
            return None;
        }
        self.progress
            .event(&BuildEvent::StageCached { stage: name.into() });
        touch(&dir.join(DONE));
        Some(entry(name, key.to_owned(), dir.to_owned(), done.seconds))
    }

    /// Takes a lock, waiting for another build that holds it. Dropping the guard gives it back.
    pub(crate) async fn lock(&self, path: &Path) -> Result<Flock<File>, BuildError> {
        let open = || File::create(path).map_err(BuildError::io("make", path));
        let mut file = open()?;
        let since = Instant::now();
        let mut told = false;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
                Err((_, error)) => return Err(BuildError::io("lock", path)(error.into())),
            }
            // Downloads of one build wait for each other for moments: that is no news.
            if !told && since.elapsed() > LOCK_NEWS {
                self.note(format!(
                    "another build holds {}: waiting for it",
                    path.display()
                ));
                told = true;
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }
}

fn entry(name: &str, key: String, dir: PathBuf, seconds: f64) -> Entry {
    Entry {
        dir,
        record: StageRecord {
            name: name.into(),
            key,
            seconds,
        },
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
        // Without its mark first: half an entry must not be found.
        if fs::remove_file(dir.join(DONE)).is_ok() {
            let _left = fs::remove_dir_all(&dir);
        }
    }
}
