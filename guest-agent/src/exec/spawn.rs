//! Starting a program in a session, a cgroup and an account of its own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use agent_protocol::message::{ExecRequest, WindowSize};
use agent_protocol::{Fault, FaultKind};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::unistd::{self, Gid, Pid, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::accounts::{self, Account};
use super::stream::Stream;
use super::tree::{Cgroups, Tree};
use crate::files::local_path;
use crate::raw;

/// Where a program without a slash in its name is looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Ctrl-D: what ends input on a terminal.
const END_OF_INPUT: &[u8] = b"\x04";

/// A program just started, its ends not yet watched by the runtime.
pub struct Spawned {
    child: Owned,
    input: Option<OwnedFd>,
    output: [Option<OwnedFd>; 2],
    terminal: bool,
}

/// A program and our ends of its streams.
pub struct Running {
    /// The processes.
    pub program: Program,
    /// Its standard input, if it is to get any.
    pub input: Option<Sink>,
    /// Its standard output and standard error; a terminal is both.
    pub output: [Option<Stream>; 2],
}

/// Where input for a program goes.
pub struct Sink {
    stream: Stream,
    terminal: bool,
}

impl Sink {
    /// Writes all of it.
    ///
    /// # Errors
    /// When the program has closed its end.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write(bytes).await
    }

    /// Says that no more comes, as far as that can be said on a terminal.
    pub async fn end(&self) {
        if self.terminal {
            // A program that is gone needs no end of input.
            let _ = self.stream.write(END_OF_INPUT).await;
        }
    }

    /// Whether it is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Gives a terminal a new size; nothing for a pipe.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        if self.terminal {
            raw::set_window(self.stream.descriptor(), size.rows, size.columns)?;
        }
        Ok(())
    }
}

/// The ends that the child gets, and ours.
struct Ends {
    child: [Stdio; 3],
    input: Option<OwnedFd>,
    output: [Option<OwnedFd>; 2],
}

fn pipes(stdin: bool) -> io::Result<Ends> {
    let (out, out_child) = io::pipe()?;
    let (err, err_child) = io::pipe()?;
    let (child_in, input) = if stdin {
        let (child_in, input) = io::pipe()?;
        (child_in.into(), Some(input.into()))
    } else {
        (Stdio::null(), None)
    };
    Ok(Ends {
        child: [child_in, out_child.into(), err_child.into()],
        input,
        output: [Some(out.into()), Some(err.into())],
    })
}

fn terminal(size: WindowSize) -> io::Result<Ends> {
    // Close-on-exec from the start: other programs are being started at the same time.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    raw::set_window(&master, size.rows, size.columns)?;
    let slave = nix::fcntl::open(Path::new(&ptsname_r(&master)?), flags, Mode::empty())?;
    let master = raw::into_descriptor(master);
    Ok(Ends {
        child: [
            slave.try_clone()?.into(),
            slave.try_clone()?.into(),
            slave.into(),
        ],
        input: Some(master.try_clone()?),
        output: [Some(master), None],
    })
}

/// Starts a program. May block as long as the file systems it touches do.
///
/// # Errors
/// When there is no such program, directory or user, or the system refuses.
pub fn spawn(request: ExecRequest, cgroups: Option<&Cgroups>) -> Result<Spawned, Fault> {
    let ExecRequest {
        argv,
        env,
        cwd,
        user,
        stdin,
        terminal: window,
        ..
    } = request;
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Fault::new(FaultKind::Invalid, "exec without a program"));
    };
    let what = format!("start {program:?}");
    let failed = |error: io::Error| Fault::from_io(&what, &error);
    let account = accounts::look_up(user.as_deref().unwrap_or("root"))?;

    let Ends {
        child: [child_in, child_out, child_err],
        input,
        output,
    } = match window {
        Some(size) => terminal(size),
        None => pipes(stdin),
    }
    .map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", &account.home)
        .env("USER", &account.name)
        .env("LOGNAME", &account.name)
        .env("SHELL", &account.shell)
        .stdin(child_in)
        .stdout(child_out)
        .stderr(child_err);
    if window.is_some() {
        command.env("TERM", "xterm");
    }
    command.envs(env);
    match &cwd {
        Some(path) => command.current_dir(local_path(path)),
        None if Path::new(&account.home).is_dir() => command.current_dir(&account.home),
        None => command.current_dir("/"),
    };

    let cgroup = cgroups.map(Cgroups::make).transpose().map_err(failed)?;
    let (tree, door) = cgroup.unzip();
    let enter = enter(door, window.is_some(), account);
    // SAFETY: between fork and exec `enter` makes system calls and nothing else: no allocation, no
    // lock another thread could have held.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(enter)
    };
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            if let Some(tree) = tree {
                tree.remove();
            }
            return Err(match error.kind() {
                io::ErrorKind::InvalidInput => {
                    Fault::new(FaultKind::Invalid, format!("{what}: {error}"))
                }
                _ => failed(error),
            });
        }
    };
    let leader = Pid::from_raw(i32::try_from(child.id()).expect("a process id is positive"));
    let tree = tree.unwrap_or(Tree::Session(leader));
    let input = input.filter(|_| stdin || window.is_some());
    Ok(Spawned {
        child: Owned(Some((child, tree))),
        input,
        output,
        terminal: window.is_some(),
    })
}

