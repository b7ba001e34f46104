//! A connection to an agent, and the requests that are a question and an answer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::message::{
    DirEntry, FileStat, GuestPath, KmsgRecord, ModuleInfo, ModuleSource, MountRequest, Pong,
    PowerAction, PowerHow, SystemInfo, UnmountFlags,
};
use agent_protocol::{Event, FaultKind, Reply, Request, Secret, handshake};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout_at;

use super::transcript::Line;
use super::wire::{Arrival, Call, CallInput, Wire};
use super::{AgentError, Deadline, Transcript};

/// Beyond the deadline of a request that the agent ends itself (a program it has to kill and whose
/// last words it has to send), the time for word of that to come.
const GRACE: Duration = Duration::from_millis(1800);
/// Most kernel log records collected.
const MOST_RECORDS: usize = 65_536;
/// Most directory entries collected.
const MOST_ENTRIES: usize = 100_000;

/// A connection to the agent of one machine. Clones are the same connection.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    wire: Wire,
    transcript: Transcript,
}

/// Part of the kernel log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KmsgLog {
    /// Records in order, of all facilities: judge by [`KmsgRecord::is_kernel`].
    pub records: Vec<KmsgRecord>,
    /// Records the guest's ring overwrote before they were read.
    pub lost: u64,
    /// Whether there were more than this side collects.
    pub truncated: bool,
    /// Mark from which to go on.
    pub next: u64,
}

/// Content of a file of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The bytes asked for, or as many as there are.
    pub bytes: Vec<u8>,
    /// Permission bits of the file.
    pub mode: u32,
}

