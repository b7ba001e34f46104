//! Bitmaps and counts of every group against what was found.

use super::Check;
use crate::image::Flaw;
use crate::ondisk::{
    FIRST_INO, GROUP_BLOCKS, GROUP_INODES_MAX, GROUP_MAGIC, Group, INODES_PER_BLOCK, group_block,
};
use zerocopy::{FromZeros, IntoBytes};

fn set(map: &mut [u8], bit: usize) {
    map[bit / 8] |= 1 << (bit % 8);
}

fn clear_bits(map: &[u8]) -> u32 {
    map.iter().map(|byte| byte.count_zeros()).sum()
}

impl Check {
    /// A group's block as it must be.
    fn group_as_found(&self, number: u32) -> Group {
        let mut group = Group::new_zeroed();
        group.h.magic = GROUP_MAGIC.into();
        group.h.block = group_block(number).into();
        group.h.owner = number.into();
        for bit in 0..GROUP_BLOCKS {
            let beyond = bit >= self.group_size(number);
            if beyond || self.is_held(u64::from(number) * GROUP_BLOCKS + bit) {
                set(&mut group.block_map, usize::try_from(bit).unwrap_or(0));
            }
        }
        for bit in self.group_inodes..GROUP_INODES_MAX {
            set(&mut group.inode_map, bit as usize);
        }
        if number == 0 {
            (0..FIRST_INO - 1).for_each(|bit| set(&mut group.inode_map, bit as usize));
        }
        let first = number * self.group_inodes + 1;
        let (mut directories, mut orphans, mut vectors) = (0, 0, 0);
        for (ino, known) in self.known.range(first..first + self.group_inodes) {
            set(&mut group.inode_map, (ino - first) as usize);
            directories += u32::from(known.is_dir());
            orphans += u32::from(known.orphan);
            vectors += u32::from(known.vector);
        }
        group.inodes_ready = self.ready(number).into();
        group.directories = directories.into();
        group.orphans = orphans.into();
        group.vectors = vectors.into();
        group.free_blocks = clear_bits(&group.block_map).into();
        group.free_inodes = clear_bits(&group.inode_map).into();
        group
    }

    /// How many inodes of a group have a written place in the table; of a group whose block is
    /// damaged, as many as are in use.
    pub(super) fn ready(&self, number: u32) -> u32 {
        if let Some(group) = &self.groups_read[number as usize] {
            return group.inodes_ready.get();
        }
        let first = number * self.group_inodes + 1;
        let mut used = self.known.range(first..first + self.group_inodes);
        let last = used.next_back().map_or(0, |(ino, _)| ino - first + 1);
        let least = if number == 0 { INODES_PER_BLOCK } else { 0 };
        last.next_multiple_of(INODES_PER_BLOCK).max(least)
    }

    /// Compares, and mends, every group block.
    pub(super) fn totals(&mut self) -> Result<(), Flaw> {
        for number in 0..self.groups {
            let right = self.group_as_found(number);
            let Some(is) = self.groups_read[number as usize].clone() else {
                if self.repair {
                    self.disk
                        .write_sealed(group_block(number), right.as_bytes().to_vec());
                }
                continue;
            };
            let sums = [
                (
                    "free-blocks",
                    "free blocks",
                    is.free_blocks,
                    right.free_blocks,
                ),
                (
                    "free-inodes",
                    "free inodes",
                    is.free_inodes,
                    right.free_inodes,
                ),
                (
                    "directory-count",
                    "directories",
                    is.directories,
                    right.directories,
                ),
                ("orphan-count", "orphans", is.orphans, right.orphans),
                ("vector-count", "vectors", is.vectors, right.vectors),
            ];
            let mut wrong = false;
            if is.block_map != right.block_map {
                let leaked = differ(&is.block_map, &right.block_map);
                let stolen = differ(&right.block_map, &is.block_map);
                let what = format!(
                    "group {number}: {leaked} blocks marked used that are free, {stolen} marked free that are held"
                );
                self.found("block-map", what);
                wrong = true;
            }
            if is.inode_map != right.inode_map {
                self.found(
                    "inode-map",
                    format!("group {number}: the inode map differs from the table"),
                );
                wrong = true;
            }
            for (kind, name, is, right) in sums {
                if is != right {
                    self.found(
                        kind,
                        format!("group {number} counts {is} {name} and has {right}"),
                    );
                    wrong = true;
                }
            }
            if self.repair && (wrong || self.touched.contains(&number)) {
                self.disk
                    .write_sealed(group_block(number), right.as_bytes().to_vec());
            }
        }
        Ok(())
    }
}

/// Bits set in `a` and not in `b`.
fn differ(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a & !b).count_ones()).sum()
}
