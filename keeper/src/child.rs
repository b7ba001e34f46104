//! Our side: starting a program below a keeper, and holding it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;

use crate::guard::MARK;

/// A program to run below a keeper, built up like [`std::process::Command`].
///
/// Standard input is `/dev/null`; output goes to `/dev/null` unless directed elsewhere.
#[derive(Debug)]
pub struct Kept {
    pub(crate) program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    current_dir: Option<PathBuf>,
    stdin: Option<File>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    remove: Vec<PathBuf>,
}

impl Kept {
    /// A program by name (looked up in `PATH`) or path.
    pub fn new(program: impl Into<OsString>) -> Kept {
        Kept {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            current_dir: None,
            stdin: None,
            stdout: None,
            stderr: None,
            remove: Vec::new(),
        }
    }

    /// Appends one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Kept {
        self.args.push(arg.into());
        self
    }

    /// Appends arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Kept {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable; the rest of our environment is passed on.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Kept {
        self.env.push((key.into(), value.into()));
        self
    }

    /// The program's working directory.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Kept {
        self.current_dir = Some(dir.into());
        self
    }

    /// Standard input from a file.
    pub fn stdin(mut self, file: File) -> Kept {
        self.stdin = Some(file);
        self
    }

    /// Standard output to this descriptor.
    pub fn stdout(mut self, fd: impl Into<OwnedFd>) -> Kept {
        self.stdout = Some(fd.into());
        self
    }

    /// Standard error to this descriptor.
    pub fn stderr(mut self, fd: impl Into<OwnedFd>) -> Kept {
        self.stderr = Some(fd.into());
        self
    }

    /// A file or directory the keeper removes when the program has ended, however it ended.
    pub fn remove_after(mut self, path: impl Into<PathBuf>) -> Kept {
        self.remove.push(path.into());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The error of execve(2) for the program itself (so `NotFound` means that it is not
    /// installed), or of the socket and fork behind it.
    pub async fn spawn(self) -> io::Result<Child> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let theirs = OwnedFd::from(theirs);
        let number = theirs.as_raw_fd();
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command
            .arg0(&self.program)
            .arg(MARK)
            .arg(number.to_string());
        for path in &self.remove {
            command.arg("--remove").arg(path);
        }
        command
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env);
        let stdio = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
        command.stdin(self.stdin.map_or_else(Stdio::null, Stdio::from));
        command
            .stdout(stdio(self.stdout))
            .stderr(stdio(self.stderr));
        if let Some(dir) = &self.current_dir {
            command.current_dir(dir);
        }
        // Close-on-exec is lifted in this one child only: another program started by another
        // thread at this moment must not inherit the control socket.
        // SAFETY: fcntl(2) is async-signal-safe, and `theirs` is open until after the spawn.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                let fd = BorrowedFd::borrow_raw(number);
                nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
                Ok(())
            });
        }
        let keeper = command.spawn()?;
        drop(theirs);
        let mut control = BufReader::new(UnixStream::from_std(ours)?);
        let said = line(&mut control).await?;
        let mut words = said.split_whitespace();
        match (words.next(), words.next()) {
            (Some("pid"), Some(pid)) => {
                let pid = pid.parse().map_err(io::Error::other)?;
                Ok(Child {
                    keeper,
                    control: Some(control),
                    pid,
                    status: None,
                })
            }
            (Some("error"), Some(code)) => {
                Err(io::Error::from_raw_os_error(code.parse().unwrap_or(0)))
            }
            _ => Err(io::Error::other(format!(
                "no keeper came up for {:?}: main must call keeper::hook() first",
                self.program
            ))),
        }
    }
}

/// One line from the keeper; empty when it is gone.
async fn line(control: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    control.read_line(&mut line).await?;
    Ok(line)
}

/// A running program. Dropping it kills it and all it started, and returns when they are gone.
#[derive(Debug)]
pub struct Child {
    keeper: tokio::process::Child,
    control: Option<BufReader<UnixStream>>,
    pid: u32,
    status: Option<ExitStatus>,
}

impl Child {
    /// The program's own process id (not its keeper's).
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the program's end. May be dropped and called again.
    ///
    /// # Errors
    /// When the keeper vanished without reporting (somebody killed it); the program is dead then
    /// too, by its parent-death signal.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let Some(control) = self.control.as_mut() else {
            return Err(io::Error::other("the program was killed"));
        };
        let said = line(control).await?;
        let status = match said.split_whitespace().collect::<Vec<_>>()[..] {
            ["end", raw] => ExitStatus::from_raw(raw.parse().map_err(io::Error::other)?),
            _ => return Err(io::Error::other("the keeper of the program was killed")),
        };
        self.status = Some(status);
        // Its keeper still removes files and kills stragglers: only then is the program over.
        self.keeper.wait().await?;
        Ok(status)
    }

    /// Kills the program and all it started, and waits until they are gone.
    ///
    /// # Errors
    /// Those of waitpid(2) on the keeper.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.control = None;
        self.keeper.wait().await.map(drop)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Closing the socket is the order to end.
        self.control = None;
        // SIGKILL and an unlink take milliseconds; the bound is for a task stuck in the kernel.
        for _ in 0..2000 {
            match self.keeper.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}
