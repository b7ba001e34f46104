//! How many machines may run on this host at once, across all processes.
//!
//! nextest runs every test in a process of its own, and nothing but the file system is common to
//! them. So the host's memory and processors are cut into tickets, each a file with a lock (flock(2))
//! that the kernel gives back when its holder ends, however it ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::machine::MachineSpec;

/// Memory one ticket stands for.
const TICKET_MIB: u64 = 256;

/// What a machine costs besides its guest's memory: QEMU, its code buffer, the vsock daemon and
/// the keepers; measured on idle forks.
const OVERHEAD_MIB: u64 = 160;

/// Share of the host's memory that machines may have, in percent; the rest is for builds, page
/// cache and whoever else lives here.
const SHARE: u64 = 70;

/// Machines per processor: they wait for their guests' timers half of the time.
const PER_PROCESSOR: u64 = 2;

/// How often a waiting process looks again.
const LOOK: Duration = Duration::from_millis(10);

/// The right to run a machine; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    _locks: Vec<Flock<File>>,
}

/// How many tickets of each kind a host has, or a machine takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tickets {
    /// Of 256 MiB each.
    pub memory: u64,
    /// One per running machine.
    pub processor: u64,
}

impl Tickets {
    /// All there are on a host with that much memory and that many processors.
    pub fn of_host(memory_mib: u64, processors: u64) -> Tickets {
        Tickets {
            memory: (memory_mib * SHARE / 100 / TICKET_MIB).max(1),
            processor: (processors * PER_PROCESSOR).max(1),
        }
    }

    /// What a machine takes. A machine larger than the host takes everything: it runs alone.
    pub fn of_machine(spec: &MachineSpec, host: Tickets) -> Tickets {
        let memory = (u64::from(spec.memory_mib) + OVERHEAD_MIB).div_ceil(TICKET_MIB);
        Tickets {
            memory: memory.min(host.memory),
            processor: 1,
        }
    }

    /// How many machines like this one may run at once.
    pub fn machines(self, spec: &MachineSpec) -> u64 {
        (self.memory / Tickets::of_machine(spec, self).memory).min(self.processor)
    }

    /// Those of this host.
    pub fn here() -> Tickets {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        Tickets::of_host(total_mib(&meminfo).unwrap_or(1024), processors)
    }
}

/// `MemTotal` of proc(5) `/proc/meminfo`, in MiB.
fn total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// Waits until a machine like `spec` may run on this host.
///
/// # Errors
/// When the lock files cannot be made.
pub async fn enter(spec: &MachineSpec) -> io::Result<Ticket> {
    let user = nix::unistd::getuid();
    let dir = crate::machine::run_parent().join(format!("vexfs-tickets-{user}"));
    let host = Tickets::here();
    enter_at(&dir, host, Tickets::of_machine(spec, host)).await
}

async fn enter_at(dir: &Path, host: Tickets, wanted: Tickets) -> io::Result<Ticket> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    // Whoever collects tickets does so alone, so that two cannot each hold half of what both need;
    // and nobody who wants much is overtaken for ever by those who want little.
    let _turn = loop {
        match lock(&dir.join("turn"))? {
            Some(turn) => break turn,
            None => tokio::time::sleep(LOOK).await,
        }
    };
    let mut locks = Vec::new();
    for (kind, there, wanted) in [
        ("memory", host.memory, wanted.memory),
        ("processor", host.processor, wanted.processor),
    ] {
        let files: Vec<PathBuf> = (0..there)
            .map(|number| dir.join(format!("{kind}-{number}")))
            .collect();
        let mut got = Vec::new();
        let mut free: Vec<&PathBuf> = files.iter().collect();
        loop {
            let mut taken = Vec::new();
            for file in free {
                if got.len() as u64 == wanted {
                    break;
                }
                match lock(file)? {
                    Some(lock) => got.push(lock),
                    None => taken.push(file),
                }
            }
            if got.len() as u64 == wanted {
                break;
            }
            free = taken;
            tokio::time::sleep(LOOK).await;
        }
        locks.append(&mut got);
    }
    Ok(Ticket { _locks: locks })
}

/// The lock of a file if nobody has it.
fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(memory_mib: u32) -> MachineSpec {
        MachineSpec {
            memory_mib,
            ..MachineSpec::new("m", "/i", "/l")
        }
    }

    #[test]
    fn memory_and_processors_both_limit() {
        let small = Tickets::of_host(4096, 8);
        assert_eq!(
            small,
            Tickets {
                memory: 11,
                processor: 16
            }
        );
        assert_eq!(small.machines(&spec(1024)), 2, "memory is short");
        let large = Tickets::of_host(24 << 10, 2);
        assert_eq!(large.machines(&spec(512)), 4, "processors are short");
        assert_eq!(
            Tickets::of_host(512, 1).machines(&spec(4096)),
            1,
            "alone, but it runs"
        );
        assert_eq!(
            Tickets::of_host(0, 0),
            Tickets {
                memory: 1,
                processor: 1
            }
        );
    }

    #[test]
    fn the_hosts_memory_is_read() {
        assert_eq!(
            total_mib("MemTotal:       24682964 kB\nMemFree: 1 kB\n"),
            Some(24104)
        );
        assert_eq!(total_mib("nothing"), None);
    }

    #[tokio::test]
    async fn those_who_come_later_wait_for_those_who_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = Tickets {
            memory: 3,
            processor: 8,
        };
        let two = Tickets {
            memory: 2,
            processor: 1,
        };
        let first = enter_at(dir.path(), host, two).await.expect("enters");
        let soon = Duration::from_millis(60);
        let second = tokio::time::timeout(soon, enter_at(dir.path(), host, two)).await;
        assert!(second.is_err(), "entered a full house");
        let one = Tickets {
            memory: 1,
            processor: 1,
        };
        let small = tokio::time::timeout(soon, enter_at(dir.path(), host, one)).await;
        assert!(small.is_ok(), "there was room");
        let waiting = enter_at(dir.path(), host, two);
        let leaving = async {
            tokio::time::sleep(soon).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(waiting, leaving);
        second.expect("enters");
    }
}