impl Client {
    /// Shakes hands with whoever is at the other end of `stream`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`AgentError::WrongSecret`], [`AgentError::Version`], [`AgentError::Garbage`],
    /// [`AgentError::Lost`] and [`AgentError::DeadlinePassed`].
    pub async fn connect<S>(
        mut stream: S,
        secret: &Secret,
        deadline: impl Into<Deadline>,
    ) -> Result<Self, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let deadline = deadline.into();
        let transcript = Transcript::new();
        let line = transcript.begin("connect".to_owned());
        let shaken = timeout_at(deadline.plus(Duration::ZERO), async {
            handshake::connect(&mut stream, secret).await
        });
        let result = match shaken.await {
            Ok(result) => result.map_err(AgentError::from),
            Err(_) => Err(passed("connect", deadline)),
        };
        match result {
            Ok(version) => {
                line.end(format!("protocol version {version}"));
                Ok(Self(Arc::new(Inner {
                    wire: Wire::new(stream),
                    transcript,
                })))
            }
            Err(error) => {
                line.end(error.to_string());
                Err(error)
            }
        }
    }

    /// All requests of this connection so far.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        self.0.transcript.clone()
    }

    /// Whether the agent is there.
    ///
    /// # Errors
    /// Every [`AgentError`], as with all that follow.
    pub async fn ping(&self, deadline: impl Into<Deadline>) -> Result<Pong, AgentError> {
        self.ask(Request::Ping, deadline, |reply| match reply {
            Reply::Pong(pong) => Some(pong),
            _ => None,
        })
        .await
    }

    /// Facts about the running system.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn info(&self, deadline: impl Into<Deadline>) -> Result<SystemInfo, AgentError> {
        self.ask(Request::Info, deadline, |reply| match reply {
            Reply::Info(info) => Some(*info),
            _ => None,
        })
        .await
    }

    /// stat(2), or lstat(2) without `follow`.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn stat(
        &self,
        path: impl Into<GuestPath>,
        follow: bool,
        deadline: impl Into<Deadline>,
    ) -> Result<FileStat, AgentError> {
        self.ask(
            Request::Stat {
                path: path.into(),
                follow,
            },
            deadline,
            |reply| match reply {
                Reply::Stat(stat) => Some(stat),
                _ => None,
            },
        )
        .await
    }

    /// The entries of a directory, as the file system orders them.
    ///
    /// # Errors
    /// See [`AgentError`]; [`AgentError::TooLarge`] past 100,000 entries.
    pub async fn list(
        &self,
        path: impl Into<GuestPath>,
        deadline: impl Into<Deadline>,
    ) -> Result<Vec<DirEntry>, AgentError> {
        let mut entries = Vec::new();
        let mut talk = self
            .begin(Request::List { path: path.into() }, deadline)
            .await?;
        loop {
            match talk.next().await? {
                Next::Event(Event::Entries(more)) => entries.extend(more),
                Next::Reply(Reply::Done) => return Ok(entries),
                other => return Err(talk.unfit(&other)),
            }
            if entries.len() > MOST_ENTRIES {
                return Err(talk.too_large(MOST_ENTRIES as u64));
            }
        }
    }

    /// Loads a module by modprobe(8), with dependencies. `parameters` are `name=value` words.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn load_module(
        &self,
        name: &str,
        parameters: &str,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        let module = ModuleSource::Name(name.to_owned());
        self.order(
            Request::LoadModule {
                module,
                parameters: parameters.to_owned(),
            },
            deadline,
        )
        .await
    }

    /// Loads the module in a file of the guest by finit_module(2).
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn load_module_file(
        &self,
        path: impl Into<GuestPath>,
        parameters: &str,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        let module = ModuleSource::File(path.into());
        self.order(
            Request::LoadModule {
                module,
                parameters: parameters.to_owned(),
            },
            deadline,
        )
        .await
    }

    /// Unloads a module that nobody uses.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn unload_module(
        &self,
        name: &str,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(
            Request::UnloadModule {
                name: name.to_owned(),
            },
            deadline,
        )
        .await
    }

    /// Loaded modules, by name.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn modules(
        &self,
        deadline: impl Into<Deadline>,
    ) -> Result<Vec<ModuleInfo>, AgentError> {
        self.ask(Request::ListModules, deadline, |reply| match reply {
            Reply::Modules(modules) => Some(modules),
            _ => None,
        })
        .await
    }

    /// mount(2).
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn mount(
        &self,
        request: MountRequest,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(Request::Mount(request), deadline).await
    }

    /// umount2(2).
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn unmount(
        &self,
        target: impl Into<GuestPath>,
        flags: UnmountFlags,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(
            Request::Unmount {
                target: target.into(),
                flags,
            },
            deadline,
        )
        .await
    }

    /// Where the kernel log ends now: the sequence number of the next record.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn kmsg_mark(&self, deadline: impl Into<Deadline>) -> Result<u64, AgentError> {
        self.ask(Request::KmsgMark, deadline, |reply| match reply {
            Reply::Mark { next } => Some(next),
            _ => None,
        })
        .await
    }

    /// The kernel log from a mark (0: from its beginning) to its end now.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn kmsg_since(
        &self,
        mark: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<KmsgLog, AgentError> {
        let request = Request::KmsgRead {
            from: mark,
            follow: false,
        };
        let mut talk = self.begin(request, deadline).await?;
        let mut log = KmsgLog::default();
        loop {
            match talk.next().await? {
                Next::Event(Event::Kmsg(records)) => {
                    let room = MOST_RECORDS - log.records.len();
                    log.truncated |= records.len() > room;
                    log.records.extend(records.into_iter().take(room));
                }
                Next::Event(Event::KmsgLost { records }) => {
                    log.lost = log.lost.saturating_add(records);
                }
                Next::Reply(Reply::Mark { next }) => {
                    log.next = next;
                    return Ok(log);
                }
                other => return Err(talk.unfit(&other)),
            }
        }
    }

    /// The kernel log from a mark on, as it grows, until the deadline.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn kmsg_follow(
        &self,
        mark: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<KmsgStream, AgentError> {
        let request = Request::KmsgRead {
            from: mark,
            follow: true,
        };
        Ok(KmsgStream {
            talk: self.begin(request, deadline).await?,
        })
    }

    /// Sets the guest's clock, as time since 1970 UTC.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn set_clock(
        &self,
        since_1970: Duration,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
        let nanoseconds = since_1970.subsec_nanos();
        self.order(
            Request::SetClock {
                seconds,
                nanoseconds,
            },
            deadline,
        )
        .await
    }

    /// Mixes 1 to 1024 random bytes into the guest's pool and makes it use them at once.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn add_entropy(
        &self,
        bytes: Vec<u8>,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(
            Request::AddEntropy {
                bytes: bytes.into(),
            },
            deadline,
        )
        .await
    }

    /// sync(2).
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn sync(&self, deadline: impl Into<Deadline>) -> Result<(), AgentError> {
        self.order(Request::Sync, deadline).await
    }

    /// Begins an orderly reboot.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn reboot(&self, deadline: impl Into<Deadline>) -> Result<(), AgentError> {
        self.power(PowerAction::Reboot, PowerHow::Orderly, deadline)
            .await
    }

    /// Begins an orderly power-off.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn power_off(&self, deadline: impl Into<Deadline>) -> Result<(), AgentError> {
        self.power(PowerAction::PowerOff, PowerHow::Orderly, deadline)
            .await
    }

    /// Reboot or power off, in good order or like pulling the plug.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn power(
        &self,
        action: PowerAction,
        how: PowerHow,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(Request::Power { action, how }, deadline).await
    }

    /// Presses a sysrq key, such as `b'w'` for blocked tasks; the kernel log tells what came of it.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn sysrq(&self, key: u8, deadline: impl Into<Deadline>) -> Result<(), AgentError> {
        self.order(Request::SysRq { key }, deadline).await
    }

    async fn order(
        &self,
        request: Request,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.ask(request, deadline, |reply| {
            (reply == Reply::Done).then_some(())
        })
        .await
    }

    /// A question with one answer.
    async fn ask<T>(
        &self,
        request: Request,
        deadline: impl Into<Deadline>,
        fits: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T, AgentError> {
        let mut talk = self.begin(request, deadline).await?;
        match talk.next().await? {
            Next::Reply(reply) => fits(reply).ok_or_else(|| talk.strange()),
            event @ Next::Event(_) => Err(talk.unfit(&event)),
        }
    }

    pub(super) async fn begin(
        &self,
        request: Request,
        deadline: impl Into<Deadline>,
    ) -> Result<Talk, AgentError> {
        let deadline = deadline.into();
        let doing = describe(&request);
        let line = self.0.transcript.begin(doing.clone());
        let ends_itself = matches!(request, Request::Exec(_) | Request::KmsgRead { .. });
        let sent = async {
            // A timer of tokio's fires at the next millisecond, which is time enough for an answer.
            if deadline.remaining().is_zero() {
                return Err(passed(&doing, deadline));
            }
            let call = self.0.wire.call(request, deadline);
            match timeout_at(deadline.plus(Duration::ZERO), call).await {
                Ok(result) => result,
                Err(_) => Err(passed(&doing, deadline)),
            }
        };
        let result = sent.await;
        match result {
            Ok(call) => Ok(Talk {
                call,
                line: Some(line),
                doing,
                deadline,
                grace: if ends_itself { GRACE } else { Duration::ZERO },
                _client: self.clone(),
            }),
            Err(error) => {
                line.end(error.to_string());
                Err(error)
            }
        }
    }
}

