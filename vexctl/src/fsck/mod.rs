//! Checking a file system that is not mounted, and repairing it.
//!
//! The check sees the disk as it will be after the journal is replayed. It goes from the outside in:
//! superblocks, group blocks, every inode with the blocks it holds, directories and their names, and
//! last the sums that must come out: link counts, bitmaps, counts. What is found is a [`Finding`];
//! with repair wished for, each is mended in memory at once, so that later steps see it mended, and
//! everything is written at the end.

mod blocks;
mod disk;
mod inodes;
mod lost;
mod names;
mod totals;

pub use disk::Disk;

use crate::image::Flaw;
use crate::mkfs::seal_inode;
use crate::ondisk::{
    BLOCK_SIZE, FIRST_INO, GROUP_BLOCKS, Group, INODE_SIZE, INODES_PER_BLOCK, Inode, ROOT_INO,
    STATE_CLEAN, group_block,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable word for the kind of damage.
    pub kind: &'static str,
    /// A sentence: what and where.
    pub what: String,
    /// Whether it was mended.
    pub repaired: bool,
}

/// The outcome of a check.
#[derive(Debug, Serialize)]
pub struct Report {
    /// All that was wrong.
    pub findings: Vec<Finding>,
    /// Blocks that the journal held newer versions of.
    pub replayed: usize,
    /// Inodes a crash left half deleted; the next mount finishes them, no damage.
    pub orphans: usize,
    /// Files and directories.
    pub inodes: usize,
    /// Free blocks, as they should be counted.
    pub free_blocks: u64,
}

impl Report {
    /// The exit code of fsck(8).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (
            self.findings.is_empty(),
            self.findings.iter().all(|f| f.repaired),
        ) {
            (true, _) => 0,
            (_, true) => 1,
            _ => 4,
        }
    }
}

/// What later steps need to know of an inode.
#[derive(Clone, Debug, Default)]
struct Known {
    mode: u16,
    links: u32,
    generation: u32,
    parent: u32,
    orphan: bool,
    vector: bool,
    /// Names found for it; for a directory, subdirectories found in it are counted apart.
    names: u32,
    subdirectories: u32,
    /// Blocks of a directory, in order.
    dir_blocks: Vec<u64>,
}

impl Known {
    fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

struct Check {
    disk: Disk,
    repair: bool,
    findings: Vec<Finding>,
    group_inodes: u32,
    groups: u32,
    /// A bit for every block: held by something.
    held: Vec<u64>,
    groups_read: Vec<Option<Group>>,
    /// Groups a repair took something from.
    touched: BTreeSet<u32>,
    known: BTreeMap<u32, Known>,
}

impl Check {
    /// Notes damage; tells whether to mend it.
    fn found(&mut self, kind: &'static str, what: String) -> bool {
        self.findings.push(Finding {
            kind,
            what,
            repaired: self.repair,
        });
        self.repair
    }

    /// Notes damage that cannot be mended here.
    fn found_for_good(&mut self, kind: &'static str, what: String) {
        self.findings.push(Finding {
            kind,
            what,
            repaired: false,
        });
    }

    fn fixed_blocks(&self) -> u64 {
        2 + u64::from(self.group_inodes / INODES_PER_BLOCK)
    }

