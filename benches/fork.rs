//! How long from asking for a fork to its agent's answer, to being ready (clock and random pool set), and
//! to the end of a first real command? How long does freezing take, and ten forks at once? And how much
//! of the host's memory does a fork take?

use host_harness::perf;
use vexfs_benches::{bench, rounds};

fn main() {
    machine::hook();
    bench("fork", async |setup| {
        perf::fork::measure(setup, rounds()).await
    });
}
