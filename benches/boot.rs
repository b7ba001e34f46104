//! How long from power-on to the agent's answer, and to a settled system?

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use host_harness::host::{Host, HostRequest};
use host_harness::lab::{BOOT_DEADLINE, Guest};
use host_harness::layout::Layout;
use host_harness::machine::{Machine, MachineSpec};
use image_builder::Image;

fn main() {
    keeper::hook();
    let mut criterion = Criterion::default().configure_from_args();
    boot(&mut criterion);
    criterion.final_summary();
}

fn boot(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let layout = Layout::find(None).expect("run it in the checkout");
    let host = runtime
        .block_on(Host::probe(&layout, HostRequest::default()))
        .expect("a usable host");
    let image = Image::find(&layout.out, "minimal")
        .expect("a sound image")
        .expect("no minimal image: run `cargo images build --variants minimal`");
    for (name, value) in host.facts() {
        eprintln!("{name}: {value}");
    }
    let mut group = criterion.benchmark_group("boot");
    // A boot takes seconds: few samples, each one boot.
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(1));
    for (name, settle) in [("to the agent", false), ("to a settled system", true)] {
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| runtime.block_on(once(&host, &image, settle)))
                    .sum()
            });
        });
    }
    group.finish();
}

/// One boot of a fresh overlay; the machine's end is not part of the time.
async fn once(host: &Host, image: &Image, settle: bool) -> Duration {
    let logs = tempfile::tempdir().expect("a folder for logs");
    let begin = Instant::now();
    let machine = Machine::boot(MachineSpec {
        accelerator: host.accel.chosen,
        vsock: Some(host.vsock.chosen),
        ..MachineSpec::new("bench", &image.disk, logs.path())
    })
    .await
    .expect("QEMU starts");
    let guest = Guest::meet(Arc::new(machine), BOOT_DEADLINE, BOOT_DEADLINE)
        .await
        .expect("it boots");
    if settle {
        guest.settle().await.expect("it settles");
    }
    begin.elapsed()
}
