//! Running programs.

use serde::{Deserialize, Serialize};

use super::GuestPath;
use crate::bounded;

/// A program to run, and within which bounds.
///
/// It gets a clean environment (`PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG`) plus
/// [`env`](Self::env), a session of its own, and everything it starts ends with it: when it exits,
/// when the request's deadline passes, when it is cancelled, or when the connection drops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program (looked up in `PATH` when without a slash) and its arguments; never empty.
    #[serde(deserialize_with = "bounded::list")]
    pub argv: Vec<String>,
    /// Variables set on top of the clean environment.
    #[serde(deserialize_with = "bounded::list")]
    pub env: Vec<(String, String)>,
    /// Working directory; the user's home when absent.
    pub cwd: Option<GuestPath>,
    /// Name or numeric id in the guest's `/etc/passwd`; root when absent.
    pub user: Option<String>,
    /// Whether standard input is fed by [`super::Input`]; `/dev/null` otherwise.
    pub stdin: bool,
    /// Give it a terminal of this size; output then comes as [`super::Event::Stdout`] alone.
    pub terminal: Option<WindowSize>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecResult {
    /// What wait(2) said.
    pub ended: Ended,
    /// Set when the agent killed it.
    pub killed: Option<KilledBecause>,
    /// Whether something it started is still there after SIGKILL, hanging inside the kernel.
    pub left_behind: bool,
    /// Milliseconds it ran, by the guest's monotonic clock.
    pub ran_ms: u64,
}

/// What wait(2) said about a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signalled {
        /// signal(7).
        signal: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
    /// SIGKILL did not end it: it hangs inside the kernel.
    Unkillable,
}

/// Why the agent killed a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KilledBecause {
    /// Its deadline passed.
    Deadline,
    /// The host cancelled it.
    Cancelled,
}

impl ExecResult {
    /// Whether it exited by itself with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.killed.is_none() && self.ended == Ended::Exited(0)
    }

    /// Whether the agent killed it because its deadline had passed.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.killed == Some(KilledBecause::Deadline)
    }
}
