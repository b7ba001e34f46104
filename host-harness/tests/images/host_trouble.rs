//! What can go wrong on a host, done to this one: to a machine's processes, to the folders it lives in (in
//! a mount namespace of its own), to the clock (as a preloaded library tells it), to the processors.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::Failed;
use machine::Machine;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Argument that makes this program hold all tickets until it is killed.
pub const HOLDER: &str = "__host-holder";

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    DaemonKilled,
    QemuKilled,
    QemuTerminated,
    /// Stopped for so many seconds.
    QemuStopped(u64),
    /// /dev/shm has so many MiB.
    ShmOf(u64),
    ShmFills,
    DiskFills,
    /// So many busy processes.
    Load(usize),
    ClockJumps,
    TicketsOfTheDead,
}

/// What is under way and has to end with the row.
#[derive(Default)]
pub struct Under(Mutex<Vec<Child>>);

impl Under {
    /// Ends it.
    pub fn over(&self) {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for mut child in children.drain(..) {
            child.kill().expect("kills a busy process");
            child.wait().expect("waits for it");
        }
    }
}

/// What another process is started in.
pub struct World {
    /// Mounts to make in a namespace of its own, if any: folder and MiB.
    mounts: Vec<(PathBuf, u64)>,
    environment: Vec<(&'static str, PathBuf)>,
    /// Removed with it.
    _folder: tempfile::TempDir,
}

impl World {
    pub fn program(&self) -> &'static str {
        if self.mounts.is_empty() {
            "env"
        } else {
            "unshare"
        }
    }

    pub fn arguments(&self) -> Vec<String> {
        if self.mounts.is_empty() {
            return Vec::new();
        }
        let mount = |(at, mib): &(PathBuf, u64)| {
            format!("mount -t tmpfs -o size={mib}m tmpfs {} && ", at.display())
        };
        let script: String = self.mounts.iter().map(mount).collect();
        let script = format!("{script}exec \"$@\"");
        let words = [
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-euc",
            &script,
            "sh",
        ];
        words.map(str::to_owned).to_vec()
    }

    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.environment
            .iter()
            .map(|(name, value)| (*name, value.as_path()))
    }
}

/// The memory file system of guests, and of the filler beside them.
const SHM: &str = "/dev/shm";

/// How large a folder is that fills up: more than is asked for before a machine starts.
const FILLS_MIB: u64 = 3 << 10;

impl Trouble {
    /// The world it needs, if that is another than this one.
    pub fn world(self) -> Result<Option<World>, Failed> {
        let folder = tempfile::tempdir()?;
        let run = folder.path().to_owned();
        let (mounts, environment) = match self {
            Trouble::ShmOf(mib) => (vec![(SHM.into(), mib)], vec![]),
            Trouble::ShmFills => (vec![(SHM.into(), FILLS_MIB)], vec![]),
            Trouble::DiskFills => (vec![(run.clone(), FILLS_MIB)], vec![("VEXFS_RUN_DIR", run)]),
            Trouble::TicketsOfTheDead => (vec![], vec![("VEXFS_RUN_DIR", run)]),
            Trouble::ClockJumps => {
                let now = run.join("clock");
                std::fs::write(&now, "+0")?;
                let environment = vec![
                    ("PATH", with_compilers_left_alone(&run)?),
                    ("LD_PRELOAD", faketime()?),
                    ("FAKETIME_TIMESTAMP_FILE", now),
                    ("FAKETIME_NO_CACHE", "1".into()),
                    // Time that only passes is another clock's (clock_gettime(2)), and that does not jump.
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
                ];
                (vec![], environment)
            }
            _ => return Ok(None),
        };
        Ok(Some(World {
            mounts,
            environment,
            _folder: folder,
        }))
    }

    /// What has to have happened before.
    pub fn before(self) -> Result<(), Failed> {
        if self != Trouble::TicketsOfTheDead {
            return Ok(());
        }
        let mut holder = Command::new(std::env::current_exe()?)
            .arg(HOLDER)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = [0; 5];
        let mut from = holder.stdout.take().ok_or("no pipe")?;
        from.read_exact(&mut said)?;
        holder.kill()?;
        holder.wait()?;
        (&said == b"held\n")
            .then_some(())
            .ok_or_else(|| "nothing was held".into())
    }

