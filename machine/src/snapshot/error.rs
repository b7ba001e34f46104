//! Why there is no snapshot, or no fork of one.

use std::io;
use std::path::PathBuf;

use agent_client::AgentError;
use clock::Whose;

use crate::MachineError;

/// An error of the snapshot room.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The machine to freeze, or the fork, could not be started or asked.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The host's fault, every time it was tried.
    #[error("tried {} times: {last}{}", troubles.len() + 1, before(troubles))]
    Persists {
        /// What the earlier tries met.
        troubles: Vec<String>,
        /// What the last one met.
        last: Box<SnapshotError>,
    },
    /// The guest's own doing: it did not get as far as its agent, or not to rest.
    #[error("the machine to freeze did not settle: {why}; its console ends with:\n{console}")]
    Unsettled {
        /// What went wrong.
        why: String,
        /// The last lines of its console.
        console: String,
    },
    /// Another process of the same test run has just tried in vain.
    #[error("another process of this run could not make the snapshot either: {why}")]
    FailedBefore {
        /// What it was told.
        why: String,
    },
    /// A restored machine does not answer as it should. What was frozen did answer.
    #[error("the fork did not come to life: {doing}: {source}")]
    Fork {
        /// What was asked of it.
        doing: &'static str,
        /// How that failed.
        source: AgentError,
    },
    /// A restored machine does not answer at all. What was frozen did.
    #[error("the fork did not come to life: {0}")]
    Silent(MachineError),
    /// QEMU could not write or read the state of the devices.
    #[error("the machine's state could not be {done}: {why}")]
    State {
        /// `saved` or `restored`.
        done: &'static str,
        /// QEMU's words.
        why: String,
    },
    /// The files of a snapshot make no sense.
    #[error("the snapshot in {} is broken ({why}); remove it with `vexfs-images clean --snapshots`", dir.display())]
    Broken {
        /// Where it is.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file or lock of the store failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl SnapshotError {
    /// Whose fault it is.
    pub fn whose(&self) -> Whose {
        match self {
            SnapshotError::Machine(error) => error.whose(),
            SnapshotError::Unsettled { .. } | SnapshotError::FailedBefore { .. } => Whose::Guest,
            // A snapshot is of a guest that answered, and nothing has been asked of it since: what does
            // not wake up was not restored as it was.
            SnapshotError::Persists { .. }
            | SnapshotError::Fork { .. }
            | SnapshotError::Silent(_)
            | SnapshotError::State { .. }
            | SnapshotError::Broken { .. }
            | SnapshotError::Io { .. } => Whose::Host,
        }
    }

    /// Wraps an I/O error with what was being done.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> SnapshotError {
        let what = what.into();
        move |source| SnapshotError::Io { what, source }
    }
}

fn before(troubles: &[String]) -> String {
    troubles
        .iter()
        .map(|trouble| format!("\n  before: {trouble}"))
        .collect()
}
