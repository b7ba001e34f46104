//! Why a machine could not be started or asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use agent_client::AgentError;
use clock::{Passed, Whose};

use super::{Death, QmpError};

/// An error of the machine room. Each is a sentence that says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// What the spec asks for is not there; all of it at once.
    #[error("machine `{name}` cannot be started:{}", bullets(missing))]
    Unmet {
        /// The machine's name.
        name: String,
        /// One sentence with its remedy each.
        missing: Vec<String>,
    },
    /// This host has too little of something the machine would take; all of it at once. The host's fault.
    #[error("{}", lacks.join("\n"))]
    NoRoom {
        /// The machine's name.
        name: String,
        /// One sentence with figures and remedy each.
        lacks: Vec<String>,
    },
    /// QEMU is not installed.
    #[error(
        "no QEMU: `{program}` is not in PATH; install it with `apt-get install qemu-system-x86`, or name one with VEXFS_QEMU"
    )]
    NoQemu {
        /// What was looked for.
        program: String,
    },
    /// QEMU is there but does not work.
    #[error("`{program}` does not say its version: {why}")]
    OddQemu {
        /// The program.
        program: String,
        /// What went wrong.
        why: String,
    },
    /// The requested accelerator cannot be used.
    #[error("accelerator kvm was asked for, but {why}; use `--accel auto` or `--accel tcg`")]
    NoKvm {
        /// Why not.
        why: String,
    },
    /// The requested vsock backend cannot be used.
    #[error("vsock backend kernel was asked for, but {why}; use `--vsock user`")]
    NoVsock {
        /// Why not.
        why: String,
    },
    /// QEMU or its daemon ended before the machine was up.
    #[error("{program} ended before the machine was up ({status}); its last words:\n{tail}\nwhole log: {}", log.display())]
    EndedEarly {
        /// Which program.
        program: String,
        /// Its exit status in words.
        status: String,
        /// The last lines it printed.
        tail: String,
        /// Where all it printed is.
        log: PathBuf,
    },
    /// QEMU or its daemon did not come up in time.
    #[error("{what} did not happen within {} s; see {}", within.as_secs_f32(), log.display())]
    Slow {
        /// What was waited for.
        what: String,
        /// Who let us wait.
        whose: Whose,
        /// For how long.
        within: Duration,
        /// Where to look.
        log: PathBuf,
    },
    /// The machine died while something was asked of it.
    #[error("{0}")]
    Died(Death),
    /// A file, socket or process of the machine failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A QMP command failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// Something was asked of the agent of a machine that has none, or not the one that was meant.
    #[error("cannot speak to the agent: {0}")]
    Uninvited(String),
    /// The agent accepts connections, and could not be spoken to.
    #[error("cannot speak to the agent: {0}")]
    Agent(AgentError),
    /// Nothing answers on a vsock port of the guest.
    #[error("no answer on vsock port {port} of the guest {late}: {why}")]
    NoAnswer {
        /// The port.
        port: u32,
        /// How long was tried.
        late: Passed,
        /// What the last attempt said.
        why: String,
    },
}

impl MachineError {
    /// Whose fault it is.
    pub fn whose(&self) -> Whose {
        match self {
            MachineError::Unmet { .. }
            | MachineError::NoQemu { .. }
            | MachineError::NoKvm { .. }
            | MachineError::NoVsock { .. }
            // It has been waited for.
            | MachineError::NoRoom { .. }
            | MachineError::Uninvited(_) => Whose::Ours,
            // A program that ends or does not answer while it starts has met no guest yet.
            MachineError::OddQemu { .. }
            | MachineError::EndedEarly { .. }
            | MachineError::Io { .. } => Whose::Host,
            MachineError::Slow { whose, .. } => *whose,
            MachineError::Died(death) => death.whose(),
            MachineError::Qmp(error) => error.whose(),
            MachineError::Agent(error) => error.whose(),
            MachineError::NoAnswer { late, .. } => late.whose(),
        }
    }

    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> MachineError {
        let what = what.into();
        move |source| MachineError::Io { what, source }
    }
}

impl QmpError {
    /// Whose fault it is. Nothing of the guest's stands between us and QEMU's monitor.
    pub fn whose(&self) -> Whose {
        match self {
            // We have asked for something that this QEMU does not do.
            QmpError::Refused { .. } => Whose::Ours,
            QmpError::NotQmp(_) | QmpError::Slow { .. } | QmpError::Gone { .. } => Whose::Host,
        }
    }
}

fn bullets(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  - {line}")).collect()
}
