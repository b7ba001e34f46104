//! The leak ledger: what a guest holds before and after load, mount, unmount and unload, and what was
//! not given back.
//!
//! The kernel gives some things back late. Before the second snapshot the caller lets the guest settle:
//! close what it opened, `sync`, drop caches (`echo 3 > /proc/sys/vm/drop_caches`), and for each slab cache
//! `echo 1 > /sys/kernel/slab/NAME/shrink`, for SLUB counts objects in per-CPU slabs as active
//! (mm/slub.c, `get_slabinfo`); inodes are freed an RCU grace period after the unmount.

use std::collections::{BTreeMap, BTreeSet};

use kernel_log::taint::{Taint, difference as new_taints};

mod parse;
mod take;

pub(super) use take::{balance, look_for_forgotten_memory, take};

pub use parse::{Malformed, block_devices, mounts, open_files, refcount, slab_caches};

/// What a guest holds at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Users of the module under test; `None` when it is not loaded. `refcount` reads it.
    pub module_users: Option<u64>,
    /// Slab caches of the module: name and active objects. `slab_caches` reads it.
    pub slabs: BTreeMap<String, u64>,
    /// The kernel's taint.
    pub taint: Taint,
    /// What is mounted, and how often the same. `mounts` reads it.
    pub mounts: BTreeMap<Mount, u32>,
    /// Loop and device-mapper devices in use. `block_devices` reads it.
    pub devices: BTreeSet<String>,
    /// Files that processes hold open below the mount point. `open_files` reads it.
    pub open_files: BTreeSet<String>,
    /// Room on the file system under test, when it is mounted.
    pub room: Option<Room>,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// Where.
    pub target: String,
    /// What.
    pub source: String,
    /// The type, such as `vexfs`.
    pub kind: String,
}

/// Free room on a file system, from statfs(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes in a block.
    pub block_bytes: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Free inodes.
    pub free_inodes: u64,
}

/// Something that was not given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// What, in words and figures.
    pub sentence: String,
    /// For a new taint, which.
    pub taint: Taint,
}

/// What `after` holds that `before` did not: for two moments between which everything was undone, such as
/// before load and after unload, or before the first file and after deleting all.
///
/// Taints of the module itself ([`Taint::OF_OUR_MODULE`]) do not count. Room counts only when both moments
/// know it.
pub fn difference(before: &Ledger, after: &Ledger) -> Vec<Leak> {
    let mut sentences = Vec::new();
    match (before.module_users, after.module_users) {
        (None, Some(users)) => {
            sentences.push(format!("the module is still loaded, with {users} users"));
        }
        (Some(was), Some(is)) if is > was => {
            sentences.push(format!("the module has {is} users, before it had {was}"));
        }
        _ => {}
    }
    for (cache, is) in &after.slabs {
        let was = before.slabs.get(cache);
        if *is > was.copied().unwrap_or(0) {
            let was = was.map_or("did not exist".into(), |n| format!("held {n}"));
            sentences.push(format!(
                "slab cache {cache} holds {is} objects, before it {was}"
            ));
        } else if was.is_none() && after.module_users.is_none() {
            sentences.push(format!("slab cache {cache} is left, without objects"));
        }
    }
    for (mount, count) in &after.mounts {
        let was = before.mounts.get(mount).copied().unwrap_or(0);
        if *count > was {
            let Mount {
                target,
                source,
                kind,
            } = mount;
            let times = if *count - was > 1 {
                format!(", {} times", count - was)
            } else {
                String::new()
            };
            sentences.push(format!(
                "{source} ({kind}) is still mounted on {target}{times}"
            ));
        }
    }
    for device in after.devices.difference(&before.devices) {
        sentences.push(format!("block device {device} is still set up"));
    }
    for file in after.open_files.difference(&before.open_files) {
        sentences.push(format!("still open: {file}"));
    }
    if let (Some(was), Some(is)) = (before.room, after.room) {
        sentences.extend(was.lost(is));
    }
    let mut leaks: Vec<Leak> = sentences
        .into_iter()
        .map(|sentence| Leak {
            sentence,
            taint: Taint::default(),
        })
        .collect();
    for flag in new_taints(before.taint, after.taint, Taint::OF_OUR_MODULE) {
        leaks.push(Leak {
            sentence: format!("the kernel is tainted: {} ({})", flag.meaning, flag.letter),
            taint: Taint(1 << flag.bit),
        });
    }
    leaks
}

