//! Reading a file system that may be damaged: every block is checked before it is believed.

use crate::checksum;
use crate::geometry::Geometry;
use crate::ondisk::{
    BLOCK_BITS, BLOCK_SIZE, GROUP_MAGIC, Group, HEADER_CHECKSUM, Header, MAGIC, SUPER_CHECKSUM,
    SUPER_OFFSET, SuperBlock, VERSION, group_block,
};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zerocopy::{FromBytes, IntoBytes};

/// Why something on the disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The device cannot be opened, read or written.
    #[error("{path}: {source}: check the name and that you may use it")]
    Device {
        /// The device or image file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No superblock.
    #[error("{0} holds no VexFS: make one with `mkfs.vexfs {0}`")]
    NoFileSystem(PathBuf),
    /// A superblock that cannot be trusted.
    #[error("the superblock of {0} {1}: `fsck.vexfs -y {0}` tries the spare one")]
    Super(PathBuf, &'static str),
    /// A block that cannot be trusted.
    #[error("block {0} {1}")]
    Block(u64, &'static str),
}

/// An opened device or image file with a sound superblock.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    super_block: SuperBlock,
    seed: u32,
}

impl std::fmt::Debug for SuperBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SuperBlock({:02x?})", self.uuid)
    }
}

/// Bytes of a device or an image file.
///
/// # Errors
/// Whatever the system says.
pub fn device_size(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    let size = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(size)
}

/// Opens a device or an image file; for writing a block device is claimed, so that a mounted one
/// is refused (open(2), `O_EXCL` on block devices).
///
/// # Errors
/// Whatever the system says; "busy" for a mounted device.
pub fn open_device(path: &Path, write: bool) -> io::Result<File> {
    use std::os::unix::fs::FileTypeExt;
    let block_device = path.metadata()?.file_type().is_block_device();
    let exclusive = if write && block_device {
        nix::libc::O_EXCL
    } else {
        0
    };
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(exclusive)
        .open(path)
}

/// What is wrong with a superblock, if anything.
///
/// # Errors
/// The flaw, as the end of a sentence that begins with "the superblock".
pub fn check_super(s: &SuperBlock) -> Result<(), &'static str> {
    if s.checksum.get() != checksum::record(!0, s.as_bytes(), SUPER_CHECKSUM) {
        return Err("has a wrong checksum");
    }
    if s.version.get() != VERSION || s.block_bits.get() != BLOCK_BITS {
        return Err("is of a version this program does not know");
    }
    if s.groups.get() == 0 || s.group_inodes.get() == 0 || s.blocks.get() < 64 {
        return Err("has an impossible shape");
    }
    Ok(())
}

impl Image {
    /// Opens `path` and checks its superblock.
    ///
    /// # Errors
    /// [`Flaw`] if it cannot be opened or holds no sound VexFS.
    pub fn open(path: &Path, write: bool) -> Result<Self, Flaw> {
        let device = |source| Flaw::Device {
            path: path.into(),
            source,
        };
        let file = open_device(path, write).map_err(device)?;
        let mut block = [0; 1024];
        match file.read_exact_at(&mut block, SUPER_OFFSET as u64) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Flaw::NoFileSystem(path.into()));
            }
            other => other.map_err(device)?,
        }
        let super_block = SuperBlock::read_from_bytes(&block)
            .map_err(|_| Flaw::Super(path.into(), "cannot be read"))?;
        if super_block.magic != MAGIC {
            return Err(Flaw::NoFileSystem(path.into()));
        }
        check_super(&super_block).map_err(|why| Flaw::Super(path.into(), why))?;
        let seed = checksum::seed(&super_block.uuid);
        Ok(Self {
            path: path.into(),
            file,
            super_block,
            seed,
        })
    }

    /// The superblock.
    #[must_use]
    pub fn super_block(&self) -> &SuperBlock {
        &self.super_block
    }

    /// The layout.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        let s = &self.super_block;
        Geometry {
            blocks: s.blocks.get(),
            groups: s.groups.get(),
            group_inodes: s.group_inodes.get(),
            journal_start: s.journal_start.get(),
            journal_blocks: s.journal_blocks.get(),
            reserved_blocks: s.reserved_blocks.get(),
        }
    }

    /// The label, without its padding.
    #[must_use]
    pub fn label(&self) -> String {
        let end = self
            .super_block
            .label
            .iter()
            .position(|&b| b == 0)
            .unwrap_or(32);
        String::from_utf8_lossy(&self.super_block.label[..end]).into_owned()
    }

    /// The UUID as text.
    #[must_use]
    pub fn uuid(&self) -> String {
        format_uuid(&self.super_block.uuid)
    }

    /// Reads a block without judging it.
    ///
    /// # Errors
    /// [`Flaw::Device`].
    pub fn read(&self, block: u64) -> Result<Vec<u8>, Flaw> {
        let mut data = vec![0; BLOCK_SIZE];
        self.file
            .read_exact_at(&mut data, block << BLOCK_BITS)
            .map_err(|source| Flaw::Device {
                path: self.path.clone(),
                source,
            })?;
        Ok(data)
    }

    /// Reads a block that begins with a header and checks kind, place, owner and checksum.
    ///
    /// # Errors
    /// [`Flaw::Block`] says which of them is wrong.
    pub fn read_checked(&self, block: u64, magic: u32, owner: u32) -> Result<Vec<u8>, Flaw> {
        if block >= self.super_block.blocks.get() {
            return Err(Flaw::Block(block, "lies beyond the end of the file system"));
        }
        let data = self.read(block)?;
        let (header, _) = Header::ref_from_prefix(&data)
            .map_err(|_| Flaw::Block(block, "is too short for its header"))?;
        if header.magic.get() != magic || header.block.get() != block {
            return Err(Flaw::Block(block, "is not the kind of block it should be"));
        }
        if header.owner.get() != owner {
            return Err(Flaw::Block(block, "belongs to another owner"));
        }
        if header.checksum.get() != checksum::record(self.seed, &data, HEADER_CHECKSUM) {
            return Err(Flaw::Block(block, "has a wrong checksum"));
        }
        Ok(data)
    }

    /// Reads the block that describes `group`.
    ///
    /// # Errors
    /// As [`Image::read_checked`].
    pub fn group(&self, group: u32) -> Result<Group, Flaw> {
        let block = group_block(group);
        let data = self.read_checked(block, GROUP_MAGIC, group)?;
        Group::read_from_bytes(&data).map_err(|_| Flaw::Block(block, "is too short"))
    }
}

/// The usual form of a UUID.
#[must_use]
pub fn format_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The bytes of a UUID in its usual form.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut uuid = [0; 16];
    for (i, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(uuid)
}
