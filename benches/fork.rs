//! How long from asking for a fork to its agent's answer, to being ready (clock and random pool set),
//! and to the end of a first real command? And how much of the host's memory does it take?

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use host_harness::lab::{BOOT_DEADLINE, Guest};
use host_harness::snapshot::{Snapshot, Timing};
use tokio::runtime::Runtime;
use vexfs_benches::{Quantity, minimal};

fn main() {
    keeper::hook();
    let runtime = Runtime::new().expect("a runtime");
    let snapshot =
        runtime.block_on(async { minimal().await.snapshot().await.expect("a snapshot") });
    let mut criterion = Criterion::default().configure_from_args();
    fork(&mut criterion, &runtime, &snapshot);
    criterion.final_summary();
    let mut criterion = Criterion::default()
        .with_measurement(Quantity("MiB"))
        .configure_from_args();
    memory(&mut criterion, &runtime, &snapshot);
    criterion.final_summary();
}

/// What of a fork's parts, or of the whole time, is counted.
type Question = fn(&Timing, Duration) -> Duration;

fn fork(criterion: &mut Criterion, runtime: &Runtime, snapshot: &Snapshot) {
    let mut group = criterion.benchmark_group("fork");
    group
        .sample_size(20)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_secs(1));
    // Every one of these forks runs a real command; only what is counted differs.
    let questions: [(&str, Question); 3] = [
        ("to the agent's answer", |timing, _| timing.answered),
        ("to ready", |timing, _| timing.ready),
        ("to the end of a first command", |_, all| all),
    ];
    for (name, count) in questions {
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let (timing, all) = runtime.block_on(once(snapshot));
                        count(&timing, all)
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// What an idle fork adds to the host's memory: QEMU's proportional share (PSS of
/// `/proc/PID/smaps_rollup`, proc(5)), guest memory and all, after a command has run in it.
fn memory(criterion: &mut Criterion<Quantity>, runtime: &Runtime, snapshot: &Snapshot) {
    let mut group = criterion.benchmark_group("fork memory");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("proportional set size", |b| {
        b.iter_custom(|times| {
            let one = || {
                runtime.block_on(async {
                    let logs = tempfile::tempdir().expect("a folder for logs");
                    let fork = snapshot.fork("bench", logs.path()).await.expect("a fork");
                    let machine = Arc::new(fork.machine);
                    let guest = Guest::adopt(machine.clone(), fork.agent, BOOT_DEADLINE)
                        .await
                        .expect("it answers");
                    guest.sh("true").await.expect("it runs a command");
                    proportional_mib(machine.pid())
                })
            };
            (0..times).map(|_| one()).sum()
        });
    });
    group.finish();
}

fn proportional_mib(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("QEMU runs");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib: f64 = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .expect("a line `Pss: N kB`");
    kib / 1024.0
}

/// One fork that runs `true`; its end is not part of the time.
async fn once(snapshot: &Snapshot) -> (Timing, Duration) {
    let logs = tempfile::tempdir().expect("a folder for logs");
    let begin = Instant::now();
    let fork = snapshot.fork("bench", logs.path()).await.expect("a fork");
    let timing = fork.timing;
    let guest = Guest::adopt(Arc::new(fork.machine), fork.agent, BOOT_DEADLINE)
        .await
        .expect("it answers");
    guest.sh("true").await.expect("it runs a command");
    (timing, begin.elapsed())
}
