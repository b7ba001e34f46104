//! How much of a quick run's time is the harness' own, and how many checks a minute is that?

use host_harness::perf;
use vexfs_benches::{bench, rounds};

fn main() {
    machine::hook();
    bench("quick", async |setup| {
        perf::quick::measure(setup, rounds()).await
    });
}
