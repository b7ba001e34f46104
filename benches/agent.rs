//! How quick is the agent, beside OpenSSH and QEMU's own guest agent over the same machine: a round trip,
//! a program's start, its output, a file there and back?

use host_harness::perf;
use vexfs_benches::{bench, rounds};

fn main() {
    machine::hook();
    bench("agent", async |setup| {
        perf::agent::measure(setup, rounds()).await
    });
}
