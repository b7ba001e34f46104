//! One request from its beginning to its reply: deadline, transcript, and what does not belong.

use std::time::Duration;

use agent_protocol::message::{KilledBecause, ModuleSource, MountRequest};
use agent_protocol::{Event, FaultKind, Reply, Request};
use clock::Passed;
use tokio::time::Instant;

use super::transcript::Line;
use super::wire::{Arrival, Call, CallInput};
use super::{AgentError, Client, Deadline};

/// Beyond the deadline of a request that the agent ends itself (a program it has to kill and whose
/// last words it has to send), the time for word of that to come.
const GRACE: Duration = Duration::from_millis(1800);

/// One request under way, its deadline, and its line in the transcript.
pub(super) struct Talk {
    call: Call,
    line: Option<Line>,
    doing: String,
    deadline: Deadline,
    ends_itself: bool,
    /// When we told the agent to end what its own clock would not end in time.
    ended: Option<Instant>,
    /// Keeps the connection open.
    client: Client,
}

/// What a request comes to next.
pub(super) enum Next {
    Event(Event),
    Reply(Reply),
}

impl Talk {
    pub(super) fn new(
        call: Call,
        line: Line,
        doing: String,
        deadline: Deadline,
        ends_itself: bool,
        client: Client,
    ) -> Self {
        Self {
            call,
            line: Some(line),
            doing,
            deadline,
            ends_itself,
            ended: None,
            client,
        }
    }

    /// What comes next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Next, AgentError> {
        let arrival = self.arrival().await;
        let next = match arrival {
            Ok(Arrival::Event(event)) => {
                if let (Some(line), Some((out, err))) = (&self.line, output(&event)) {
                    line.output(out, err);
                }
                return Ok(Next::Event(event));
            }
            Ok(Arrival::Reply(Ok(Reply::Exec(mut result)))) => {
                // We cancelled it because its deadline had passed.
                if self.ended.is_some() && result.killed == Some(KilledBecause::Cancelled) {
                    result.killed = Some(KilledBecause::Deadline);
                }
                Ok(Next::Reply(Reply::Exec(result)))
            }
            Ok(Arrival::Reply(Ok(reply))) => Ok(Next::Reply(reply)),
            Ok(Arrival::Reply(Err(fault)))
                if fault.kind == FaultKind::DeadlinePassed
                    || (self.ended.is_some() && fault.kind == FaultKind::Cancelled) =>
            {
                let (made, granted) = (self.deadline.made(), self.deadline.granted());
                Err(passed(
                    &self.doing,
                    self.client.clock().passed(made, granted),
                ))
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

    /// What arrives next, by the machine's clock. The guest's own runs on while its machine does not: what
    /// ends itself there at a deadline is then ended by us. Cancel-safe.
    async fn arrival(&mut self) -> Result<Arrival, AgentError> {
        let clock = self.client.clock();
        let (made, granted) = (self.deadline.made(), self.deadline.granted());
        let (made, granted) = match self.ended {
            Some(at) => (at, GRACE),
            None if !self.ends_itself => (made, granted),
            None if clock.is_wall() => (made, granted + GRACE),
            None => {
                // A flood must not put its end off.
                if !clock.left(made, granted).is_zero() {
                    let next = self.call.next();
                    if let Ok(arrival) = clock.timeout_from(made, granted, next).await {
                        return arrival;
                    }
                }
                // On a connection that takes nothing any more the last of what came is still read.
                let told = Instant::now();
                let cancel = clock.timeout_from(told, GRACE, self.call.cancel());
                cancel.await.map(drop).unwrap_or_default();
                self.ended = Some(told);
                (told, GRACE)
            }
        };
        match clock.timeout_from(made, granted, self.call.next()).await {
            Ok(arrival) => arrival,
            Err(_) => {
                let (made, granted) = (self.deadline.made(), self.deadline.granted());
                Err(passed(&self.doing, clock.passed(made, granted)))
            }
        }
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

    pub(super) fn strange(&mut self) -> AgentError {
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

/// The error for a deadline.
pub(super) fn passed(doing: &str, late: Passed) -> AgentError {
    AgentError::DeadlinePassed {
        doing: doing.to_owned(),
        within: late.within,
        lost: late.lost,
    }
}

/// What a program wrote: to standard output, and to standard error.
fn output(event: &Event) -> Option<(&[u8], &[u8])> {
    match event {
        Event::Stdout(bytes) => Some((&bytes.0, &[])),
        Event::Stderr(bytes) => Some((&[], &bytes.0)),
        _ => None,
    }
}

/// A request in one line, for people.
pub(super) fn describe(request: &Request) -> String {
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
        Request::Reclaim { caches } => format!("reclaim caches, slabs of {caches}"),
        Request::ReadFiles { paths } => {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            format!("read {}", paths.join(" "))
        }
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
        Reply::Reclaimed { merged } if merged.is_empty() => "done".to_owned(),
        Reply::Reclaimed { merged } => format!("done; merged: {}", merged.join(", ")),
        Reply::Contents { files } => {
            let bytes: Vec<String> = files.iter().map(|file| file.len().to_string()).collect();
            format!("{} bytes", bytes.join(", "))
        }
    }
}