/// The kernel log as it grows.
pub struct KmsgStream {
    talk: Talk,
}

impl KmsgStream {
    /// The next records, and how many were lost before them; `None` when the deadline has ended it.
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn next(&mut self) -> Result<Option<(Vec<KmsgRecord>, u64)>, AgentError> {
        match self.talk.next().await? {
            Next::Event(Event::Kmsg(records)) => Ok(Some((records, 0))),
            Next::Event(Event::KmsgLost { records }) => Ok(Some((Vec::new(), records))),
            Next::Reply(Reply::Mark { .. }) => Ok(None),
            other => Err(self.talk.unfit(&other)),
        }
    }
}

/// One request under way, its deadline, and its line in the transcript.
pub(super) struct Talk {
    call: Call,
    line: Option<Line>,
    doing: String,
    deadline: Deadline,
    grace: Duration,
    /// Keeps the connection open.
    _client: Client,
}

/// What a request comes to next.
pub(super) enum Next {
    Event(Event),
    Reply(Reply),
}

impl Talk {
    /// What comes next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Next, AgentError> {
        let arrival = match timeout_at(self.deadline.plus(self.grace), self.call.next()).await {
            Ok(arrival) => arrival,
            Err(_) => Err(passed(&self.doing, self.deadline)),
        };
        let next = match arrival {
            Ok(Arrival::Event(event)) => {
                if let (Some(line), ControlFlow::Continue((out, err))) =
                    (&self.line, output(&event))
                {
                    line.output(out, err);
                }
                return Ok(Next::Event(event));
            }
            Ok(Arrival::Reply(Ok(reply))) => Ok(Next::Reply(reply)),
            Ok(Arrival::Reply(Err(fault))) if fault.kind == FaultKind::DeadlinePassed => {
                Err(passed(&self.doing, self.deadline))
            }
            Ok(Arrival::Reply(Err(fault))) => Err(AgentError::Fault {
                doing: self.doing.clone(),
                fault,
            }),
            Err(error) => Err(error),
        };
        if let Some(line) = self.line.take() {
            line.end(match &next {
                Ok(Next::Reply(reply)) => summary(reply),
                Ok(Next::Event(_)) => unreachable!("returned above"),
                Err(error) => error.to_string(),
            });
        }
        next
    }

    pub(super) fn input(&self) -> CallInput {
        self.call.input()
    }

    pub(super) async fn cancel(&self) -> Result<(), AgentError> {
        self.call.cancel().await
    }

    /// The error for something that does not belong to this request.
    pub(super) fn unfit(&mut self, what: &Next) -> AgentError {
        match what {
            Next::Event(_) => self.fail(AgentError::Garbage(format!(
                "an event that does not belong to `{}`",
                self.doing
            ))),
            Next::Reply(_) => self.strange(),
        }
    }

    fn strange(&mut self) -> AgentError {
        self.fail(AgentError::Garbage(format!(
            "a reply that does not answer `{}`",
            self.doing
        )))
    }

    pub(super) fn too_large(&mut self, limit: u64) -> AgentError {
        self.fail(AgentError::TooLarge {
            doing: self.doing.clone(),
            limit,
        })
    }

    fn fail(&mut self, error: AgentError) -> AgentError {
        if let Some(line) = self.line.take() {
            line.end(error.to_string());
        }
        error
    }
}

