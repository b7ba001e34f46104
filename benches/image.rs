//! How long does an image take to build: cold, warm, after an edit of the module, with nothing to do?
//! And how large is it?

use host_harness::perf;
use vexfs_benches::{bench, rounds};

fn main() {
    machine::hook();
    bench("image", async |setup| {
        let accelerator = setup.host.accel.chosen.to_string();
        perf::image::measure(&setup.layout, "minimal", &accelerator, true, rounds()).await
    });
}