    fn group_size(&self, group: u32) -> u64 {
        (self.disk.sb.blocks.get() - 1 - u64::from(group) * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    /// Where an inode lies: table block and byte in it.
    fn slot(&self, ino: u32) -> (u64, usize) {
        let (group, index) = ((ino - 1) / self.group_inodes, (ino - 1) % self.group_inodes);
        let block = u64::from(group) * GROUP_BLOCKS + 2 + u64::from(index / INODES_PER_BLOCK);
        (block, (index % INODES_PER_BLOCK) as usize * INODE_SIZE)
    }

    fn read_inode(&self, ino: u32) -> Result<Inode, Flaw> {
        let (block, at) = self.slot(ino);
        let data = self.disk.read(block)?;
        Inode::read_from_bytes(&data[at..at + INODE_SIZE])
            .map_err(|_| Flaw::Block(block, "is too short"))
    }

    fn write_inode(&mut self, ino: u32, inode: &Inode) -> Result<(), Flaw> {
        let (block, at) = self.slot(ino);
        let mut data = self.disk.read(block)?;
        let mut inode = inode.clone();
        if inode.mode.get() != 0 {
            seal_inode(self.disk.seed(), ino, &mut inode);
        }
        data[at..at + INODE_SIZE].copy_from_slice(inode.as_bytes());
        self.disk.write(block, data);
        Ok(())
    }

    fn clear_inode(&mut self, ino: u32) -> Result<(), Flaw> {
        self.write_inode(ino, &Inode::new_zeroed())
    }

    fn superblocks(&mut self) {
        if self.disk.from_spare {
            self.found(
                "superblock",
                "the superblock is damaged; the spare one is sound".into(),
            );
        } else if !self.disk.spare_is_sound() {
            self.found("spare-superblock", "the spare superblock is damaged".into());
        }
    }

    /// Reads the group blocks; a damaged one is made anew at the end, from what is found.
    fn read_groups(&mut self) {
        for group in 0..self.groups {
            let read =
                self.disk
                    .read_checked(group_block(group), crate::ondisk::GROUP_MAGIC, group, 0);
            let parsed = read.and_then(|data| {
                Group::read_from_bytes(&data)
                    .map_err(|_| Flaw::Block(group_block(group), "is too short"))
            });
            let parsed = parsed.and_then(|g| {
                let ready = g.inodes_ready.get();
                if ready > self.group_inodes || ready % INODES_PER_BLOCK != 0 {
                    return Err(Flaw::Block(
                        group_block(group),
                        "has an impossible inode count",
                    ));
                }
                Ok(g)
            });
            match parsed {
                Ok(g) => self.groups_read.push(Some(g)),
                Err(flaw) => {
                    self.found("group-block", format!("group {group}: {flaw}"));
                    self.groups_read.push(None);
                }
            }
        }
    }

    fn run(&mut self) -> Result<(), Flaw> {
        self.superblocks();
        self.read_groups();
        self.hold_fixed_blocks();
        for group in 0..self.groups {
            self.inodes_of_group(group)?;
        }
        if self.known.get(&ROOT_INO).is_some_and(Known::is_dir) {
            self.names()?;
        } else if self.found("root", "the root directory is gone".into()) {
            self.make_root()?;
            self.names()?;
        }
        self.totals()
    }
}

/// Checks the file system on `path`; with `repair` mends what is wrong and replays the journal.
///
/// # Errors
/// [`Flaw`] if the device cannot be used or holds no VexFS at all.
pub fn check(path: &Path, repair: bool) -> Result<Report, Flaw> {
    let mut disk = Disk::open(path, repair)?;
    let journal = disk.replay();
    let (groups, group_inodes) = (disk.sb.groups.get(), disk.sb.group_inodes.get());
    let words = usize::try_from(disk.sb.blocks.get() / 64 + 1).unwrap_or(usize::MAX);
    let mut check = Check {
        disk,
        repair,
        findings: Vec::new(),
        group_inodes,
        groups,
        held: vec![0; words],
        groups_read: Vec::new(),
        touched: BTreeSet::new(),
        known: BTreeMap::new(),
    };
    if let Err(why) = journal {
        check.found("journal", format!("{why}: what it held is lost"));
        if repair {
            let id = crate::mkfs::Identity {
                uuid: check.disk.sb.uuid,
                label: String::new(),
                time: 0,
                uid: 0,
                gid: 0,
            };
            let g = crate::geometry::Geometry {
                blocks: check.disk.sb.blocks.get(),
                groups,
                group_inodes,
                journal_start: check.disk.sb.journal_start.get(),
                journal_blocks: check.disk.sb.journal_blocks.get(),
                reserved_blocks: 0,
            };
            let head = crate::mkfs::journal_super(&g, &id);
            check.disk.write(g.journal_start, head);
        }
    }
    check.run()?;
    let orphans = check.known.values().filter(|known| known.orphan).count();
    let report = Report {
        replayed: check.disk.replayed,
        orphans,
        inodes: check.known.len(),
        free_blocks: check.free_blocks(),
        findings: check.findings,
    };
    let states_error = check.disk.sb.state.get() & crate::ondisk::STATE_ERRORS != 0;
    if repair
        && (check.disk.repaired()
            || !report.findings.is_empty()
            || report.replayed > 0
            || states_error)
    {
        check.disk.commit(STATE_CLEAN)?;
    }
    Ok(report)
}

const _: () = assert!(BLOCK_SIZE == 4096 && FIRST_INO > ROOT_INO);

#[cfg(test)]
mod tests;
