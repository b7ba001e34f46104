//! Taking the leak ledger in a settled guest, before a story and after it.
//!
//! Reading costs one small request to the agent, and letting the guest settle one more; no program runs
//! in it, for under emulation one takes as long as all of this together (but on a kernel compiled here,
//! where kmemleak has to be told to look). A slab cache that SLUB has merged with one of another owner has
//! no line in `/proc/slabinfo` and cannot be counted. The in-tree module's is never merged, for it has a
//! constructor (mm/slab_common.c, `slab_unmergeable`); that of another tree may be, and is then named
//! in the report: booting every image with `slab_nomerge` for that would change what is tested.

use std::time::Duration;

use image::SourceConfig;
use kernel_log::taint::Taint;

use super::{Leak, Ledger, Malformed};
use crate::lab::{Failure, Guest};

/// How long reading the ledger, or letting the guest settle for it, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the ledger is drawn from.
const FILES: [&str; 5] = [
    "/proc/modules",
    "/proc/slabinfo",
    "/proc/sys/kernel/tainted",
    "/proc/mounts",
    "/proc/partitions",
];

/// What the kernel gives back late (an RCU grace period, a work queue) is waited for this often, this
/// long each time. A clean guest is clean at the first look.
const LATE: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(150),
    Duration::from_millis(600),
];

/// The ledger now.
pub(in crate::lab) async fn take(guest: &Guest, source: &SourceConfig) -> Result<Ledger, Failure> {
    let files = guest.client().read_files(FILES, PATIENCE);
    let files = guest
        .ask("read what the ledger is drawn from", files)
        .await?;
    let [modules, slabs, taint, mounts, devices] =
        files.each_ref().map(|file| String::from_utf8_lossy(file));
    let mounts = super::mounts(&mounts).map_err(malformed)?;
    let mut open_files = std::collections::BTreeSet::new();
    let ours = || mounts.keys().filter(|mount| mount.kind == source.fstype);
    if ours().next().is_some() {
        let listing = guest
            .exec([
                "find",
                "/proc",
                "-maxdepth",
                "3",
                "-path",
                "/proc/[0-9]*/fd/*",
                "-printf",
                "%p -> %l\\n",
            ])
            .await?
            .stdout_text();
        for mount in ours() {
            open_files.extend(super::open_files(&listing, &mount.target));
        }
    }
    Ok(Ledger {
        module_users: super::refcount(&modules, &source.module).map_err(malformed)?,
        slabs: super::slab_caches(&slabs, &source.module.replace('-', "_")).map_err(malformed)?,
        taint: Taint(taint.trim().parse().map_err(|_| no_taint(&taint))?),
        mounts,
        devices: super::block_devices(&devices).map_err(malformed)?,
        open_files,
        room: None,
    })
}

/// What the story has not given back, once the guest has had its time.
pub(in crate::lab) async fn balance(
    guest: &Guest,
    source: &SourceConfig,
    before: &Ledger,
) -> Result<Vec<Leak>, Failure> {
    let mut leaks = Vec::new();
    for late in LATE {
        tokio::time::sleep(late).await;
        settle(guest, source).await?;
        leaks = super::difference(before, &take(guest, source).await?);
        if leaks.is_empty() {
            break;
        }
    }
    Ok(leaks)
}

/// Has kmemleak look for memory that nothing points at any more. What it finds is in the kernel's log, for
/// the second judge. Twice, because an object counts that is older than five seconds and has not changed
/// since the scan before (`MSECS_MIN_AGE` and `update_checksum` in mm/kmemleak.c).
const FORGOTTEN: &str = "leaks=/sys/kernel/debug/kmemleak; \
    [ -e /sys/module/kmemleak ] || exit 0; \
    mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug; \
    echo Y >/sys/module/kmemleak/parameters/verbose; \
    echo scan >$leaks; sleep 5; echo scan >$leaks";

/// Runs [`FORGOTTEN`]; a kernel without kmemleak finds nothing.
pub(in crate::lab) async fn look_for_forgotten_memory(guest: &Guest) -> Result<(), Failure> {
    guest.sh(FORGOTTEN).await.map(drop)
}

/// Takes down what the lab itself put up, and has the kernel give back what it only keeps.
async fn settle(guest: &Guest, source: &SourceConfig) -> Result<(), Failure> {
    guest.leave_tools().await?;
    let caches = source.module.replace('-', "_");
    let merged = guest.client().reclaim(&caches, PATIENCE);
    for cache in guest.ask("let the guest settle", merged).await? {
        let note = format!("slab cache {cache} is merged and not counted");
        guest.note(note).await;
    }
    Ok(())
}

/// A guest whose `/proc` is not what it should be has failed; nothing is known of its leaks.
fn malformed(error: Malformed) -> Failure {
    Failure::check("ledger", error.to_string(), error.line)
}

fn no_taint(text: &str) -> Failure {
    malformed(Malformed {
        file: "/proc/sys/kernel/tainted",
        line: text.chars().take(120).collect(),
    })
}
