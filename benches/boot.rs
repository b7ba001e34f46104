//! How long from power-on to the agent's answer, and to a settled system: by BIOS, UEFI and direct
//! kernel?

use host_harness::perf;
use vexfs_benches::{bench, rounds};

fn main() {
    machine::hook();
    bench("boot", async |setup| {
        let (metrics, _) = perf::boot::measure(setup, rounds()).await?;
        Ok::<_, host_harness::lab::Failure>(metrics)
    });
}
