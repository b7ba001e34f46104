//! What is in use and has no name: given one in `lost+found`, which is made when it is needed.

use super::names::{empty_block, parse, put};
use super::{Check, Known};
use crate::image::Flaw;
use crate::mkfs::Identity;
use crate::ondisk::{
    BLOCK_SIZE, Extent, FIRST_INO, GROUP_BLOCKS, INODES_PER_BLOCK, ROOT_INO, group_block,
};
use std::collections::HashSet;

const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Type of a directory in its entry (`DT_DIR`, readdir(3)).
const DIR: u8 = 4;

impl Check {
    /// Whether an inode ought to have a name and has none.
    fn is_lost(&self, ino: u32) -> bool {
        let Some(known) = self.known.get(&ino) else {
            return false;
        };
        ino != ROOT_INO && known.names == 0 && !(known.orphan && known.links == 0)
    }

    /// Finds and reconnects what no name leads to. What is below a lost directory is found through
    /// it, so only its top is given a name.
    pub(super) fn lost(&mut self, seen: &mut HashSet<u32>) -> Result<(), Flaw> {
        let all: Vec<u32> = self
            .known
            .keys()
            .copied()
            .filter(|&ino| self.is_lost(ino))
            .collect();
        let is_dir = |check: &Self, ino: u32| check.known.get(&ino).is_some_and(Known::is_dir);
        let parent_lost = |check: &Self, ino: u32| {
            check
                .known
                .get(&ino)
                .is_some_and(|known| check.is_lost(known.parent))
        };
        let mut tops: Vec<u32> = all
            .iter()
            .copied()
            .filter(|&ino| is_dir(self, ino) && !parent_lost(self, ino))
            .collect();
        for &top in &tops {
            self.walk(top, seen)?;
        }
        // Directories that are each other's parent, and then files.
        for dirs in [true, false] {
            for &ino in &all {
                if is_dir(self, ino) == dirs && self.is_lost(ino) && !tops.contains(&ino) {
                    tops.push(ino);
                    if dirs {
                        self.walk(ino, seen)?;
                    }
                }
            }
        }
        for ino in tops {
            if self.found("lost", format!("inode {ino} is in use and has no name")) {
                self.reconnect(ino)?;
            }
        }
        Ok(())
    }

    /// Gives a lost inode the name `#number` in `lost+found`.
    fn reconnect(&mut self, ino: u32) -> Result<(), Flaw> {
        let kind = self
            .known
            .get(&ino)
            .map_or(0, |k| u8::try_from(k.mode >> 12).unwrap_or(0));
        let named = match self.lost_and_found()? {
            Some(dir) => self.give_name(dir, ino, kind, format!("#{ino}").as_bytes())?,
            None => false,
        };
        if !named {
            let what = format!("no room for the name of inode {ino} in lost+found");
            self.found_for_good("lost", what);
        }
        Ok(())
    }

    /// The directory `lost+found` of the root, made if need be; `None` without room for it.
    fn lost_and_found(&mut self) -> Result<Option<u32>, Flaw> {
        let root = self.known.get(&ROOT_INO).cloned().unwrap_or_default();
        let most = self.groups * self.group_inodes;
        for block in root.dir_blocks {
            let entries = parse(&self.disk.read(block)?, most).unwrap_or_default();
            let there = entries
                .iter()
                .find(|e| e.ino != 0 && e.name == LOST_AND_FOUND);
            if let Some(entry) = there {
                let is_dir = self.known.get(&entry.ino).is_some_and(Known::is_dir);
                return Ok(is_dir.then_some(entry.ino));
            }
        }
        let Some(ino) = self.free_number()? else {
            return Ok(None);
        };
        let id = Identity {
            uuid: self.disk.sb.uuid,
            label: String::new(),
            time: 0,
            uid: 0,
            gid: 0,
        };
        let mut inode = crate::mkfs::root_inode(self.disk.seed(), &id);
        inode.mode = 0o040_700.into();
        self.write_inode(ino, &inode)?;
        self.known.insert(
            ino,
            Known {
                mode: inode.mode.get(),
                links: 2,
                parent: ROOT_INO,
                ..Known::default()
            },
        );
        let made = self.give_name(ROOT_INO, ino, DIR, LOST_AND_FOUND)?;
        Ok(made.then_some(ino))
    }

