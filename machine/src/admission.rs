//! How many machines may run on this host at once, across all processes.
//!
//! nextest runs every test in a process of its own, and nothing but the file system is common to
//! them. So the host's memory and processors are cut into tickets, each a file with a lock (flock(2))
//! that the kernel gives back when its holder ends, however it ends. Memory is the least of what the host has,
//! what a control group allows, and the tmpfs that guests' memory files are on. Beside the tickets others
//! are looked at: while they keep the processors busy fewer machines enter, but always one (see `pressure`).

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keeper::lease::{Hold, Lease};
use keeper::room::Memory;

use crate::MachineSpec;
use crate::pressure::{self, Pressure};
use crate::room::{OVERHEAD_MIB, ram_folder};

/// Memory one ticket stands for.
const TICKET_MIB: u64 = 256;

/// Share of the host's memory that machines may have, in percent; the rest is for builds, page
/// cache and whoever else lives here.
const SHARE: u64 = 70;

/// Machines per processor: they wait for their guests' timers half of the time.
const PER_PROCESSOR: u64 = 2;

/// How often a waiting process looks again.
const LOOK: Duration = Duration::from_millis(10);

/// How often a process that others keep waiting looks again.
const LOOK_AT_OTHERS: Duration = Duration::from_millis(100);

/// How long others may keep a machine waiting that has its tickets: then it runs, if slowly.
const OTHERS_PATIENCE: Duration = Duration::from_secs(60);

/// The right to run a machine; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    _locks: Vec<Lease>,
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

    /// As many fewer as fit into a folder of that size, in which each machine's memory is a file.
    fn within(self, folder_mib: u64) -> Tickets {
        Tickets {
            memory: self.memory.min(folder_mib / TICKET_MIB).max(1),
            ..self
        }
    }

    /// Those of this host.
    pub fn here() -> Tickets {
        let memory = Memory::here().map_or(1024, |memory| memory.total_mib);
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let tickets = Tickets::of_host(memory, processors);
        ram_folder().map_or(tickets, |folder| tickets.within(folder.total_mib))
    }
}

/// Waits until a machine like `spec` may run on this host.
///
/// # Errors
/// When the lock files cannot be made.
pub async fn enter(spec: &MachineSpec) -> io::Result<Ticket> {
    let user = nix::unistd::getuid();
    let dir = crate::run_parent().join(format!("vexfs-tickets-{user}"));
    let host = Tickets::here();
    enter_at(&dir, host, Tickets::of_machine(spec, host), pressure::look).await
}

async fn enter_at(
    dir: &Path,
    host: Tickets,
    wanted: Tickets,
    look: impl AsyncFn() -> Pressure,
) -> io::Result<Ticket> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    ours_alone(dir)?;
    // Whoever collects tickets does so alone, so that two cannot each hold half of what both need;
    // and nobody who wants much is overtaken for ever by those who want little.
    let _turn = loop {
        match lock(&dir.join("turn"))? {
            Some(turn) => break turn,
            None => tokio::time::sleep(LOOK).await,
        }
    };
    // Whoever has the turn is the only one to enter, so those that run can only become fewer.
    let begin = Instant::now();
    loop {
        let running = taken(dir, host.processor)?;
        if running == 0 || pressure::admits(running, host.processor, look().await) {
            break;
        }
        if begin.elapsed() >= OTHERS_PATIENCE {
            break;
        }
        tokio::time::sleep(LOOK_AT_OTHERS).await;
    }
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

/// How many of the processors' tickets somebody holds.
fn taken(dir: &Path, processors: u64) -> io::Result<u64> {
    let mut taken = 0;
    for number in 0..processors {
        if lock(&dir.join(format!("processor-{number}")))?.is_none() {
            taken += 1;
        }
    }
    Ok(taken)
}

/// The folder lies where anybody can make one of its name: whoever else owns it, or can write to it, could keep
/// us waiting for ever or have us write where a link leads.
fn ours_alone(dir: &Path) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(dir)?;
    let uid = nix::unistd::getuid().as_raw();
    let wrong = if meta.is_symlink() {
        "is a link".to_owned()
    } else if !meta.is_dir() {
        "is no folder".to_owned()
    } else if meta.uid() != uid {
        format!("belongs to user {} and not to {uid}", meta.uid())
    } else if meta.mode() & 0o022 != 0 {
        format!("can be written by others (mode {:o})", meta.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "the folder of tickets {} {wrong}: remove it, or name another place with VEXFS_RUN_DIR",
            dir.display()
        ),
    ))
}

