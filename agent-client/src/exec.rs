//! Programs in the guest: to the end with all output, or interactively.

use agent_protocol::message::{
    Ended, ExecRequest, ExecResult, GuestPath, KilledBecause, WindowSize,
};
use agent_protocol::{CHUNK, Event, Input, Reply, Request};

use super::talk::{Next, Talk};
use super::wire::CallInput;
use super::{AgentError, Client, Deadline};

/// Bytes collected of each of the two outputs, unless the caller says otherwise.
const OUTPUT_LIMIT: usize = 8 * 1024 * 1024;

/// A program to run in the guest.
///
/// ```
/// use agent_client::ExecSpec;
/// let spec = ExecSpec::new(["dd", "of=/mnt/file"]).stdin(vec![0; 4096]).user("nobody");
/// ```
#[derive(Clone, Debug)]
pub struct ExecSpec {
    request: ExecRequest,
    stdin: Vec<u8>,
    output_limit: usize,
}

impl ExecSpec {
    /// A program and its arguments, run as root in root's home with no input.
    pub fn new<A: Into<String>>(argv: impl IntoIterator<Item = A>) -> Self {
        Self {
            request: ExecRequest {
                argv: argv.into_iter().map(Into::into).collect(),
                env: Vec::new(),
                cwd: None,
                user: None,
                stdin: false,
                terminal: None,
            },
            stdin: Vec::new(),
            output_limit: OUTPUT_LIMIT,
        }
    }

    /// Sets a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env.push((name.into(), value.into()));
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn cwd(mut self, path: impl Into<GuestPath>) -> Self {
        self.request.cwd = Some(path.into());
        self
    }

    /// Runs it as this user, by name or number.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.request.user = Some(user.into());
        self
    }

    /// Gives it this input, then the end of input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self.request.stdin = true;
        self
    }

    /// Lets [`Session::input`] feed it. Only for [`Client::start`].
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.request.stdin = true;
        self
    }

    /// Runs it on a terminal of that many lines and characters; all output is then standard output.
    #[must_use]
    pub fn terminal(mut self, rows: u16, columns: u16) -> Self {
        self.request.terminal = Some(WindowSize { rows, columns });
        self.interactive()
    }

    /// Collects at most that many bytes of each output (8 MiB unless set); the rest is read and
    /// dropped.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub result: ExecResult,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Whether it wrote more than was collected.
    pub truncated: bool,
}

impl Output {
    /// Whether it exited by itself with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.result.success()
    }

    /// Its exit code, if it exited.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self.result.ended {
            Ended::Exited(code) => Some(code),
            Ended::Signalled { .. } | Ended::Unkillable => None,
        }
    }

    /// Whether it was killed because its deadline passed.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.result.timed_out()
    }

    /// How it ended, as the end of a sentence: "exited with code 1".
    #[must_use]
    pub fn ending(&self) -> String {
        ending(&self.result)
    }

    /// Standard output as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// How a program ended, as the end of a sentence.
pub(super) fn ending(result: &ExecResult) -> String {
    let mut text = match (result.killed, result.ended) {
        (_, Ended::Unkillable) => "hangs in the kernel: SIGKILL did not end it".to_owned(),
        (Some(KilledBecause::Deadline), _) => {
            format!(
                "was killed at its deadline after {:.1} s",
                result.ran_ms as f64 / 1000.0
            )
        }
        (Some(KilledBecause::Cancelled), _) => "was cancelled".to_owned(),
        (None, Ended::Exited(code)) => format!("exited with code {code}"),
        (
            None,
            Ended::Signalled {
                signal,
                core_dumped,
            },
        ) => {
            let core = if core_dumped { " and dumped core" } else { "" };
            format!("was ended by signal {signal}{core}")
        }
    };
    if result.left_behind && result.ended != Ended::Unkillable {
        text.push_str(", leaving processes that SIGKILL did not end");
    }
    text
}

/// What a program in a [`Session`] comes to next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// It wrote to standard output, or to its terminal.
    Stdout(Vec<u8>),
    /// It wrote to standard error.
    Stderr(Vec<u8>),
    /// It ended; nothing follows.
    Ended(ExecResult),
}

/// A running program. Dropped before its end, it is killed with all it started.
pub struct Session {
    talk: Talk,
}

/// Feeds a running program, from another task if need be.
#[derive(Clone)]
pub struct SessionInput(CallInput);