fn passed(doing: &str, deadline: Deadline) -> AgentError {
    AgentError::DeadlinePassed {
        doing: doing.to_owned(),
        within: deadline.granted(),
    }
}

fn output(event: &Event) -> ControlFlow<(), (&[u8], &[u8])> {
    match event {
        Event::Stdout(bytes) => ControlFlow::Continue((&bytes.0, &[])),
        Event::Stderr(bytes) => ControlFlow::Continue((&[], &bytes.0)),
        _ => ControlFlow::Break(()),
    }
}

/// A request in one line, for people.
fn describe(request: &Request) -> String {
    match request {
        Request::Ping => "ping".to_owned(),
        Request::Info => "info".to_owned(),
        Request::Exec(exec) => format!("exec {}", exec.argv.join(" ")),
        Request::PutFile { path, mode } => format!("put {path} with mode {mode:04o}"),
        Request::GetFile { path, .. } => format!("get {path}"),
        Request::Stat { path, .. } => format!("stat {path}"),
        Request::List { path } => format!("list {path}"),
        Request::LoadModule {
            module: ModuleSource::Name(name),
            parameters,
        } => format!("load module {name} {parameters}")
            .trim_end()
            .to_owned(),
        Request::LoadModule {
            module: ModuleSource::File(path),
            parameters,
        } => format!("load module file {path} {parameters}")
            .trim_end()
            .to_owned(),
        Request::UnloadModule { name } => format!("unload module {name}"),
        Request::ListModules => "list modules".to_owned(),
        Request::Mount(mount) => {
            let MountRequest {
                source,
                target,
                fstype,
                data,
                ..
            } = mount;
            format!("mount {source} on {target} as {fstype} {data}")
                .trim_end()
                .to_owned()
        }
        Request::Unmount { target, .. } => format!("unmount {target}"),
        Request::KmsgMark => "mark the kernel log".to_owned(),
        Request::KmsgRead { from, follow } => {
            format!(
                "{} the kernel log from {from}",
                if *follow { "follow" } else { "read" }
            )
        }
        Request::SetClock { seconds, .. } => format!("set the clock to {seconds}"),
        // Not what they are: they seed the guest's keys.
        Request::AddEntropy { bytes } => format!("add {} bytes of entropy", bytes.len()),
        Request::Sync => "sync".to_owned(),
        Request::Power { action, how } => format!("{how:?} {action:?}").to_lowercase(),
        Request::SysRq { key } => format!("sysrq {}", key.escape_ascii()),
    }
}

/// A reply in one line, for people.
fn summary(reply: &Reply) -> String {
    match reply {
        Reply::Done => "done".to_owned(),
        Reply::Pong(pong) => format!("agent {}", pong.agent_version),
        Reply::Info(info) => format!("kernel {}, boot {}", info.kernel_release, info.boot_id),
        Reply::Exec(result) => super::exec::ending(result),
        Reply::Transferred { bytes, mode } => format!("{bytes} bytes, mode {mode:04o}"),
        Reply::Stat(stat) => format!(
            "{:?}, {} bytes, mode {:04o}",
            stat.kind, stat.size, stat.mode
        ),
        Reply::Modules(modules) => format!("{} modules", modules.len()),
        Reply::Mark { next } => format!("next record {next}"),
    }
}
