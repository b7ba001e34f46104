//! Waits for a machine that the host does not run.

use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machine::{Machine, MachineError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::idle;

const STOPPED: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(2);

/// Somebody stops QEMU for three seconds.
async fn stopped_for_a_while(machine: &Machine) -> Result<(), Failed> {
    let pid = Pid::from_raw(machine.pid().cast_signed());
    kill(pid, Signal::SIGSTOP)?;
    tokio::time::sleep(STOPPED).await;
    kill(pid, Signal::SIGCONT)?;
    Ok(())
}

pub async fn stopped() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let machine = Machine::boot(idle(dir.path())?).await?;
    let (stopped, answer) = tokio::join!(stopped_for_a_while(&machine), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let query = "query-status";
        let qmp = machine.qmp();
        qmp.execute_within(query, serde_json::json!({}), DEADLINE)
            .await
    });
    stopped?;
    assert_eq!(answer?["running"], true);

    let begin = Instant::now();
    let (stopped, port) = tokio::join!(
        stopped_for_a_while(&machine),
        machine.wait_for_port(5000, DEADLINE)
    );
    stopped?;
    let took = begin.elapsed();
    let error = port.err().ok_or("connected")?.to_string();
    // The guest is none, and has had its time to show it.
    let slack = Duration::from_millis(300);
    assert!(took > STOPPED + DEADLINE - slack, "{took:?}: {error}");
    // Three seconds it was stopped; what a busy host takes beside that is told as well.
    let lost = machine.clock().lost_since(begin.into());
    assert!(lost >= STOPPED - slack, "{lost:?}: {error}");
    assert!(took < DEADLINE + lost + slack * 10, "{took:?}: {error}");
    assert!(
        error.contains("within 2 s (the host kept its machine waiting for another "),
        "{error}"
    );
    let told = machine.clock().properties();
    let waited = told.iter().find(|(name, _)| name == "seconds-waited");
    let waited: f64 = waited.ok_or("no such property")?.1.parse()?;
    assert!(waited >= 5.5, "{told:?}");
    Ok(())
}

pub async fn silent() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let machine = Machine::boot(idle(dir.path())?).await?;
    let begin = Instant::now();
    let error = machine.wait_for_port(5000, DEADLINE).await.err();
    let took = begin.elapsed();
    assert!(
        matches!(&error, Some(MachineError::NoAnswer { late, .. }) if late.within == DEADLINE),
        "{error:?}"
    );
    // On a host that runs it, that is; one that does not has to say so.
    let lost = machine.clock().lost_since((begin).into());
    assert!(
        took < DEADLINE + lost + Duration::from_secs(2),
        "{took:?}, {lost:?}"
    );
    Ok(())
}