    /// Puts a name into a directory and makes the directory the parent; `false` without room.
    fn give_name(&mut self, dir: u32, ino: u32, kind: u8, name: &[u8]) -> Result<bool, Flaw> {
        let need = (name.len() + 15) & !7;
        let Some(block) = self.block_with_room(dir, need)? else {
            return Ok(false);
        };
        let mut data = self.disk.read(block)?;
        let entries = parse(&data, self.groups * self.group_inodes).unwrap_or_default();
        let Some(spot) = entries.iter().find(|entry| entry.room() >= need) else {
            return Ok(false);
        };
        put(&mut data, spot, ino, kind, name);
        self.disk.write_sealed(block, data);
        let is_dir = kind == DIR;
        if is_dir {
            self.edit(ino, |inode| inode.parent = dir.into());
        }
        if let Some(known) = self.known.get_mut(&ino) {
            known.names = 1;
        }
        if let Some(known) = self.known.get_mut(&dir).filter(|_| is_dir) {
            known.subdirectories += 1;
            known.links += 1;
            let links = known.links;
            self.edit(dir, |inode| inode.links = links.into());
        }
        Ok(true)
    }

    /// A block of a directory with room for an entry of `need` bytes, added if need be.
    fn block_with_room(&mut self, dir: u32, need: usize) -> Result<Option<u64>, Flaw> {
        let known = self.known.get(&dir).cloned().unwrap_or_default();
        let most = self.groups * self.group_inodes;
        for &block in &known.dir_blocks {
            let parsed = parse(&self.disk.read(block)?, most);
            if parsed.is_ok_and(|entries| entries.iter().any(|entry| entry.room() >= need)) {
                return Ok(Some(block));
            }
        }
        let mut inode = self.read_inode(dir)?;
        let (count, next) = (
            usize::from(inode.extent_count.get()),
            known.dir_blocks.len(),
        );
        // Only into the inode itself: a directory with a tree has room somewhere, or was never lost.
        if inode.extent_level.get() != 0 {
            return Ok(None);
        }
        let last = count.checked_sub(1).map(|last| inode.root[last]);
        let Some(block) = self.take_block() else {
            return Ok(None);
        };
        let adjoins =
            last.is_some_and(|run| run.start.get() + u64::from(run.length.get()) == block);
        if adjoins {
            inode.root[count - 1].length = (inode.root[count - 1].length.get() + 1).into();
        } else if count < inode.root.len() {
            inode.root[count] = Extent {
                block: u32::try_from(next).unwrap_or(0).into(),
                length: 1.into(),
                start: block.into(),
            };
            inode.extent_count = u16::try_from(count + 1).unwrap_or(0).into();
        } else {
            return Ok(None);
        }
        inode.size = (inode.size.get() + BLOCK_SIZE as u64).into();
        inode.blocks = (inode.blocks.get() + 1).into();
        self.write_inode(dir, &inode)?;
        self.disk
            .write_sealed(block, empty_block(block, dir, inode.generation.get()));
        if let Some(known) = self.known.get_mut(&dir) {
            known.dir_blocks.push(block);
        }
        Ok(Some(block))
    }

    /// Takes a free block for a repair, and marks it in the map as read, so that it is no damage.
    fn take_block(&mut self) -> Option<u64> {
        let block = (0..self.disk.sb.blocks.get())
            .find(|&block| !self.is_held(block) && self.may_own(block, 1))?;
        self.hold(block, 1);
        let number = u32::try_from(block / GROUP_BLOCKS).ok()?;
        self.touched.insert(number);
        if let Some(group) = &mut self.groups_read[number as usize] {
            let bit = usize::try_from(block % GROUP_BLOCKS).ok()?;
            if group.block_map[bit / 8] >> (bit % 8) & 1 == 0 {
                group.block_map[bit / 8] |= 1 << (bit % 8);
                group.free_blocks = group.free_blocks.get().saturating_sub(1).into();
            }
        }
        Some(block)
    }

    /// A free inode number for a directory, marked as used; its table block is made if need be.
    fn free_number(&mut self) -> Result<Option<u32>, Flaw> {
        for number in 0..self.groups {
            let first = number * self.group_inodes + 1;
            let numbers = first.max(FIRST_INO)..first + self.group_inodes;
            let free = numbers
                .into_iter()
                .find(|ino| !self.known.contains_key(ino));
            let Some(ino) = free else { continue };
            let index = ino - first;
            if index >= self.ready(number) {
                let table = group_block(number) + 1 + u64::from(index / INODES_PER_BLOCK);
                self.disk.write(table, vec![0; BLOCK_SIZE]);
            }
            self.touched.insert(number);
            if let Some(group) = &mut self.groups_read[number as usize] {
                let ready = (index + 1).next_multiple_of(INODES_PER_BLOCK);
                group.inodes_ready = group.inodes_ready.get().max(ready).into();
                let (byte, bit) = ((index / 8) as usize, index % 8);
                if group.inode_map[byte] >> bit & 1 == 0 {
                    group.inode_map[byte] |= 1 << bit;
                    group.free_inodes = group.free_inodes.get().saturating_sub(1).into();
                }
                group.directories = (group.directories.get() + 1).into();
            }
            return Ok(Some(ino));
        }
        Ok(None)
    }
}
