//! The file system as it will be: the disk, the journal's content over it, and our repairs.

use crate::checksum;
use crate::image::{Flaw, check_super, device_size, open_device};
use crate::journal;
use crate::mkfs::{seal_block, seal_super};
use crate::ondisk::{
    BLOCK_BITS, BLOCK_SIZE, HEADER_CHECKSUM, Header, MAGIC, SUPER_OFFSET, SuperBlock,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use zerocopy::{FromBytes, IntoBytes};

/// A file system under repair.
pub struct Disk {
    path: PathBuf,
    file: File,
    /// The superblock that is believed.
    pub sb: SuperBlock,
    /// Whether it is the spare one, because the first is damaged.
    pub from_spare: bool,
    seed: u32,
    changed: BTreeMap<u64, Vec<u8>>,
    /// Blocks the journal holds newer versions of.
    pub replayed: usize,
    written: bool,
}

fn read_super(file: &File, block: u64) -> Option<SuperBlock> {
    let mut bytes = [0; 1024];
    file.read_exact_at(&mut bytes, (block << BLOCK_BITS) + SUPER_OFFSET as u64)
        .ok()?;
    let sb = SuperBlock::read_from_bytes(&bytes).ok()?;
    (sb.magic == MAGIC && check_super(&sb).is_ok()).then_some(sb)
}

/// Blocks read at once when a spare superblock is looked for.
const WINDOW: u64 = 256;

/// The spare superblock: the last block of a file system that may be smaller than its device, so all
/// of it is looked through, from the end. An older file system may have left one too, but block 1 is
/// not of its family.
fn find_spare(file: &File, blocks: u64) -> Option<SuperBlock> {
    let mut second_best = None;
    let mut data = vec![0; WINDOW as usize * BLOCK_SIZE];
    let mut end = blocks;
    while end > 0 {
        let first = end.saturating_sub(WINDOW);
        let part = &mut data[..(end - first) as usize * BLOCK_SIZE];
        if file.read_exact_at(part, first << BLOCK_BITS).is_ok() {
            for (number, bytes) in part.chunks_exact(BLOCK_SIZE).enumerate().rev() {
                if bytes[SUPER_OFFSET..SUPER_OFFSET + MAGIC.len()] != MAGIC {
                    continue;
                }
                let block = first + number as u64;
                let found = read_super(file, block).filter(|sb| sb.blocks.get() == block + 1);
                match found {
                    Some(sb) if is_family(file, &sb) => return Some(sb),
                    found => second_best = second_best.or(found),
                }
            }
        }
        end = first;
    }
    second_best
}

/// Whether the first group block has this file system's checksum.
fn is_family(file: &File, sb: &SuperBlock) -> bool {
    let mut data = vec![0; BLOCK_SIZE];
    let seed = checksum::seed(&sb.uuid);
    file.read_exact_at(&mut data, BLOCK_SIZE as u64).is_ok()
        && Header::read_from_prefix(&data).is_ok_and(|(header, _)| {
            header.checksum.get() == checksum::record(seed, &data, HEADER_CHECKSUM)
        })
}

impl Disk {
    /// Opens a device; for writing it must not be mounted.
    ///
    /// # Errors
    /// [`Flaw`] if it cannot be opened or neither superblock is sound.
    pub fn open(path: &Path, write: bool) -> Result<Self, Flaw> {
        let device = |source| Flaw::Device {
            path: path.into(),
            source,
        };
        let file = open_device(path, write).map_err(device)?;
        let blocks = device_size(&file).map_err(device)? >> BLOCK_BITS;
        let first = read_super(&file, 0);
        let from_spare = first.is_none();
        let sb = first
            .or_else(|| find_spare(&file, blocks))
            .ok_or(Flaw::NoFileSystem(path.into()))?;
        Ok(Self {
            path: path.into(),
            file,
            seed: checksum::seed(&sb.uuid),
            sb,
            from_spare,
            changed: BTreeMap::new(),
            replayed: 0,
            written: false,
        })
    }

    /// The seed of this file system's checksums.
    #[must_use]
    pub fn seed(&self) -> u32 {
        self.seed
    }

    fn read_raw(&self, block: u64) -> Result<Vec<u8>, Flaw> {
        let mut data = vec![0; BLOCK_SIZE];
        self.file
            .read_exact_at(&mut data, block << BLOCK_BITS)
            .map_err(|source| Flaw::Device {
                path: self.path.clone(),
                source,
            })?;
        Ok(data)
    }

    /// Lays the journal's content over the disk.
    ///
    /// # Errors
    /// A sentence if the journal makes no sense.
    pub fn replay(&mut self) -> Result<(), journal::JournalError> {
        let start = self.sb.journal_start.get();
        let read = |place: u32| self.read_raw(start + u64::from(place));
        let found = journal::replay(&read, self.sb.journal_blocks.get())?;
        self.replayed = found.len();
        self.changed.extend(found);
        Ok(())
    }

    /// A block as it will be.
    ///
    /// # Errors
    /// [`Flaw::Device`], or [`Flaw::Block`] beyond the end.
    pub fn read(&self, block: u64) -> Result<Vec<u8>, Flaw> {
        if block >= self.sb.blocks.get() {
            return Err(Flaw::Block(block, "lies beyond the end of the file system"));
        }
        self.changed
            .get(&block)
            .cloned()
            .map_or_else(|| self.read_raw(block), Ok)
    }

    /// A block with a header, checked.
    ///
    /// # Errors
    /// [`Flaw::Block`] says what is wrong with it.
    pub fn read_checked(
        &self,
        block: u64,
        magic: u32,
        owner: u32,
        generation: u32,
    ) -> Result<Vec<u8>, Flaw> {
        let data = self.read(block)?;
        let wrong = |why| Err(Flaw::Block(block, why));
        let Ok((h, _)) = Header::ref_from_prefix(&data) else {
            return wrong("is too short");
        };
        if h.magic.get() != magic || h.block.get() != block {
            return wrong("is not the kind of block it should be");
        }
        if h.owner.get() != owner || h.generation.get() != generation {
            return wrong("belongs to another owner");
        }
        if h.checksum.get() != checksum::record(self.seed, &data, HEADER_CHECKSUM) {
            return wrong("has a wrong checksum");
        }
        Ok(data)
    }

    /// Puts a repaired block in place of what is there.
    pub fn write(&mut self, block: u64, data: Vec<u8>) {
        self.written = true;
        self.changed.insert(block, data);
    }

    /// As [`Disk::write`], with a fresh checksum in its header.
    pub fn write_sealed(&mut self, block: u64, mut data: Vec<u8>) {
        seal_block(self.seed, &mut data);
        self.write(block, data);
    }

    /// Both superblocks as they are on the disk: whether each is sound and says the same.
    #[must_use]
    pub fn spare_is_sound(&self) -> bool {
        let last = self.sb.blocks.get() - 1;
        read_super(&self.file, last)
            .is_some_and(|spare| spare.uuid == self.sb.uuid && spare.blocks == self.sb.blocks)
    }

    /// Writes everything home: journal and repairs, an empty journal, both superblocks.
    ///
    /// # Errors
    /// [`Flaw::Device`].
    pub fn commit(&mut self, state: u32) -> Result<(), Flaw> {
        let path = self.path.clone();
        let device = |source| Flaw::Device {
            path: path.clone(),
            source,
        };
        for (block, data) in &self.changed {
            self.file
                .write_all_at(data, block << BLOCK_BITS)
                .map_err(device)?;
        }
        self.file.sync_all().map_err(device)?;
        let start = self.sb.journal_start.get();
        let mut head = self.read_raw(start)?;
        journal::mark_empty(&mut head);
        self.file
            .write_all_at(&head, start << BLOCK_BITS)
            .map_err(device)?;
        self.sb.state = state.into();
        seal_super(&mut self.sb);
        for block in [self.sb.blocks.get() - 1, 0] {
            let at = (block << BLOCK_BITS) + SUPER_OFFSET as u64;
            self.file
                .write_all_at(self.sb.as_bytes(), at)
                .map_err(device)?;
        }
        self.file.sync_all().map_err(device)
    }

    /// Whether any repair was made.
    #[must_use]
    pub fn repaired(&self) -> bool {
        self.written
    }
}
