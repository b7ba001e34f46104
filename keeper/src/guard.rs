//! The keeper's own side: the process between us and the program.
//!
//! It is single-threaded on purpose: `PR_SET_PDEATHSIG` on the program is tied to the thread that
//! forked it (prctl(2)), and this one lives as long as the keeper.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// First argument that turns an executable into a keeper.
pub(crate) const MARK: &str = "__vexfs-keeper";

/// What [`crate::Kept`] tells its keeper, as command line arguments.
struct Orders {
    control: RawFd,
    remove: Vec<PathBuf>,
    program: OsString,
    args: Vec<OsString>,
}

/// Must be the first thing a `main` does in any program that uses this crate: if this process was
/// started as a keeper it does that work and never returns, otherwise it returns at once.
pub fn hook() {
    let mut args = std::env::args_os();
    let arg0 = args.next();
    if args.next().as_deref() != Some(MARK.as_ref()) {
        return;
    }
    let code = match parse(args) {
        Some(orders) => keep(orders),
        None => {
            eprintln!("{arg0:?}: {MARK} is for this program's own use");
            2
        }
    };
    std::process::exit(code);
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Orders> {
    let control = args.next()?.to_str()?.parse().ok()?;
    let mut remove = Vec::new();
    loop {
        match args.next()? {
            flag if flag == "--remove" => remove.push(PathBuf::from(args.next()?)),
            flag if flag == "--" => break,
            _ => return None,
        }
    }
    Some(Orders {
        control,
        remove,
        program: args.next()?,
        args: args.collect(),
    })
}

/// Starts the program, waits for its end or for ours, and returns the keeper's own exit code.
fn keep(orders: Orders) -> i32 {
    // SAFETY: `Kept::spawn` passed this descriptor to us and to nobody else, and it is wrapped once.
    #[allow(unsafe_code)]
    let control = unsafe { OwnedFd::from_raw_fd(orders.control) };
    let mut control = UnixStream::from(control);
    let code = match start(&orders, &control) {
        Ok((pid, signals)) => {
            tell(&mut control, format!("pid {pid}\n"));
            match watch(Pid::from_raw(pid as i32), &control, &signals) {
                Some(status) => {
                    tell(&mut control, format!("end {}\n", status.into_raw()));
                    0
                }
                None => 0,
            }
        }
        Err(error) => {
            tell(
                &mut control,
                format!("error {} {error}\n", error.raw_os_error().unwrap_or(0)),
            );
            1
        }
    };
    kill_all_below();
    for path in &orders.remove {
        remove(path);
    }
    code
}

/// The other end may be gone; that is then seen by `watch`, and there is nobody to tell.
fn tell(control: &mut UnixStream, line: String) {
    if control.write_all(line.as_bytes()).is_err() {
        // Our starter died: the end of the stream is the message that counts.
    }
}

fn start(orders: &Orders, control: &UnixStream) -> std::io::Result<(u32, SignalFd)> {
    nix::fcntl::fcntl(
        control.as_fd(),
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )?;
    nix::unistd::setsid()?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        mask.add(signal);
    }
    let mut old = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut old))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut command = Command::new(&orders.program);
    command.args(&orders.args);
    // SAFETY: only async-signal-safe calls (prctl, sigprocmask) run between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&old), None)?;
            Ok(())
        });
    }
    Ok((command.spawn()?.id(), signals))
}

/// Waits until the program ends (its status) or our starter is gone or asks for the end (`None`).
fn watch(program: Pid, control: &UnixStream, signals: &SignalFd) -> Option<ExitStatus> {
    loop {
        if let Some(status) = reap(program) {
            return Some(status);
        }
        let mut fds = [
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        let told = |fd: &PollFd| fd.revents().is_some_and(|r| !r.is_empty());
        if told(&fds[0]) {
            // Nothing is ever sent to a keeper: readable means closed.
            let mut byte = [0];
            if !matches!((&mut &*control).read(&mut byte), Ok(1..)) {
                return None;
            }
        }
        while let Ok(Some(info)) = signals.read_signal() {
            if info.ssi_signo != Signal::SIGCHLD as u32 {
                return None;
            }
        }
    }
}

/// Reaps everything that has ended; returns the program's status if it was among them.
fn reap(program: Pid) -> Option<ExitStatus> {
    let mut found = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => {
                found = Some(ExitStatus::from_raw(code << 8));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                found = Some(ExitStatus::from_raw(signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return found,
            Ok(_) => {}
        }
    }
}

/// Kills until nothing is left: a killed parent's children become ours (subreaper) and are found
/// on the next round.
fn kill_all_below() {
    for _ in 0..500 {
        let mut below = Vec::new();
        descend(std::process::id(), &mut below);
        for pid in &below {
            // ESRCH: it ended on its own meanwhile, which is what we want.
            let _gone = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
        reap(Pid::from_raw(-1));
        if below.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// All living descendants of `pid`, by proc(5) `/proc/PID/task/TID/children`.
fn descend(pid: u32, out: &mut Vec<u32>) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return;
    };
    for task in tasks.flatten() {
        let Ok(children) = std::fs::read_to_string(task.path().join("children")) else {
            continue;
        };
        for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
            out.push(child);
            descend(child, out);
        }
    }
}

/// Removes a file or a directory with all that is in it.
///
/// Programs below other keepers may be making files in the same directory at this moment. They end
/// for the same reason as ours, so a directory that filled up again is tried anew for a second.
fn remove(path: &Path) {
    for _ in 0..50 {
        let result = match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
            Ok(_) => std::fs::remove_file(path),
            Err(_) => return,
        };
        match result {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return eprintln!("cannot remove {}: {error}", path.display()),
        }
    }
    eprintln!("cannot remove {}: it keeps filling up", path.display());
}
