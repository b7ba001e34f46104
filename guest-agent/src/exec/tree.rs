//! All that one program started, and how to end it.
//!
//! A process group holds only those who stay in it: a shell with job control, `setsid` and every
//! daemon leave. A cgroup cannot be left (cgroups(7)), and `cgroup.kill` ends all of it at once, even
//! while it forks (kernel 5.14). Where the agent was given no cgroup to divide (`Delegate=` in its
//! unit), the session is the next best: only `setsid` leaves that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The agent's own cgroup, below which each program gets one.
#[derive(Clone)]
pub struct Cgroups {
    own: PathBuf,
    made: Arc<AtomicU64>,
}

impl Cgroups {
    /// Finds it, if cgroup v2 is there and we may make cgroups below our own.
    #[must_use]
    pub fn find() -> Option<Self> {
        let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = unified(&membership)?;
        let own = Path::new("/sys/fs/cgroup").join(path);
        // The root cgroup has no such file, and is nobody's to divide.
        if !own.join("cgroup.kill").exists() {
            return None;
        }
        let cgroups = Self {
            own,
            made: Arc::new(AtomicU64::new(0)),
        };
        let (tree, _) = cgroups.make().ok()?;
        tree.remove();
        Some(cgroups)
    }

    /// Makes one, and opens the file by which a process enters it (by writing `0`).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(&self) -> io::Result<(Tree, File)> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self
            .own
            .join(format!("exec-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let tree = Tree::Cgroup(path.clone());
        match OpenOptions::new()
            .write(true)
            .open(path.join("cgroup.procs"))
        {
            Ok(door) => Ok((tree, door)),
            Err(error) => {
                tree.remove();
                Err(error)
            }
        }
    }
}

/// Our path in the unified hierarchy, relative to its root: the line `0::/path` of cgroups(7).
fn unified(membership: &str) -> Option<&str> {
    membership
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
}

/// A program and its offspring.
pub enum Tree {
    /// A cgroup of their own.
    Cgroup(PathBuf),
    /// The session whose leader is the program.
    Session(Pid),
}

impl Tree {
    /// Sends SIGKILL to all of them. The program itself must not have been reaped, so that its
    /// number is still its own.
    pub fn kill(&self) {
        match self {
            // Fails only when the cgroup is gone, and then so are they.
            Self::Cgroup(path) => drop(fs::write(path.join("cgroup.kill"), "1")),
            Self::Session(leader) => {
                // ESRCH: they are gone already.
                let _ = killpg(*leader, Signal::SIGKILL);
                // Twice, for those forked between looking and killing.
                for _ in 0..2 {
                    for pid in members(*leader) {
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                }
            }
        }
    }

    /// Whether none of them is alive. Zombies are not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Cgroup(path) => match fs::read_to_string(path.join("cgroup.events")) {
                Ok(events) => events.lines().any(|line| line == "populated 0"),
                Err(_) => true,
            },
            Self::Session(leader) => members(*leader).next().is_none(),
        }
    }

    /// Removes what was made to hold them; fails quietly while any of them lives.
    pub fn remove(&self) {
        if let Self::Cgroup(path) = self {
            let _ = fs::remove_dir(path);
        }
    }
}

/// Living processes of a session.
fn members(session: Pid) -> impl Iterator<Item = Pid> {
    procfs::process::all_processes()
        .into_iter()
        .flatten()
        .filter_map(|process| process.ok()?.stat().ok())
        .filter(move |stat| stat.session == session.as_raw() && !matches!(stat.state, 'Z' | 'X'))
        .map(|stat| Pid::from_raw(stat.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unified_hierarchy_counts() {
        let hybrid = "12:pids:/x\n1:name=systemd:/y\n0::/system.slice/vexfs-agent.service\n";
        assert_eq!(unified(hybrid), Some("system.slice/vexfs-agent.service"));
        assert_eq!(unified("4:memory:/x\n"), None);
    }
}
