//! How long from saving a real change in one C file to the smoke verdict, with a fork that waits and
//! without? And how much of that is the build, the fork, the story?

use host_harness::perf;
use vexfs_benches::{bench, rounds};

fn main() {
    machine::hook();
    bench("edit_loop", async |setup| {
        perf::edits::measure(setup, rounds()).await
    });
}
