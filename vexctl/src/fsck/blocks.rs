//! Which blocks are held, and by one holder only.

use super::Check;
use crate::ondisk::{EXTENT_UNWRITTEN, Extent, GROUP_BLOCKS};

/// A run's length without its flag.
pub(super) fn run_length(extent: &Extent) -> u64 {
    u64::from(extent.length.get() & !EXTENT_UNWRITTEN)
}

impl Check {
    pub(super) fn hold_fixed_blocks(&mut self) {
        for group in 0..self.groups {
            let first = u64::from(group) * GROUP_BLOCKS;
            self.set_held(first, self.fixed_blocks());
        }
        let (start, count) = (
            self.disk.sb.journal_start.get(),
            self.disk.sb.journal_blocks.get(),
        );
        self.set_held(start, u64::from(count));
        self.set_held(self.disk.sb.blocks.get() - 1, 1);
    }

    pub(super) fn is_held(&self, block: u64) -> bool {
        self.held
            .get(usize::try_from(block / 64).unwrap_or(usize::MAX))
            .is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    fn set_held(&mut self, start: u64, count: u64) {
        for block in start..start + count {
            if let Some(word) = self
                .held
                .get_mut(usize::try_from(block / 64).unwrap_or(usize::MAX))
            {
                *word |= 1 << (block % 64);
            }
        }
    }

    /// Whether files may own these blocks at all.
    pub(super) fn may_own(&self, start: u64, count: u64) -> bool {
        let sb = &self.disk.sb;
        if count == 0 || start >= sb.blocks.get() || count > GROUP_BLOCKS {
            return false;
        }
        let (group, bit) = (start / GROUP_BLOCKS, start % GROUP_BLOCKS);
        let Ok(group) = u32::try_from(group) else {
            return false;
        };
        let journal = sb.journal_start.get();
        group < self.groups
            && bit >= self.fixed_blocks()
            && bit + count <= self.group_size(group)
            && (start + count <= journal || start >= journal + u64::from(sb.journal_blocks.get()))
    }

    /// Gives blocks to a holder; `false` if one of them has another already, or cannot be owned.
    pub(super) fn hold(&mut self, start: u64, count: u64) -> bool {
        if !self.may_own(start, count) || (start..start + count).any(|block| self.is_held(block)) {
            return false;
        }
        self.set_held(start, count);
        true
    }

    /// Free blocks by what was found.
    pub(super) fn free_blocks(&self) -> u64 {
        let held: u64 = (0..self.disk.sb.blocks.get())
            .map(|b| u64::from(self.is_held(b)))
            .sum();
        self.disk.sb.blocks.get() - held
    }
}
