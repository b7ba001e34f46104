//! How fast is VexFS in the guest, beside ext4 and xfs on the same disk in the same fork: fio sequential
//! and random, fsync, metadata, vectors?

use host_harness::perf;
use vexfs_benches::{bench, rounds};

fn main() {
    machine::hook();
    bench("filesystem", async |setup| {
        perf::filesystem::measure(setup, rounds()).await
    });
}
