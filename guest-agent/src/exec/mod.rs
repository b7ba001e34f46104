//! Running programs: streamed, bounded in time, and gone when they should be.
//!
//! [`accounts`] says who a user is, [`spawn`] starts a program, [`stream`] carries its bytes,
//! [`tree`] knows all that it started and kills it.

pub mod accounts;
pub mod spawn;
pub mod stream;
pub mod tree;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use agent_protocol::message::{Ended, ExecRequest, ExecResult};
use agent_protocol::{Bytes, CHUNK, Event, Fault, FaultKind, Input, Reply};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::dispatch::stopped;
use crate::flow::{Gone, Inlet, Outlet, Stop};
use crate::{Agent, off_thread};
use spawn::{Program, Running};
use stream::Stream;

/// After a kill, how long the dead may take: exit, leave their cgroup, and have their last output
/// taken. What is still there then is reported as unkillable. Well below the time the host waits
/// beyond the deadline.
const SETTLE: Duration = Duration::from_millis(1200);

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started. However it ends once it runs, is a result.
pub async fn run(
    request: ExecRequest,
    outlet: &Outlet,
    inlet: &mut Inlet,
    stop: &Stop,
    agent: &Agent,
) -> Result<Reply, Fault> {
    let started = Instant::now();
    let cgroups = agent.cgroups.clone();
    // Off the thread: spawning waits for the child to have found its directory and its program, and
    // these may lie on the file system under test.
    let spawned = off_thread(move || spawn::spawn(request, cgroups.as_ref()));
    let Running {
        mut program,
        input,
        output,
    } = tokio::select! {
        spawned = spawned => spawned?.attach()?,
        because = stop.wait() => return Err(stopped(because)),
    };

    let (over, is_over) = watch::channel(false);
    let outputs = async {
        let [first, second] = output;
        tokio::join!(
            pump(first, Event::Stdout, outlet, is_over.clone()),
            pump(second, Event::Stderr, outlet, is_over.clone()),
        )
    };
    let feeding = feed(input, inlet);
    tokio::pin!(outputs, feeding);

    let mut killed = None;
    let mut settled_by = None;
    let (mut drained, mut fed) = (false, false);
    let exited = loop {
        tokio::select! {
            () = program.exited() => break true,
            because = stop.wait(), if killed.is_none() => {
                program.kill();
                killed = Some(because);
                settled_by = Some(Instant::now() + SETTLE);
            }
            () = until(settled_by) => break false,
            _ = &mut outputs, if !drained => drained = true,
            () = &mut feeding, if !fed => fed = true,
        }
    };
    let ran = started.elapsed();

    // Nothing it started outlives it. With all writers dead, what is in the pipes is all there is.
    program.kill();
    let settled_by = settled_by.unwrap_or_else(|| Instant::now() + SETTLE);
    let left_behind = !program.settled(settled_by).await;
    // Nobody listens to this channel when the output has ended already.
    let _ = over.send(true);
    if !drained {
        let give_up = killed.is_some().then_some(settled_by);
        tokio::select! {
            _ = &mut outputs => {}
            () = until(give_up) => {}
            because = stop.wait(), if killed.is_none() => killed = Some(because),
        }
    }
    Ok(Reply::Exec(ExecResult {
        ended: if exited {
            ended(program.reap()?)
        } else {
            Ended::Unkillable
        },
        killed,
        left_behind,
        ran_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
    }))
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, Some(signal)) => Ended::Signalled {
            signal,
            core_dumped: status.core_dumped(),
        },
        (None, None) => unreachable!("wait(2) tells only of exits and signals"),
    }
}

/// Sends what a program writes, until it closes its end, or until it is over and the pipe is empty.
async fn pump(
    source: Option<Stream>,
    event: fn(Bytes) -> Event,
    outlet: &Outlet,
    mut is_over: watch::Receiver<bool>,
) -> Result<(), Gone> {
    let Some(source) = source else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = tokio::select! {
            biased;
            read = source.read(&mut buffer) => read.unwrap_or(0),
            _ = is_over.wait_for(|over| *over) => source.read_now(&mut buffer),
        };
        if count == 0 {
            return Ok(());
        }
        outlet.send(event(buffer[..count].to_vec().into())).await?;
    }
}

/// Hands inputs to the program until either has enough. Inputs that nobody reads stay in their
/// window.
async fn feed(mut input: Option<spawn::Sink>, inlet: &mut Inlet) {
    while let Some(sink) = &input {
        let failed = match inlet.next().await {
            Some(Input::Data(data)) => sink.write(&data.0).await.is_err(),
            Some(Input::Resize(size)) => sink.resize(size).is_err(),
            Some(Input::End) => {
                sink.end().await;
                true
            }
            None => true,
        };
        // A pipe is closed by letting go of it; a terminal stays, because its window may still change.
        if failed && !sink.is_terminal() {
            input = None;
        }
    }
}

impl Program {
    fn reap(&mut self) -> Result<ExitStatus, Fault> {
        match self.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(Fault::new(FaultKind::System, "a program ended and did not")),
            Err(error) => Err(Fault::from_io("wait for a program", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::message::KilledBecause;

    use super::*;

    #[test]
    fn a_wait_status_is_a_code_or_a_signal() {
        assert_eq!(ended(ExitStatus::from_raw(3 << 8)), Ended::Exited(3));
        let killed = Ended::Signalled {
            signal: 9,
            core_dumped: false,
        };
        assert_eq!(ended(ExitStatus::from_raw(9)), killed);
        let dumped = Ended::Signalled {
            signal: 11,
            core_dumped: true,
        };
        assert_eq!(ended(ExitStatus::from_raw(11 | 0x80)), dumped);
    }

    #[test]
    fn deadline_and_cancel_are_told_apart() {
        assert_eq!(
            stopped(KilledBecause::Deadline).kind,
            FaultKind::DeadlinePassed
        );
        assert_eq!(stopped(KilledBecause::Cancelled).kind, FaultKind::Cancelled);
    }
}
