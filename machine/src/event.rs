//! What a machine says about itself while it runs, and how it can die.

use std::process::ExitStatus;
use std::time::Duration;

use clock::Whose;

/// One thing that happened to a machine.
///
/// Delivered through a channel that forgets the oldest when a receiver is slow; what must not be
/// missed is kept elsewhere: lines in [`super::Console`], the end in [`super::Machine::died`].
#[derive(Debug, Clone)]
pub enum MachineEvent {
    /// The guest wrote a line to its serial console.
    ConsoleLine(super::Line),
    /// The guest's kernel panicked (pvpanic), whether or not the console shows it.
    GuestPanicked,
    /// The machine is shutting down.
    Shutdown {
        /// Whether the guest asked for it.
        guest: bool,
        /// QEMU's word for the cause, for example `guest-shutdown`.
        reason: String,
    },
    /// The machine was reset, for example by a reboot in the guest.
    Reset {
        /// Whether the guest asked for it.
        guest: bool,
        /// QEMU's word for the cause, for example `guest-reset`.
        reason: String,
    },
    /// Any other QMP event.
    Other {
        /// Its name, for example `DEVICE_DELETED`.
        name: String,
        /// Its data.
        data: serde_json::Value,
    },
    /// The machine is dead; nothing follows.
    Died(Death),
}

/// How a machine came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// The guest's kernel panicked. QEMU is still there, with the virtual CPUs stopped: registers
    /// and memory can be looked at.
    GuestPanicked,
    /// QEMU ended.
    Exited {
        /// QEMU's exit status; `None` if its keeper was killed and took it along.
        status: Option<ExitStatus>,
        /// QEMU's word for the cause if it announced one, for example `guest-shutdown`.
        reason: Option<String>,
    },
    /// The host could not store what the guest wrote to a disk. The guest is stopped.
    DiskError {
        /// Which disk: `system` or the serial of an extra disk.
        disk: String,
        /// Whether the host's file system is full.
        full: bool,
        /// QEMU's words.
        reason: String,
    },
    /// The vsock device ended; the guest can no longer be reached.
    VsockLost {
        /// Its last words, from its log.
        tail: String,
    },
}

impl Death {
    /// Whether the guest ended the machine in good order (power-off, or a reboot that the spec
    /// turns into an end).
    pub fn is_orderly(&self) -> bool {
        matches!(self, Death::Exited { status: Some(status), reason: Some(reason) }
            if status.success() && matches!(reason.as_str(), "guest-shutdown" | "guest-reset"))
    }

    /// Whose doing it was. QEMU announces an end that the guest brought about with a reason that begins
    /// with `guest-` (qapi/run-state.json, `ShutdownCause`); every other end of QEMU, its daemon or a disk
    /// came from outside the guest.
    pub fn whose(&self) -> Whose {
        match self {
            Death::GuestPanicked => Whose::Guest,
            Death::Exited {
                status: Some(status),
                reason: Some(reason),
            } if status.success() && reason.starts_with("guest-") => Whose::Guest,
            Death::Exited { .. } | Death::DiskError { .. } | Death::VsockLost { .. } => Whose::Host,
        }
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Death::GuestPanicked => f.write_str("the guest's kernel panicked"),
            Death::Exited { status, reason } => {
                f.write_str("the machine ended")?;
                if let Some(reason) = reason {
                    write!(f, " ({reason})")?;
                }
                match status {
                    Some(status) if status.success() => Ok(()),
                    Some(status) => write!(f, ": QEMU ended with {status}"),
                    None => f.write_str(": QEMU was killed"),
                }
            }
            Death::DiskError {
                disk, full: true, ..
            } => write!(
                f,
                "the host's disk is full: it could not store what the guest wrote to disk `{disk}`"
            ),
            Death::DiskError { disk, reason, .. } => {
                write!(
                    f,
                    "the host failed to serve the guest's disk `{disk}`: {reason}"
                )
            }
            Death::VsockLost { tail } => {
                write!(
                    f,
                    "the vsock device of the machine ended; its last words: {tail}"
                )
            }
        }
    }
}

/// A moment in a machine's life: time since its QEMU was started.
pub type Age = Duration;

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_an_end_that_the_guest_announced_is_the_guests() {
        let exited = |raw, reason: Option<&str>| Death::Exited {
            status: Some(ExitStatus::from_raw(raw)),
            reason: reason.map(Into::into),
        };
        let table = [
            (Death::GuestPanicked, Whose::Guest),
            (exited(0, Some("guest-shutdown")), Whose::Guest),
            (exited(0, Some("guest-reset")), Whose::Guest),
            (exited(0, Some("guest-panic")), Whose::Guest),
            // SIGTERM to QEMU: it ends in good order, and says on whose word.
            (exited(0, Some("host-signal")), Whose::Host),
            (exited(0, None), Whose::Host),
            // SIGKILL, as by the kernel's killer of processes without memory; and QEMU's own abort.
            (exited(9, None), Whose::Host),
            (exited(6, Some("guest-shutdown")), Whose::Host),
            (exited(1 << 8, None), Whose::Host),
            (
                Death::Exited {
                    status: None,
                    reason: None,
                },
                Whose::Host,
            ),
            (
                Death::DiskError {
                    disk: "system".into(),
                    full: true,
                    reason: String::new(),
                },
                Whose::Host,
            ),
            (
                Death::VsockLost {
                    tail: String::new(),
                },
                Whose::Host,
            ),
        ];
        for (death, whose) in table {
            assert_eq!(death.whose(), whose, "{death}");
        }
    }
}
