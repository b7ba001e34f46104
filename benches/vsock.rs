//! How fast is the vsock device each way, and there and back? Beside vhost-device-vsock 0.3.0 where
//! `VEXFS_PEER_VSOCK` names one. Needs neither image nor QEMU.

use host_harness::perf;
use vexfs_benches::{rounds, show};

fn main() {
    machine::hook();
    let metrics = tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(perf::vsock::measure(rounds()))
        .unwrap_or_else(|error| panic!("vsock: {error}"));
    for metric in &metrics {
        let median = metric.median().unwrap_or_default();
        eprintln!(
            "{} {}: {median:.3} {}",
            metric.name, metric.subject, metric.unit
        );
    }
    show(&metrics);
}
