//! How a file system of a given size is laid out: pure arithmetic, no disk.

use crate::ondisk::{BLOCK_SIZE, GROUP_BLOCKS, GROUP_INODES_MAX, INODES_PER_BLOCK};

/// jbd2 refuses a journal of fewer blocks (`JBD2_MIN_JOURNAL_BLOCKS`).
pub const JOURNAL_MIN: u32 = 1024;
/// More buys nothing and must still fit into the first group.
pub const JOURNAL_MAX: u32 = 16384;
/// Blocks of the smallest file system: journal, smallest tables and a little room.
pub const BLOCKS_MIN: u64 = 2048;
/// The format's block numbers are 32 bits wide.
pub const BLOCKS_MAX: u64 = 1 << 32;

/// Wishes of the one who makes the file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// Disk bytes for each inode; the default is about 12,800.
    pub bytes_per_inode: Option<u64>,
    /// Blocks of the journal.
    pub journal_blocks: Option<u32>,
}

/// A layout that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the file system in blocks.
    pub blocks: u64,
    /// Number of groups.
    pub groups: u32,
    /// Inodes in each group.
    pub group_inodes: u32,
    /// First block of the journal.
    pub journal_start: u64,
    /// Length of the journal in blocks.
    pub journal_blocks: u32,
    /// Blocks kept back for metadata on a full disk.
    pub reserved_blocks: u32,
}

/// Why a device cannot hold a file system.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Misfit {
    /// Too few blocks.
    #[error("{0} bytes are too few for VexFS: the least is 8 MiB")]
    TooSmall(u64),
    /// The journal wished for cannot be had.
    #[error("a journal of {0} blocks is not possible here: choose {JOURNAL_MIN} to {1}")]
    Journal(u32, u32),
    /// The inode ratio wished for is out of range.
    #[error("{0} bytes for each inode is out of range: choose 4096 to 6291456")]
    Ratio(u64),
}

impl Geometry {
    /// Lays out a device of `bytes`.
    ///
    /// # Errors
    /// [`Misfit`] if the device is too small or a wish cannot be met.
    pub fn of(bytes: u64, wishes: Wishes) -> Result<Self, Misfit> {
        let mut blocks = (bytes / BLOCK_SIZE as u64).min(BLOCKS_MAX);
        if blocks < BLOCKS_MIN {
            return Err(Misfit::TooSmall(bytes));
        }
        let group_inodes = match wishes.bytes_per_inode {
            None if blocks < 16384 => 2048,
            None => GROUP_INODES_MAX,
            Some(ratio) if !(4096..=6_291_456).contains(&ratio) => {
                return Err(Misfit::Ratio(ratio));
            }
            Some(ratio) => {
                let inodes = GROUP_BLOCKS * BLOCK_SIZE as u64 / ratio;
                let inodes = u32::try_from(inodes).unwrap_or(GROUP_INODES_MAX);
                inodes
                    .next_multiple_of(INODES_PER_BLOCK)
                    .clamp(INODES_PER_BLOCK, GROUP_INODES_MAX)
            }
        };
        let fixed = 2 + u64::from(group_inodes / INODES_PER_BLOCK);
        // A last group too small for its own tables is left out, as is the spare superblock.
        let rest = (blocks - 1) % GROUP_BLOCKS;
        if blocks > GROUP_BLOCKS && rest > 0 && rest < fixed + 64 {
            blocks -= rest;
        }
        let room = u32::try_from((blocks - 1).min(GROUP_BLOCKS) - fixed).unwrap_or(0);
        let most = (room / 3 * 2).min(JOURNAL_MAX);
        let wanted = u32::try_from(blocks / 32).unwrap_or(JOURNAL_MAX);
        let journal = wishes
            .journal_blocks
            .unwrap_or(wanted.clamp(JOURNAL_MIN, JOURNAL_MAX).min(most));
        if journal < JOURNAL_MIN || journal > most {
            return Err(Misfit::Journal(journal, most));
        }
        Ok(Self {
            blocks,
            groups: u32::try_from((blocks - 1).div_ceil(GROUP_BLOCKS)).unwrap_or(u32::MAX),
            group_inodes,
            journal_start: fixed,
            journal_blocks: journal,
            reserved_blocks: u32::try_from((blocks / 200).clamp(16, 4096)).unwrap_or(4096),
        })
    }

    /// Blocks at the start of each group that files cannot own: superblock, group block, table.
    #[must_use]
    pub fn fixed_blocks(&self) -> u64 {
        2 + u64::from(self.group_inodes / INODES_PER_BLOCK)
    }

    /// Blocks in `group`; the spare superblock at the end belongs to none.
    #[must_use]
    pub fn group_size(&self, group: u32) -> u64 {
        (self.blocks - 1 - u64::from(group) * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: u64) -> Result<Geometry, Misfit> {
        Geometry::of(bytes, Wishes::default())
    }

    #[test]
    fn every_size_gives_a_layout_that_holds() {
        for mib in [
            8u64,
            9,
            32,
            63,
            64,
            95,
            96,
            97,
            98,
            100,
            192,
            193,
            195,
            256,
            1000,
            8192,
            1 << 20,
        ] {
            for odd in [0u64, 4096, 5000, 1_000_000] {
                let g = of((mib << 20) + odd).unwrap();
                assert!(
                    g.journal_start + u64::from(g.journal_blocks) < g.group_size(0),
                    "{mib} {g:?}"
                );
                let last = g.group_size(g.groups - 1);
                assert!(
                    last > g.fixed_blocks() && last <= GROUP_BLOCKS,
                    "{mib} {g:?}"
                );
                assert_eq!(
                    (0..g.groups).map(|n| g.group_size(n)).sum::<u64>(),
                    g.blocks - 1
                );
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(of(1 << 20), Err(Misfit::TooSmall(1 << 20)));
        let wishes = Wishes {
            journal_blocks: Some(100),
            ..Wishes::default()
        };
        assert!(matches!(
            Geometry::of(1 << 30, wishes),
            Err(Misfit::Journal(100, _))
        ));
        let wishes = Wishes {
            bytes_per_inode: Some(1),
            ..Wishes::default()
        };
        assert_eq!(Geometry::of(1 << 30, wishes), Err(Misfit::Ratio(1)));
    }

    #[test]
    fn the_largest_has_two_to_the_32_blocks() {
        assert_eq!(of(1 << 50).unwrap().blocks, BLOCKS_MAX);
    }
}