/// The lock of a file if nobody has it. A link is not followed.
fn lock(path: &Path) -> io::Result<Option<Lease>> {
    Lease::take(path, Hold::Alone).map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP) => {
            let said = format!("the ticket {} is a link: remove it", path.display());
            io::Error::new(io::ErrorKind::PermissionDenied, said)
        }
        _ => error,
    })
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
    fn the_folder_of_memory_files_limits_too() {
        let host = Tickets::of_host(24 << 10, 2);
        assert_eq!(host.within(24 << 10), host);
        // Of 1184 MiB each, in 3 GiB.
        assert_eq!(host.within(3 << 10).machines(&spec(1024)), 2);
        assert_eq!(host.within(64).machines(&spec(1024)), 1, "that one is told");
        Tickets::here();
    }

    async fn nobody() -> Pressure {
        Pressure::default()
    }

    #[tokio::test]
    async fn others_keep_all_but_the_first_waiting() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = Tickets {
            memory: 8,
            processor: 4,
        };
        let one = Tickets {
            memory: 1,
            processor: 1,
        };
        let threads = std::cell::Cell::new(99);
        let look = async || Pressure {
            threads: threads.get(),
            memory: 0.0,
        };
        let soon = Duration::from_millis(60);
        let first = tokio::time::timeout(soon, enter_at(dir.path(), host, one, look)).await;
        let first = first
            .expect("at once, whatever the pressure")
            .expect("enters");
        let second = tokio::time::timeout(soon, enter_at(dir.path(), host, one, look)).await;
        assert!(second.is_err(), "entered beside 99 threads of others");
        threads.set(2);
        let second = tokio::time::timeout(soon, enter_at(dir.path(), host, one, look)).await;
        let _second = second.expect("two may run beside two").expect("enters");
        let third = tokio::time::timeout(soon, enter_at(dir.path(), host, one, look)).await;
        assert!(third.is_err(), "a third beside two threads of others");
        drop(first);
        let third = tokio::time::timeout(soon, enter_at(dir.path(), host, one, look)).await;
        third.expect("one has gone").expect("enters");
    }

    #[tokio::test]
    async fn the_tickets_of_the_killed_are_free_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let one = Tickets {
            memory: 1,
            processor: 1,
        };
        drop(
            enter_at(dir.path(), one, one, nobody)
                .await
                .expect("enters"),
        );
        // No child of the shell's: the program that holds the locks is the one that is killed.
        let holder = "exec 8>memory-0 9>processor-0; flock 8; flock 9; echo held; exec sleep 600";
        let mut holder = std::process::Command::new("sh")
            .args(["-c", holder])
            .current_dir(dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut said = [0; 5];
        let mut output = holder.stdout.take().expect("its output");
        io::Read::read_exact(&mut output, &mut said).expect("a word");
        assert_eq!(&said, b"held\n");
        let soon = Duration::from_millis(60);
        let early = tokio::time::timeout(soon, enter_at(dir.path(), one, one, nobody)).await;
        assert!(early.is_err(), "entered although the ticket was held");
        holder.kill().expect("SIGKILL");
        holder.wait().expect("its end");
        let entered = tokio::time::timeout(soon, enter_at(dir.path(), one, one, nobody)).await;
        entered.expect("at once").expect("enters");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_ours_alone_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let home = tempfile::tempdir().expect("a directory");
        let one = Tickets {
            memory: 1,
            processor: 1,
        };
        let refused = async |dir: &Path| {
            let error = enter_at(dir, one, one, nobody).await.expect_err("refused");
            error.to_string()
        };
        let open = home.path().join("open");
        std::fs::create_dir(&open).expect("a folder");
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).expect("a mode");
        assert_eq!(
            refused(&open).await,
            format!(
                "the folder of tickets {} can be written by others (mode 777): remove it, or name \
                 another place with VEXFS_RUN_DIR",
                open.display()
            )
        );
        let elsewhere = home.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).expect("a folder");
        std::fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o700)).expect("a mode");
        let link = home.path().join("link");
        symlink(&elsewhere, &link).expect("a link");
        assert!(refused(&link).await.contains("is a link"));
        symlink(home.path().join("victim"), elsewhere.join("memory-0")).expect("a link");
        let said = refused(&elsewhere).await;
        assert!(said.contains("memory-0 is a link: remove it"), "{said}");
        assert!(
            !home.path().join("victim").exists(),
            "the link was followed"
        );
        if nix::unistd::geteuid().is_root() {
            let theirs = home.path().join("theirs");
            std::fs::create_dir(&theirs).expect("a folder");
            std::os::unix::fs::chown(&theirs, Some(12345), None).expect("another owner");
            assert!(
                refused(&theirs)
                    .await
                    .contains("belongs to user 12345 and not to 0")
            );
        }
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
        let first = enter_at(dir.path(), host, two, nobody)
            .await
            .expect("enters");
        let soon = Duration::from_millis(60);
        let second = tokio::time::timeout(soon, enter_at(dir.path(), host, two, nobody)).await;
        assert!(second.is_err(), "entered a full house");
        let one = Tickets {
            memory: 1,
            processor: 1,
        };
        let small = tokio::time::timeout(soon, enter_at(dir.path(), host, one, nobody)).await;
        assert!(small.is_ok(), "there was room");
        let waiting = enter_at(dir.path(), host, two, nobody);
        let leaving = async {
            tokio::time::sleep(soon).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(waiting, leaving);
        second.expect("enters");
    }
}