impl Room {
    /// What there is less of now, as sentences.
    pub fn lost(self, now: Room) -> Vec<String> {
        let bytes = |room: Room| u128::from(room.free_blocks) * u128::from(room.block_bytes);
        let mut out = Vec::new();
        if bytes(now) < bytes(self) {
            let lost = bytes(self) - bytes(now);
            out.push(format!(
                "{lost} bytes were not freed: {} blocks of {} bytes are free, before {} were",
                now.free_blocks, now.block_bytes, self.free_blocks
            ));
        }
        if now.free_inodes < self.free_inodes {
            out.push(format!(
                "{} inodes were not freed: {} are free, before {} were",
                self.free_inodes - now.free_inodes,
                now.free_inodes,
                self.free_inodes
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(before: &Ledger, after: &Ledger) -> Vec<String> {
        difference(before, after)
            .into_iter()
            .map(|leak| leak.sentence)
            .collect()
    }

    #[test]
    fn nothing_changed_is_no_leak() {
        let mount = Mount {
            target: "/mnt".into(),
            source: "/dev/vdb".into(),
            kind: "vexfs".into(),
        };
        let ledger = Ledger {
            module_users: Some(1),
            slabs: [("vexfs_inode".into(), 5)].into(),
            mounts: [(mount, 1)].into(),
            room: Some(Room {
                block_bytes: 4096,
                free_blocks: 10,
                free_inodes: 10,
            }),
            ..Ledger::default()
        };
        assert!(sentences(&ledger, &ledger).is_empty());
        let unloaded = Ledger {
            taint: Taint(12288),
            ..Ledger::default()
        };
        assert!(sentences(&Ledger::default(), &unloaded).is_empty());
        assert!(
            sentences(&ledger, &Ledger::default()).is_empty(),
            "less is not a leak"
        );
    }

    #[test]
    fn everything_that_is_kept_is_named() {
        let mount = Mount {
            target: "/mnt".into(),
            source: "/dev/vdb".into(),
            kind: "vexfs".into(),
        };
        let room = |free_blocks, free_inodes| {
            Some(Room {
                block_bytes: 4096,
                free_blocks,
                free_inodes,
            })
        };
        let before = Ledger {
            room: room(100, 50),
            ..Ledger::default()
        };
        let after = Ledger {
            module_users: Some(2),
            slabs: [("vexfs_inode".into(), 14), ("vexfs_dentry".into(), 0)].into(),
            taint: Taint(12288 | 512),
            mounts: [(mount, 2)].into(),
            devices: ["loop0".into()].into(),
            open_files: ["/proc/812/fd/3 -> /mnt/a".into()].into(),
            room: room(63, 49),
        };
        assert_eq!(
            sentences(&before, &after),
            [
                "the module is still loaded, with 2 users",
                "slab cache vexfs_inode holds 14 objects, before it did not exist",
                "/dev/vdb (vexfs) is still mounted on /mnt, 2 times",
                "block device loop0 is still set up",
                "still open: /proc/812/fd/3 -> /mnt/a",
                "151552 bytes were not freed: 63 blocks of 4096 bytes are free, before 100 were",
                "1 inodes were not freed: 49 are free, before 50 were",
                "the kernel is tainted: the kernel issued a warning (W)",
            ]
        );
        let more = Ledger {
            module_users: Some(3),
            slabs: [("vexfs_inode".into(), 15)].into(),
            ..after.clone()
        };
        assert_eq!(
            sentences(&after, &more),
            [
                "the module has 3 users, before it had 2",
                "slab cache vexfs_inode holds 15 objects, before it held 14",
            ]
        );
        let empty_cache = Ledger {
            slabs: [("vexfs_inode".into(), 0)].into(),
            ..Ledger::default()
        };
        assert_eq!(
            sentences(&Ledger::default(), &empty_cache),
            ["slab cache vexfs_inode is left, without objects"]
        );
    }
}
