//! Every inode of the table: its slot, its values, the blocks it holds.

use super::blocks::run_length;
use super::{Check, Known};
use crate::checksum;
use crate::image::Flaw;
use crate::ondisk::{
    EXTENT_MAGIC, Extent, FIRST_INO, Header, INLINE_LINK, INODE_CHECKSUM, Inode, MAX_LEVEL,
    NODE_EXTENTS, ORPHAN_FL, ROOT_EXTENTS, ROOT_INO, VECTOR_DIMS_MAX, VECTOR_FLOATS, VECTOR_MAGIC,
    VectorBlock, XATTR_MAGIC, XattrHead,
};
use zerocopy::{FromBytes, IntoBytes};

/// What a walk over an extent tree found.
#[derive(Default)]
struct Walk {
    /// Blocks of data and tree.
    blocks: u64,
    /// First file block that the next run may have.
    next: u64,
    /// Disk blocks of a directory, in order; a hole ends it.
    row: Vec<u64>,
}

fn file_type(mode: u16) -> u16 {
    mode & 0o170_000
}

impl Check {
    /// What makes an inode unusable, beyond its checksum.
    fn flaw_of(&self, inode: &Inode) -> Option<&'static str> {
        let mode = inode.mode.get();
        let known = [
            0o100_000, 0o040_000, 0o120_000, 0o020_000, 0o060_000, 0o010_000, 0o140_000,
        ];
        let size = inode.size.get();
        let (dir, link) = (file_type(mode) == 0o040_000, file_type(mode) == 0o120_000);
        if !known.contains(&file_type(mode)) {
            return Some("an unknown file type");
        }
        if inode.links.get() == 0 && inode.flags.get() & ORPHAN_FL == 0 {
            return Some("no links");
        }
        if size > ((1 << 32) - 2) << 12
            || (link && (size == 0 || size >= 4096))
            || (dir && !size.is_multiple_of(4096))
        {
            return Some("an impossible size");
        }
        let inline = link && size <= INLINE_LINK as u64;
        if !inline
            && (usize::from(inode.extent_count.get()) > ROOT_EXTENTS
                || inode.extent_level.get() > MAX_LEVEL
                || (inode.extent_level.get() > 0 && inode.extent_count.get() == 0))
        {
            return Some("a bad extent root");
        }
        if inode.vector_dims.get() > VECTOR_DIMS_MAX {
            return Some("an impossible vector");
        }
        None
    }

    pub(super) fn inodes_of_group(&mut self, group: u32) -> Result<(), Flaw> {
        let trusted = self.groups_read[group as usize].is_some();
        let ready = self.groups_read[group as usize]
            .as_ref()
            .map_or(self.group_inodes, |g| g.inodes_ready.get());
        for index in 0..ready {
            let ino = group * self.group_inodes + index + 1;
            let inode = self.read_inode(ino)?;
            if inode.as_bytes().iter().all(|&byte| byte == 0) {
                continue;
            }
            let seed = checksum::crc32c(self.disk.seed(), &ino.to_le_bytes());
            let sum = checksum::record(seed, inode.as_bytes(), INODE_CHECKSUM);
            let flaw = if inode.mode.get() == 0 || inode.checksum.get() != sum {
                Some("a wrong checksum")
            } else {
                self.flaw_of(&inode)
            };
            if let Some(flaw) = flaw {
                // Below a lost group block, slots that were never written look damaged too.
                if !trusted {
                    if self.repair {
                        self.clear_inode(ino)?;
                    }
                } else if self.found("inode", format!("inode {ino} has {flaw}")) {
                    self.clear_inode(ino)?;
                }
                continue;
            }
            if ino < FIRST_INO && ino != ROOT_INO {
                self.found_for_good(
                    "reserved-inode",
                    format!("inode {ino} is kept for the format"),
                );
                continue;
            }
            self.inode(ino, inode)?;
        }
        Ok(())
    }

    fn inode(&mut self, ino: u32, mut inode: Inode) -> Result<(), Flaw> {
        let before = inode.clone();
        let mut walk = Walk::default();
        let mode = inode.mode.get();
        if !(file_type(mode) == 0o120_000 && inode.size.get() <= INLINE_LINK as u64) {
            let count = usize::from(inode.extent_count.get());
            let mut root = inode.root[..count].to_vec();
            let level = inode.extent_level.get();
            self.entries(ino, &inode, level, &mut root, &mut walk)?;
            for (slot, entry) in inode.root.iter_mut().zip(&root) {
                *slot = *entry;
            }
            inode.extent_count = u16::try_from(root.len()).unwrap_or(0).into();
            if root.is_empty() {
                inode.extent_level = 0.into();
            }
        }
        self.xattrs(ino, &mut inode, &mut walk)?;
        self.vector(ino, &mut inode, &mut walk)?;
        let blocks = walk.row.len() as u64 * 4096;
        // One that is being deleted loses its blocks before its size; the next mount goes on.
        let orphan = inode.flags.get() & ORPHAN_FL != 0;
        if file_type(mode) == 0o040_000 && inode.size.get() != blocks && !orphan {
            let what = format!(
                "directory {ino} has {} bytes and {} blocks",
                inode.size.get(),
                walk.row.len()
            );
            if self.found("directory-size", what) {
                inode.size = blocks.into();
            }
        }
        if inode.blocks.get() != walk.blocks {
            let what = format!(
                "inode {ino} counts {} blocks and holds {}",
                inode.blocks.get(),
                walk.blocks
            );
            if self.found("block-count", what) {
                inode.blocks = walk.blocks.into();
            }
        }
        if self.repair && inode.as_bytes() != before.as_bytes() {
            self.write_inode(ino, &inode)?;
        }
        self.known.insert(
            ino,
            Known {
                mode,
                links: inode.links.get(),
                generation: inode.generation.get(),
                parent: inode.parent.get(),
                orphan: inode.flags.get() & ORPHAN_FL != 0,
                vector: inode.vector_block.get() != 0,
                dir_blocks: if file_type(mode) == 0o040_000 {
                    walk.row
                } else {
                    Vec::new()
                },
                ..Known::default()
            },
        );
        Ok(())
    }

    /// Checks the entries of one node and all below; entries that cannot stay are taken out.
    fn entries(
        &mut self,
        ino: u32,
        inode: &Inode,
        level: u16,
        entries: &mut Vec<Extent>,
        walk: &mut Walk,
    ) -> Result<(), Flaw> {
        let mut keep = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            let ok = if level == 0 {
                self.run_of(ino, entry, walk)
            } else {
                self.child(ino, inode, level, entry, walk)?
            };
            if ok || !self.repair {
                keep.push(*entry);
            }
        }
        *entries = keep;
        Ok(())
    }

    fn run_of(&mut self, ino: u32, entry: &Extent, walk: &mut Walk) -> bool {
        let (first, length, start) = (
            u64::from(entry.block.get()),
            run_length(entry),
            entry.start.get(),
        );
        if first < walk.next || first + length > 1 << 32 || !self.may_own(start, length) {
            let what = format!("inode {ino} maps block {first} to {start}, {length} blocks");
            self.found("extent", what);
            return false;
        }
        if !self.hold(start, length) {
            let what = format!("inode {ino} holds blocks at {start} that another holds too");
            self.found("shared-block", what);
            return false;
        }
        if first == walk.next && walk.row.len() as u64 == first && length <= 1 << 20 {
            walk.row.extend(start..start + length);
        }
        walk.next = first + length;
        walk.blocks += length;
        true
    }

    fn child(
        &mut self,
        ino: u32,
        inode: &Inode,
        level: u16,
        entry: &Extent,
        walk: &mut Walk,
    ) -> Result<bool, Flaw> {
        let block = entry.start.get();
        let read = self
            .disk
            .read_checked(block, EXTENT_MAGIC, ino, inode.generation.get());
        let mut data = match read {
            Ok(data) => data,
            Err(flaw) => {
                self.found("extent-node", format!("inode {ino}: {flaw}"));
                return Ok(false);
            }
        };
        let shape = Header::ref_from_prefix(&data).map(|(h, _)| (h.count.get(), h.level.get()));
        let (count, at_level) = shape.unwrap_or((0, 0));
        let count = usize::from(count);
        if count == 0 || count > NODE_EXTENTS || at_level != level - 1 {
            self.found(
                "extent-node",
                format!("inode {ino}: block {block} has a bad shape"),
            );
            return Ok(false);
        }
        if !self.hold(block, 1) {
            self.found(
                "shared-block",
                format!("inode {ino} holds block {block} that another holds"),
            );
            return Ok(false);
        }
        walk.blocks += 1;
        let mut entries: Vec<Extent> = data[32..32 + count * 16]
            .chunks_exact(16)
            .filter_map(|bytes| Extent::read_from_bytes(bytes).ok())
            .collect();
        self.entries(ino, inode, level - 1, &mut entries, walk)?;
        if entries.is_empty() {
            walk.blocks -= 1;
            return Ok(false);
        }
        if entries.len() != count {
            data[32..].fill(0);
            data[32..32 + entries.len() * 16].copy_from_slice(entries.as_bytes());
            let count = u16::try_from(entries.len()).unwrap_or(0);
            data[24..26].copy_from_slice(&count.to_le_bytes());
            self.disk.write_sealed(block, data);
        }
        Ok(true)
    }

    fn xattrs(&mut self, ino: u32, inode: &mut Inode, walk: &mut Walk) -> Result<(), Flaw> {
        let block = inode.xattr_block.get();
        if block == 0 {
            return Ok(());
        }
        let read = self
            .disk
            .read_checked(block, XATTR_MAGIC, ino, inode.generation.get());
        let sound = match read {
            Ok(data) if xattrs_fit(&data) => self.hold(block, 1),
            _ => false,
        };
        if sound {
            walk.blocks += 1;
        } else if self.found(
            "xattr-block",
            format!("inode {ino}: attribute block {block} is damaged"),
        ) {
            inode.xattr_block = 0.into();
        }
        Ok(())
    }

    fn vector(&mut self, ino: u32, inode: &mut Inode, walk: &mut Walk) -> Result<(), Flaw> {
        let first = inode.vector_block.get();
        if first == 0 && inode.vector_dims.get() == 0 {
            return Ok(());
        }
        match self.vector_blocks(ino, inode) {
            Some(blocks) if blocks.iter().all(|&block| self.hold(block, 1)) => {
                walk.blocks += blocks.len() as u64;
            }
            _ => {
                let what = format!("inode {ino}: its vector at block {first} is damaged");
                if self.found("vector", what) {
                    inode.vector_block = 0.into();
                    inode.vector_dims = 0.into();
                }
            }
        }
        Ok(())
    }

    fn vector_blocks(&self, ino: u32, inode: &Inode) -> Option<Vec<u64>> {
        let generation = inode.generation.get();
        let read = |block| {
            self.disk
                .read_checked(block, VECTOR_MAGIC, ino, generation)
                .ok()
        };
        let first = VectorBlock::read_from_bytes(&read(inode.vector_block.get())?).ok()?;
        let dims = usize::from(inode.vector_dims.get());
        if dims == 0 || first.dims.get() as usize != dims {
            return None;
        }
        let more = dims.div_ceil(VECTOR_FLOATS) - 1;
        let mut blocks = vec![inode.vector_block.get()];
        for place in 0..more {
            let block = u64::from(first.blocks.get(place)?.get());
            read(block)?;
            blocks.push(block);
        }
        Some(blocks)
    }
}

fn xattrs_fit(data: &[u8]) -> bool {
    let Ok((header, _)) = Header::ref_from_prefix(data) else {
        return false;
    };
    let mut at = 32;
    for _ in 0..header.count.get() {
        let Ok((x, _)) = XattrHead::ref_from_prefix(data.get(at..).unwrap_or_default()) else {
            return false;
        };
        let length = 4 + usize::from(x.name_len) + usize::from(x.value_len.get());
        at += length.next_multiple_of(4);
        if x.name_len == 0 || at > data.len() {
            return false;
        }
    }
    true
}
