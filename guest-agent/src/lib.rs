//! `vexfs-agent`: the hands of the host inside a machine under test.
//!
//! It listens on vsock, lets in only a host that proves the secret of this boot, and does what
//! [`agent_protocol::Request`] lists, one file per capability: [`exec`], [`files`], [`module`],
//! [`mount`], [`info`], [`kmsg`], [`clock`], [`power`]. Without the secret it is not there:
//! [`credential`] is read before anything else.
//!
//! Around them: [`listener`] (who may connect, and carrying on when the device goes away),
//! [`connection`] (handshake, frames, requests side by side), [`flow`] (no flood passes), and
//! [`dispatch`] (which request is which function).
//!
//! Three rules hold everywhere:
//!
//! * **Nothing outlives its request, no request outlives its connection.** Requests are futures;
//!   dropping one kills what it started and removes what it half wrote.
//! * **The runtime's one thread touches no file system but `/proc` and `/sys`.** What is tested here
//!   is a file system that may hang for ever; such calls go to the blocking pool, where they can
//!   hang alone.
//! * **A fault is an answer, garbage is a good-bye.** A malformed frame closes that connection and
//!   nothing else.
//!
//! What is checked, and what a result means, is decided on the host.

pub mod clock;
pub mod connection;
pub mod credential;
pub mod dispatch;
pub mod exec;
pub mod files;
pub mod flow;
pub mod info;
pub mod invited;
pub mod kmsg;
pub mod listener;
pub mod log;
pub mod module;
pub mod mount;
pub mod power;
mod raw;
pub mod reclaim;

use std::sync::Mutex;
use std::time::Instant;

use agent_protocol::{Fault, FaultKind, Secret};

/// What all connections share.
pub struct Agent {
    /// Who may come in.
    pub secret: Secret,
    /// When this agent began.
    pub started: Instant,
    /// Where programs get a cgroup of their own, if the agent has been given one to divide.
    pub cgroups: Option<exec::tree::Cgroups>,
    /// Knows where the kernel log ends.
    pub log_end: Mutex<Option<kmsg::LogEnd>>,
}

impl Agent {
    /// An agent for hosts that know `secret`.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            started: Instant::now(),
            cgroups: exec::tree::Cgroups::find(),
            log_end: Mutex::new(None),
        }
    }
}

/// Runs what may block, or hang, on a thread of the blocking pool.
///
/// # Errors
/// Those of `work`, and its panic.
pub async fn off_thread<T, F>(work: F) -> Result<T, Fault>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Fault> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::new(
            FaultKind::System,
            format!("the agent's worker: {error}"),
        )),
    }
}
