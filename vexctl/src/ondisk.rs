//! The on-disk structures, field for field as in `vexfs/vexfs_format.h`; `FORMAT.md` explains them.
#![allow(missing_docs)] // The fields are documented where the format is defined.

use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes in a block.
pub const BLOCK_SIZE: usize = 4096;
/// `log2` of [`BLOCK_SIZE`].
pub const BLOCK_BITS: u32 = 12;
/// Where the superblock lies in the first and in the last block, bytes.
pub const SUPER_OFFSET: usize = 1024;
/// Blocks in a group.
pub const GROUP_BLOCKS: u64 = 24576;
/// Most inodes a group can have.
pub const GROUP_INODES_MAX: u32 = 7680;
/// Bytes in an inode.
pub const INODE_SIZE: usize = 256;
/// Inodes in a block of the table.
pub const INODES_PER_BLOCK: u32 = 16;
/// The root directory's number.
pub const ROOT_INO: u32 = 2;
/// The first number a file can have.
pub const FIRST_INO: u32 = 17;

pub const MAGIC: [u8; 8] = *b"VexFS\0\0\0";
pub const VERSION: u32 = 1;

pub const COMPAT_XATTR: u32 = 1;
pub const RO_COMPAT_VECTORS: u32 = 1;
pub const INCOMPAT_JOURNAL: u32 = 1;
pub const STATE_CLEAN: u32 = 1;
pub const STATE_ERRORS: u32 = 2;

pub const GROUP_MAGIC: u32 = 0x5052_4756;
pub const EXTENT_MAGIC: u32 = 0x5458_4556;
pub const DIR_MAGIC: u32 = 0x5249_4456;
pub const LINK_MAGIC: u32 = 0x4b4e_4c56;
pub const XATTR_MAGIC: u32 = 0x5254_4156;
pub const VECTOR_MAGIC: u32 = 0x4345_5656;

pub const EXTENT_UNWRITTEN: u32 = 0x8000_0000;
pub const ROOT_EXTENTS: usize = 7;
pub const NODE_EXTENTS: usize = 254;
pub const MAX_LEVEL: u16 = 5;
pub const INLINE_LINK: usize = ROOT_EXTENTS * 16 - 1;
pub const ORPHAN_FL: u32 = 1;
pub const KEEP_FL: u32 = 2;
pub const VECTOR_DIMS_MAX: u16 = 4096;
pub const VECTOR_FLOATS: usize = 1010;

/// The checksum's place in [`SuperBlock`].
pub const SUPER_CHECKSUM: usize = offset_of!(SuperBlock, checksum);
/// The checksum's place in every block that begins with a [`Header`].
pub const HEADER_CHECKSUM: usize = offset_of!(Header, checksum);
/// The checksum's place in [`Inode`].
pub const INODE_CHECKSUM: usize = offset_of!(Inode, checksum);

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SuperBlock {
    pub magic: [u8; 8],
    pub checksum: U32,
    pub version: U32,
    pub compat: U32,
    pub ro_compat: U32,
    pub incompat: U32,
    pub block_bits: U32,
    pub uuid: [u8; 16],
    pub label: [u8; 32],
    pub blocks: U64,
    pub groups: U32,
    pub group_blocks: U32,
    pub group_inodes: U32,
    pub inode_size: U32,
    pub journal_start: U64,
    pub journal_blocks: U32,
    pub state: U32,
    pub mkfs_time: U64,
    pub mount_time: U64,
    pub write_time: U64,
    pub mount_count: U32,
    pub error_count: U32,
    pub error_time: U64,
    pub error_block: U64,
    pub reserved_blocks: U32,
    pub reserved: [u8; 852],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    pub magic: U32,
    pub checksum: U32,
    pub block: U64,
    pub owner: U32,
    pub generation: U32,
    pub count: U16,
    pub level: U16,
    pub reserved: U32,
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Group {
    pub h: Header,
    pub free_blocks: U32,
    pub free_inodes: U32,
    pub directories: U32,
    pub orphans: U32,
    pub inodes_ready: U32,
    pub vectors: U32,
    pub reserved: [U32; 2],
    pub inode_map: [u8; GROUP_INODES_MAX as usize / 8],
    pub block_map: [u8; GROUP_BLOCKS as usize / 8],
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Extent {
    pub block: U32,
    pub length: U32,
    pub start: U64,
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Inode {
    pub mode: U16,
    pub extent_count: U16,
    pub links: U32,
    pub uid: U32,
    pub gid: U32,
    pub size: U64,
    pub blocks: U64,
    pub atime: U64,
    pub mtime: U64,
    pub ctime: U64,
    pub btime: U64,
    pub atime_nsec: U32,
    pub mtime_nsec: U32,
    pub ctime_nsec: U32,
    pub btime_nsec: U32,
    pub generation: U32,
    pub flags: U32,
    pub rdev: U32,
    pub parent: U32,
    pub xattr_block: U64,
    pub vector_block: U64,
    pub root: [Extent; ROOT_EXTENTS],
    pub extent_level: U16,
    pub vector_dims: U16,
    pub reserved: [U32; 6],
    pub checksum: U32,
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DirentHead {
    pub ino: U32,
    pub rec_len: U16,
    pub name_len: u8,
    pub kind: u8,
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct XattrHead {
    pub index: u8,
    pub name_len: u8,
    pub value_len: U16,
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VectorBlock {
    pub h: Header,
    pub dims: U32,
    pub reserved: U32,
    pub blocks: [U32; 4],
    pub data: [U32; VECTOR_FLOATS],
}

// The C side asserts the same numbers in vexfs_check_layout().
const _: () = {
    assert!(size_of::<SuperBlock>() == 1024);
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<Group>() == BLOCK_SIZE);
    assert!(offset_of!(Group, block_map) == 1024);
    assert!(size_of::<Extent>() == 16);
    assert!(size_of::<Inode>() == INODE_SIZE);
    assert!(offset_of!(Inode, root) == 112);
    assert!(size_of::<DirentHead>() == 8);
    assert!(size_of::<XattrHead>() == 4);
    assert!(size_of::<VectorBlock>() == BLOCK_SIZE);
    assert!(size_of::<Header>() + NODE_EXTENTS * 16 == BLOCK_SIZE);
};

/// The block that describes `group`.
#[must_use]
pub fn group_block(group: u32) -> u64 {
    u64::from(group) * GROUP_BLOCKS + 1
}
