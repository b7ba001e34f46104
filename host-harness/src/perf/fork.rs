//! How long until a fork's agent answers, and how long does freezing take? Ten forks at once? And how
//! much of the host's memory does one take?

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use machine::snapshot::{Snapshot, Timing, freeze_as_it_is};
use results::figures::{Direction, Metric};

use super::machines::{PATIENCE, logs};
use crate::lab::{Failure, Guest, Setup};

/// How many are asked for at once.
pub const AT_ONCE: usize = 10;

/// How long a machine may take to let go of its vsock device before it is frozen.
const LETTING_GO: Duration = Duration::from_secs(20);

/// What one fork showed.
#[derive(Debug, Clone, Copy)]
pub struct Once {
    /// Of its parts.
    pub timing: Timing,
    /// From asking for it to the end of a first command in it.
    pub command: Duration,
    /// QEMU's proportional set size after that command, in MiB (`/proc/PID/smaps_rollup`, proc(5)).
    pub memory_mib: f64,
}

/// One fork that runs `true`; its end is not part of the time.
///
/// # Errors
/// When it does not come up.
pub async fn once(setup: &Setup, snapshot: &Snapshot) -> Result<Once, Failure> {
    let begin = Instant::now();
    let fork = snapshot.fork("perf-fork", &logs(setup, "fork")).await?;
    let timing = fork.timing;
    let machine = Arc::new(fork.machine);
    let guest = Guest::adopt(machine.clone(), fork.agent, PATIENCE).await?;
    guest.sh("true").await?;
    Ok(Once {
        timing,
        command: begin.elapsed(),
        memory_mib: proportional_mib(machine.pid())?,
    })
}

/// Forks, and freezes the fork: from the order to a whole snapshot on disk.
///
/// # Errors
/// When it cannot be frozen.
pub async fn freeze(setup: &Setup, snapshot: &Snapshot) -> Result<Duration, Failure> {
    let mut fork = snapshot.fork("perf-freeze", &logs(setup, "freeze")).await?;
    drop(fork.agent);
    let dir = tempfile::Builder::new()
        .prefix("perf-freeze-")
        .tempdir_in(&setup.layout.cache)
        .map_err(|e| Failure::Host(format!("no folder to freeze into: {e}")))?;
    let digest = &setup.image.manifest.disk.sha256;
    let begin = Instant::now();
    freeze_as_it_is(&mut fork.machine, dir.path(), digest, LETTING_GO).await?;
    Ok(begin.elapsed())
}

/// Ten are asked for at once, each runs `true` and goes: the time until the last has. How many run at
/// the same time is for the host's admission to say.
///
/// # Errors
/// When one does not come up.
pub async fn ten(setup: &Setup, snapshot: &Snapshot) -> Result<Duration, Failure> {
    let begin = Instant::now();
    try_join_all((0..AT_ONCE).map(|number| async move {
        let name = format!("ten-{number}");
        let fork = snapshot.fork(&name, &logs(setup, &name)).await?;
        let guest = Guest::adopt(Arc::new(fork.machine), fork.agent, PATIENCE).await?;
        guest.sh("true").await.map(drop)
    }))
    .await?;
    Ok(begin.elapsed())
}

fn proportional_mib(pid: u32) -> Result<f64, Failure> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Failure::Host(format!("cannot read {path}: {e}")))?;
    pss(&text).ok_or_else(|| Failure::Ours(format!("{path} has no line `Pss: N kB`")))
}

fn pss(rollup: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Measures `rounds` times.
///
/// # Errors
/// When a machine does not come up.
pub async fn measure(setup: &Setup, rounds: usize) -> Result<Vec<Metric>, Failure> {
    let snapshot = setup.snapshot().await?;
    let subject = setup.image.manifest.variant.as_str();
    let metric = |name: &str, unit: &str| Metric::new(name, subject, unit, Direction::Lower);
    let mut metrics = vec![
        metric("fork/to_agent", "s"),
        metric("fork/to_ready", "s"),
        metric("fork/to_first_command", "s"),
        metric("fork/memory", "MiB"),
        metric("fork/freeze", "s"),
        metric("fork/ten_at_once", "s"),
    ];
    for _ in 0..rounds {
        let one = once(setup, &snapshot).await?;
        let samples = [
            one.timing.answered.as_secs_f64(),
            one.timing.ready.as_secs_f64(),
            one.command.as_secs_f64(),
            one.memory_mib,
            freeze(setup, &snapshot).await?.as_secs_f64(),
            ten(setup, &snapshot).await?.as_secs_f64(),
        ];
        for (metric, sample) in metrics.iter_mut().zip(samples) {
            metric.samples.push(sample);
        }
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_proportional_set_size_is_read() {
        let text = "55d7-7ffe ---p 00000000 00:00 0  [rollup]\nRss:  300000 kB\nPss:   204800 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(super::pss(text), Some(200.0));
        assert_eq!(super::pss("Rss: 1 kB\n"), None);
    }
}