    /// Does it to a machine.
    pub fn happen(self, machine: &Machine, under: &Under) {
        let qemu = Pid::from_raw(machine.pid().cast_signed());
        match self {
            Trouble::None | Trouble::ShmOf(_) | Trouble::TicketsOfTheDead => {}
            Trouble::DaemonKilled => {
                // The kernel's backend has none to kill.
                if let Some(daemon) = machine.vsock_pid() {
                    kill(Pid::from_raw(daemon.cast_signed()), Signal::SIGKILL).expect("kills");
                }
            }
            Trouble::QemuKilled => kill(qemu, Signal::SIGKILL).expect("kills"),
            Trouble::QemuTerminated => kill(qemu, Signal::SIGTERM).expect("terminates"),
            Trouble::QemuStopped(seconds) => {
                kill(qemu, Signal::SIGSTOP).expect("stops");
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_secs(seconds));
                    // It may have been given up meanwhile.
                    kill(qemu, Signal::SIGCONT).unwrap_or_default();
                });
            }
            Trouble::ShmFills => fill(Path::new(SHM), qemu),
            Trouble::DiskFills => {
                let folder = std::env::var_os("VEXFS_RUN_DIR").expect("a world with a folder");
                fill(Path::new(&folder), qemu);
            }
            Trouble::Load(processes) => {
                let mut children = under.0.lock().unwrap_or_else(PoisonError::into_inner);
                while children.len() < processes {
                    let busy = Command::new("sh")
                        .args(["-c", "while :; do :; done"])
                        .spawn();
                    children.push(busy.expect("starts"));
                }
            }
            Trouble::ClockJumps => {
                let clock =
                    std::env::var_os("FAKETIME_TIMESTAMP_FILE").expect("a world with a clock");
                std::fs::write(clock, "+3600").expect("sets the clock");
            }
        }
    }
}

/// Fills a folder's file system for as long as this QEMU lives.
fn fill(folder: &Path, qemu: Pid) {
    let path = super::own_folder(&folder.to_string_lossy());
    let mut file = File::create(&path).expect("makes the filler");
    let piece = vec![1; 1 << 20];
    while file.write_all(&piece).is_ok() {}
    std::thread::spawn(move || {
        while kill(qemu, None).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::fs::remove_file(path).expect("removes the filler");
    });
}

/// The library that tells programs another time.
fn faketime() -> Result<PathBuf, Failed> {
    let dirs = std::fs::read_dir("/usr/lib")?
        .flatten()
        .map(|entry| entry.path());
    dirs.map(|dir| dir.join("faketime/libfaketime.so.1"))
        .find(|path| path.is_file())
        .ok_or_else(|| "no libfaketime: run `ci/setup test`".into())
}

/// A PATH on which the Rust compiler is started without the library, under which its allocator hangs.
fn with_compilers_left_alone(folder: &Path) -> Result<PathBuf, Failed> {
    let path = std::env::var_os("PATH").ok_or("no PATH")?;
    for name in ["cargo", "rustc"] {
        let mut dirs = std::env::split_paths(&path).map(|dir| dir.join(name));
        let program = dirs
            .find(|program| program.is_file())
            .ok_or("no compiler")?;
        let script = format!(
            "#!/bin/sh\nunset LD_PRELOAD\nexec {} \"$@\"\n",
            program.display()
        );
        let file = folder.join(name);
        std::fs::write(&file, script)?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let mut dirs = vec![folder.to_owned()];
    dirs.extend(std::env::split_paths(&path));
    Ok(std::env::join_paths(dirs)?.into())
}

/// Holds all tickets of this host's machines.
pub fn hold() -> Result<(), Failed> {
    use nix::fcntl::{Flock, FlockArg};

    let folder = std::env::var_os("VEXFS_RUN_DIR").ok_or("no folder")?;
    let user = nix::unistd::getuid();
    let folder = Path::new(&folder).join(format!("vexfs-tickets-{user}"));
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let mut held = Vec::new();
    for name in (0..64).flat_map(|n| [format!("memory-{n}"), format!("processor-{n}")]) {
        let file = File::create(folder.join(name))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        held.push(lock.map_err(|(_, error)| error)?);
    }
    println!("held");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