impl Session {
    /// What comes next. Not to be called after [`Chunk::Ended`]. Cancel-safe.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn next(&mut self) -> Result<Chunk, AgentError> {
        match self.talk.next().await? {
            Next::Event(Event::Stdout(bytes)) => Ok(Chunk::Stdout(bytes.0)),
            Next::Event(Event::Stderr(bytes)) => Ok(Chunk::Stderr(bytes.0)),
            Next::Reply(Reply::Exec(result)) => Ok(Chunk::Ended(result)),
            other => Err(self.talk.unfit(&other)),
        }
    }

    /// Where its input goes.
    #[must_use]
    pub fn input(&self) -> SessionInput {
        SessionInput(self.talk.input())
    }

    /// Kills it; the end, with the last of its output, still comes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn cancel(&self) -> Result<(), AgentError> {
        self.talk.cancel().await
    }
}

impl SessionInput {
    /// Sends input, waiting while the program does not read.
    ///
    /// # Errors
    /// When the program has ended, or the connection is gone.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), AgentError> {
        for chunk in bytes.chunks(CHUNK) {
            self.0.send(Input::Data(chunk.to_vec().into())).await?;
        }
        Ok(())
    }

    /// Says that no more comes.
    ///
    /// # Errors
    /// As [`SessionInput::send`].
    pub async fn end(&self) -> Result<(), AgentError> {
        self.0.send(Input::End).await
    }

    /// Tells its terminal a new size.
    ///
    /// # Errors
    /// As [`SessionInput::send`].
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), AgentError> {
        self.0
            .send(Input::Resize(WindowSize { rows, columns }))
            .await
    }
}

impl Client {
    /// Starts a program and returns while it runs. [`ExecSpec::stdin`] is left to the caller.
    ///
    /// # Errors
    /// See [`AgentError`]. A program that cannot be started is told by [`Session::next`].
    pub async fn start(
        &self,
        spec: ExecSpec,
        deadline: impl Into<Deadline>,
    ) -> Result<Session, AgentError> {
        Ok(Session {
            talk: self.begin(Request::Exec(spec.request), deadline).await?,
        })
    }

    /// Runs a program to its end and collects its output. At the deadline the agent kills it, and
    /// the output until then is returned with [`Output::timed_out`]; only when the agent does not
    /// answer either is it an error.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn exec(
        &self,
        spec: ExecSpec,
        deadline: impl Into<Deadline>,
    ) -> Result<Output, AgentError> {
        self.exec_with(spec, deadline, |_| {}).await
    }

    /// [`Client::exec`] that also shows each piece as it comes.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn exec_with(
        &self,
        mut spec: ExecSpec,
        deadline: impl Into<Deadline>,
        mut show: impl FnMut(&Chunk),
    ) -> Result<Output, AgentError> {
        let stdin = std::mem::take(&mut spec.stdin);
        let limit = spec.output_limit;
        let feeds = spec.request.stdin;
        let mut session = self.start(spec, deadline).await?;
        let input = session.input();
        let feeding = async {
            if feeds {
                // It may end without having read all of it; how it ended is what counts.
                let _ = async {
                    input.send(&stdin).await?;
                    input.end().await
                }
                .await;
            }
        };
        tokio::pin!(feeding);
        let mut fed = false;
        let (mut stdout, mut stderr, mut truncated) = (Vec::new(), Vec::new(), false);
        loop {
            let chunk = tokio::select! {
                chunk = session.next() => chunk?,
                () = &mut feeding, if !fed => {
                    fed = true;
                    continue;
                }
            };
            show(&chunk);
            match chunk {
                Chunk::Stdout(bytes) => truncated |= collect(&mut stdout, &bytes, limit),
                Chunk::Stderr(bytes) => truncated |= collect(&mut stderr, &bytes, limit),
                Chunk::Ended(result) => {
                    return Ok(Output {
                        result,
                        stdout,
                        stderr,
                        truncated,
                    });
                }
            }
        }
    }
}

/// Appends up to `limit`; whether something was left out.
fn collect(collected: &mut Vec<u8>, bytes: &[u8], limit: usize) -> bool {
    let room = limit.saturating_sub(collected.len()).min(bytes.len());
    collected.extend_from_slice(&bytes[..room]);
    room < bytes.len()
}
