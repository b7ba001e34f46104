//! The database: runs by time, and the room that packages take in an image by the image's digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Run;

/// More than these are not kept; the oldest go first. At a few kilobytes a run that is some megabytes.
pub const MOST_RUNS: u64 = 2000;
/// The only layout of the tables this version reads and writes.
const FORMAT: u64 = 1;
/// How long another process may hold the file before we give up.
const PATIENCE: Duration = Duration::from_secs(10);

const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");
/// By when it ended and what it was, so that the same run cannot be added twice.
const RUNS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("runs");
/// By SHA-256 of the image's disk.
const SIZES: TableDefinition<&str, &[u8]> = TableDefinition::new("sizes");

/// Bytes of the files of each package in an image.
pub type Sizes = BTreeMap<String, u64>;

/// Why the history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Somebody else has it.
    #[error("the history {} is in use by another process: try again when that has ended", file.display())]
    Busy {
        /// The file.
        file: PathBuf,
    },
    /// It cannot be used.
    #[error("the history {} cannot be used: {why}; move it away to begin a new one", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The open database. One process has it at a time; hold it briefly.
#[derive(Debug)]
pub struct History {
    file: PathBuf,
    database: Database,
}

impl History {
    /// Opens the history in `file`, and makes it when there is none.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn open(file: &Path) -> Result<History, HistoryError> {
        let unusable = |why: String| HistoryError::Unusable {
            file: file.to_owned(),
            why,
        };
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir).map_err(|e| unusable(e.to_string()))?;
        }
        let begin = Instant::now();
        let database = loop {
            match Database::create(file) {
                Ok(database) => break database,
                Err(DatabaseError::DatabaseAlreadyOpen) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(DatabaseError::DatabaseAlreadyOpen) => {
                    return Err(HistoryError::Busy {
                        file: file.to_owned(),
                    });
                }
                Err(error) => return Err(unusable(error.to_string())),
            }
        };
        let history = History {
            file: file.to_owned(),
            database,
        };
        history.prepare()?;
        Ok(history)
    }

    /// All tables there, and of the format we know. Looks before it writes: a commit waits for the disk.
    fn prepare(&self) -> Result<(), HistoryError> {
        let known = {
            let read = self.database.begin_read().map_err(|e| self.bad(e))?;
            match read.open_table(ABOUT) {
                Ok(about) => about.get("format").map_err(|e| self.bad(e))?,
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(self.bad(error)),
            }
            .map(|value| value.value())
        };
        match known {
            Some(FORMAT) => return Ok(()),
            Some(other) => {
                let why = format!("it is of format {other}, this program knows {FORMAT}");
                return Err(self.bad(why));
            }
            None => {}
        }
        let write = self.database.begin_write().map_err(|e| self.bad(e))?;
        {
            let mut about = write.open_table(ABOUT).map_err(|e| self.bad(e))?;
            about.insert("format", FORMAT).map_err(|e| self.bad(e))?;
            write.open_table(RUNS).map_err(|e| self.bad(e))?;
            write.open_table(SIZES).map_err(|e| self.bad(e))?;
        }
        write.commit().map_err(|e| self.bad(e))
    }

    /// Adds a run; one with the same time and subject is replaced.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn add(&self, run: &Run) -> Result<(), HistoryError> {
        let value = self.encode(run)?;
        let write = self.database.begin_write().map_err(|e| self.bad(e))?;
        {
            let mut runs = write.open_table(RUNS).map_err(|e| self.bad(e))?;
            runs.insert((run.at_ms, run.what.as_str()), value.as_slice())
                .map_err(|e| self.bad(e))?;
            while runs.len().map_err(|e| self.bad(e))? > MOST_RUNS {
                runs.pop_first().map_err(|e| self.bad(e))?;
            }
        }
        write.commit().map_err(|e| self.bad(e))
    }

    /// Whether this run is there.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn has(&self, at_ms: u64, what: &str) -> Result<bool, HistoryError> {
        let read = self.database.begin_read().map_err(|e| self.bad(e))?;
        let runs = read.open_table(RUNS).map_err(|e| self.bad(e))?;
        let found = runs.get((at_ms, what)).map_err(|e| self.bad(e))?;
        Ok(found.is_some())
    }

    /// All runs, oldest first.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn runs(&self) -> Result<Vec<Run>, HistoryError> {
        let read = self.database.begin_read().map_err(|e| self.bad(e))?;
        let table = read.open_table(RUNS).map_err(|e| self.bad(e))?;
        let mut runs = Vec::new();
        for entry in table.iter().map_err(|e| self.bad(e))? {
            let (_, value) = entry.map_err(|e| self.bad(e))?;
            runs.push(self.decode(value.value())?);
        }
        Ok(runs)
    }

    /// What takes the room in the image with this digest, if that was ever looked at.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn sizes(&self, sha256: &str) -> Result<Option<Sizes>, HistoryError> {
        let read = self.database.begin_read().map_err(|e| self.bad(e))?;
        let table = read.open_table(SIZES).map_err(|e| self.bad(e))?;
        let value = table.get(sha256).map_err(|e| self.bad(e))?;
        value.map(|value| self.decode(value.value())).transpose()
    }

    /// Remembers what takes the room in an image.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn keep_sizes(&self, sha256: &str, sizes: &Sizes) -> Result<(), HistoryError> {
        let value = self.encode(sizes)?;
        let write = self.database.begin_write().map_err(|e| self.bad(e))?;
        {
            let mut table = write.open_table(SIZES).map_err(|e| self.bad(e))?;
            table
                .insert(sha256, value.as_slice())
                .map_err(|e| self.bad(e))?;
        }
        write.commit().map_err(|e| self.bad(e))
    }

    fn encode(&self, what: &impl Serialize) -> Result<Vec<u8>, HistoryError> {
        serde_json::to_vec(what).map_err(|e| self.bad(e))
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, HistoryError> {
        serde_json::from_slice(bytes).map_err(|e| self.bad(e))
    }

    fn bad(&self, why: impl ToString) -> HistoryError {
        HistoryError::Unusable {
            file: self.file.clone(),
            why: why.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use results::figures::HostKind;

    use super::*;

    fn run(at_ms: u64) -> Run {
        Run {
            at_ms,
            what: "checks".into(),
            host: HostKind::default(),
            images: Vec::new(),
            outcomes: vec![("minimal::quick::stress".into(), "pass".into())],
            figures: Vec::new(),
        }
    }

    #[test]
    fn runs_come_back_in_order_and_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("deep/history.redb");
        {
            let history = History::open(&file).expect("made");
            for at in [3, 1, 2, 3] {
                history.add(&run(at)).expect("added");
            }
        }
        let history = History::open(&file).expect("there");
        let times: Vec<u64> = history
            .runs()
            .expect("read")
            .iter()
            .map(|r| r.at_ms)
            .collect();
        assert_eq!(times, [1, 2, 3]);
        assert!(history.has(2, "checks").expect("read"));
        assert!(!history.has(2, "perf").expect("read"));
        let sizes = Sizes::from([("perl".to_owned(), 7)]);
        history.keep_sizes("00", &sizes).expect("kept");
        assert_eq!(history.sizes("00").expect("read"), Some(sizes));
        assert_eq!(history.sizes("11").expect("read"), None);
    }

    #[test]
    fn a_file_that_is_no_history_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("history.redb");
        std::fs::write(&file, "not a database, but long enough to be looked at").expect("a file");
        let said = History::open(&file).expect_err("refused").to_string();
        assert!(
            said.contains("history.redb") && said.contains("move it away"),
            "{said}"
        );

        let file = dir.path().join("newer.redb");
        let history = History::open(&file).expect("made");
        let write = history.database.begin_write().expect("writes");
        {
            let mut about = write.open_table(ABOUT).expect("a table");
            about.insert("format", 9).expect("written");
        }
        write.commit().expect("written");
        drop(history);
        let said = History::open(&file).expect_err("refused").to_string();
        assert!(said.contains("format 9"), "{said}");
    }
}
