//! How long from asking for a fork to its agent's answer, to being ready (clock and random pool set),
//! and to the end of a first real command?

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use host_harness::dossier::Policy;
use host_harness::host::{Host, HostRequest};
use host_harness::lab::{BOOT_DEADLINE, Guest, Setup};
use host_harness::layout::Layout;
use host_harness::snapshot::{Snapshot, Timing};
use image_builder::{Image, ToolsRequest};

fn main() {
    keeper::hook();
    let mut criterion = Criterion::default().configure_from_args();
    fork(&mut criterion);
    criterion.final_summary();
}

/// What of a fork's parts, or of the whole time, is counted.
type Question = fn(&Timing, Duration) -> Duration;

fn fork(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let snapshot = runtime.block_on(snapshot());
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
                        let (timing, all) = runtime.block_on(once(&snapshot));
                        count(&timing, all)
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// The minimal image's snapshot, as checks use it.
async fn snapshot() -> Snapshot {
    let layout = Layout::find(None).expect("run it in the checkout");
    let host = Host::probe(&layout, HostRequest::default())
        .await
        .expect("a usable host");
    for (name, value) in host.facts() {
        eprintln!("{name}: {value}");
    }
    let image = Image::find(&layout.out, "minimal")
        .expect("a sound image")
        .expect("no minimal image: run `cargo images build --variants minimal`");
    let tools = image_builder::tools_disk(&ToolsRequest::new(&layout.workspace), &())
        .await
        .expect("a tools disk");
    let setup = Setup {
        layout,
        host,
        image,
        tools,
        boot_deadline: BOOT_DEADLINE,
        breaks: Vec::new(),
        dossiers: Policy::none(),
        seed: None,
    };
    setup.snapshot().await.expect("a snapshot")
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