/// What the child does before it becomes the program.
fn enter(
    door: Option<File>,
    terminal: bool,
    account: Account,
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    // Tests run as an ordinary user, who can be nobody else.
    let become_somebody = Uid::effective().is_root();
    move || {
        if let Some(door) = &door {
            unistd::write(door, b"0")?;
        }
        unistd::setsid()?;
        if terminal {
            raw::take_terminal()?;
        }
        // The agent is protected from the OOM killer; what it runs must not be. Without the file, as
        // in a bare chroot, there is nothing to undo.
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        if let Ok(score) = nix::fcntl::open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
            let _ = unistd::write(score, b"0");
        }
        if become_somebody {
            unistd::setgroups(&groups)?;
            unistd::setgid(gid)?;
            unistd::setuid(uid)?;
        }
        Ok(())
    }
}

impl Spawned {
    /// Lets the runtime watch it. Needs the runtime's context.
    ///
    /// # Errors
    /// When the system refuses; the program is then killed.
    pub fn attach(self) -> Result<Running, Fault> {
        let Self {
            child,
            input,
            output: [out, err],
            terminal,
        } = self;
        let watch = || -> io::Result<Running> {
            let exit = child.watch()?;
            let stream = |fd: Option<OwnedFd>| fd.map(Stream::new).transpose();
            let input = stream(input)?.map(|stream| Sink { stream, terminal });
            let output = [stream(out)?, stream(err)?];
            Ok(Running {
                program: Program { child, exit },
                input,
                output,
            })
        };
        watch().map_err(|error| Fault::from_io("watch a program", &error))
    }
}

/// A child and all that it started. Dropped before it was reaped, it is killed and reaped.
struct Owned(Option<(Child, Tree)>);

impl Owned {
    fn get(&self) -> &(Child, Tree) {
        self.0.as_ref().expect("taken only when dropped")
    }

    /// Becomes readable when the child exits. It leaves the zombie for us to reap, and until then
    /// the child's number belongs to nobody else.
    fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        raw::watch(raw::pidfd_open(self.get().0.id())?, Interest::READABLE)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let Some((mut child, tree)) = self.0.take() else {
            return;
        };
        tree.kill();
        if !matches!(child.try_wait(), Ok(None)) && tree.is_empty() {
            tree.remove();
            return;
        }
        // Elsewhere, and for as long as it takes: it may hang in the kernel.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let mut wait = Duration::from_millis(5);
                while matches!(child.try_wait(), Ok(None)) || !tree.is_empty() {
                    sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(5));
                }
                tree.remove();
            });
        }
    }
}

/// A running program. Dropped, it and all that it started is killed.
pub struct Program {
    child: Owned,
    exit: AsyncFd<OwnedFd>,
}

impl Program {
    /// Waits until it has exited. Cancel-safe.
    pub async fn exited(&self) {
        // It fails only when the runtime is going down, and then nobody waits.
        let _ = self.exit.readable().await;
    }

    /// Sends SIGKILL to it and all that it started.
    pub fn kill(&self) {
        self.child.get().1.kill();
    }

    /// Waits until nothing it started is alive; false when `deadline` comes first.
    pub async fn settled(&self, deadline: Instant) -> bool {
        let mut wait = Duration::from_millis(1);
        while !self.child.get().1.is_empty() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(50));
        }
        true
    }

    /// Its exit status, once it has exited.
    ///
    /// # Errors
    /// Of wait(2).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child
            .0
            .as_mut()
            .expect("taken only when dropped")
            .0
            .try_wait()
    }
}
