//! Writing an empty file system.

use crate::checksum;
use crate::geometry::Geometry;
use crate::ondisk::{
    BLOCK_BITS, BLOCK_SIZE, COMPAT_XATTR, FIRST_INO, GROUP_BLOCKS, GROUP_INODES_MAX, GROUP_MAGIC,
    Group, HEADER_CHECKSUM, INCOMPAT_JOURNAL, INODE_CHECKSUM, INODE_SIZE, INODES_PER_BLOCK, Inode,
    MAGIC, RO_COMPAT_VECTORS, ROOT_INO, STATE_CLEAN, SUPER_CHECKSUM, SUPER_OFFSET, SuperBlock,
    VERSION, group_block,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use zerocopy::{FromZeros, IntoBytes};

/// What the new file system is to be called, and when it was made.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Any 16 bytes that nobody else has.
    pub uuid: [u8; 16],
    /// At most 32 bytes.
    pub label: String,
    /// Seconds since 1970, for the superblock and the root directory.
    pub time: u64,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
}

fn set_bits(map: &mut [u8], from: u64, to: u64) {
    for bit in from..to {
        map[usize::try_from(bit / 8).unwrap_or(usize::MAX)] |= 1 << (bit % 8);
    }
}

fn count_clear(map: &[u8]) -> u32 {
    map.iter().map(|byte| byte.count_zeros()).sum()
}

/// Gives a block with a header its checksum.
pub fn seal_block(seed: u32, block: &mut [u8]) {
    let sum = checksum::record(seed, block, HEADER_CHECKSUM);
    block[HEADER_CHECKSUM..HEADER_CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Gives an inode its checksum.
pub fn seal_inode(seed: u32, ino: u32, inode: &mut Inode) {
    let seed = checksum::crc32c(seed, &ino.to_le_bytes());
    inode.checksum = checksum::record(seed, inode.as_bytes(), INODE_CHECKSUM).into();
}

/// Gives the superblock its checksum.
pub fn seal_super(super_block: &mut SuperBlock) {
    super_block.checksum = checksum::record(!0, super_block.as_bytes(), SUPER_CHECKSUM).into();
}

/// The superblock of an empty file system.
#[must_use]
pub fn super_block(g: &Geometry, id: &Identity) -> SuperBlock {
    let mut s = SuperBlock::new_zeroed();
    s.magic = MAGIC;
    s.version = VERSION.into();
    s.compat = COMPAT_XATTR.into();
    s.ro_compat = RO_COMPAT_VECTORS.into();
    s.incompat = INCOMPAT_JOURNAL.into();
    s.block_bits = BLOCK_BITS.into();
    s.uuid = id.uuid;
    s.label[..id.label.len()].copy_from_slice(id.label.as_bytes());
    s.blocks = g.blocks.into();
    s.groups = g.groups.into();
    s.group_blocks = u32::try_from(GROUP_BLOCKS).unwrap_or(u32::MAX).into();
    s.group_inodes = g.group_inodes.into();
    s.inode_size = u32::try_from(INODE_SIZE).unwrap_or(u32::MAX).into();
    s.journal_start = g.journal_start.into();
    s.journal_blocks = g.journal_blocks.into();
    s.state = STATE_CLEAN.into();
    s.mkfs_time = id.time.into();
    s.write_time = id.time.into();
    s.reserved_blocks = g.reserved_blocks.into();
    seal_super(&mut s);
    s
}

/// The block that describes an empty group.
#[must_use]
pub fn group(g: &Geometry, seed: u32, number: u32) -> Group {
    let mut group = Group::new_zeroed();
    group.h.magic = GROUP_MAGIC.into();
    group.h.block = group_block(number).into();
    group.h.owner = number.into();
    set_bits(&mut group.block_map, 0, g.fixed_blocks());
    set_bits(&mut group.block_map, g.group_size(number), GROUP_BLOCKS);
    set_bits(
        &mut group.inode_map,
        g.group_inodes.into(),
        GROUP_INODES_MAX.into(),
    );
    if number == 0 {
        let journal = g.journal_start;
        set_bits(
            &mut group.block_map,
            journal,
            journal + u64::from(g.journal_blocks),
        );
        set_bits(&mut group.inode_map, 0, u64::from(FIRST_INO) - 1);
        group.directories = 1.into();
        group.inodes_ready = INODES_PER_BLOCK.into();
    }
    group.free_blocks = count_clear(&group.block_map).into();
    group.free_inodes = count_clear(&group.inode_map).into();
    seal_block(seed, group.as_mut_bytes());
    group
}

/// The root directory: empty, so without a block.
#[must_use]
pub fn root_inode(seed: u32, id: &Identity) -> Inode {
    let mut inode = Inode::new_zeroed();
    inode.mode = 0o040_755.into();
    inode.links = 2.into();
    inode.uid = id.uid.into();
    inode.gid = id.gid.into();
    for time in [
        &mut inode.atime,
        &mut inode.mtime,
        &mut inode.ctime,
        &mut inode.btime,
    ] {
        *time = id.time.into();
    }
    inode.parent = ROOT_INO.into();
    seal_inode(seed, ROOT_INO, &mut inode);
    inode
}

/// An empty jbd2 journal's superblock, version 2 (big-endian; Linux `include/linux/jbd2.h`).
#[must_use]
pub fn journal_super(g: &Geometry, id: &Identity) -> Vec<u8> {
    const WORDS: [(usize, u32); 4] = [(0, 0xc03b_3998), (4, 4), (20, 1), (24, 1)];
    let mut block = vec![0; BLOCK_SIZE];
    let mut put = |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_be_bytes());
    for (at, value) in WORDS {
        put(at, value); // magic, type, first log block, first sequence
    }
    put(12, u32::try_from(BLOCK_SIZE).unwrap_or(u32::MAX));
    put(16, g.journal_blocks);
    put(64, 1); // users
    block[48..64].copy_from_slice(&id.uuid);
    block
}

/// Writes an empty file system over whatever `disk` holds. The superblock comes last, so that an
/// interrupted run leaves nothing that mounts.
///
/// # Errors
/// Whatever the disk refuses.
pub fn write(disk: &File, g: &Geometry, id: &Identity) -> io::Result<()> {
    let seed = checksum::seed(&id.uuid);
    let at = |block: u64| block << BLOCK_BITS;
    // Signatures of what was here before must not outlive it: libblkid looks at both ends.
    disk.write_all_at(&vec![0; 128 << 10], 0)?;
    disk.write_all_at(&vec![0; 16 * BLOCK_SIZE], at(g.blocks - 16))?;
    disk.sync_all()?;
    for number in 0..g.groups {
        disk.write_all_at(group(g, seed, number).as_bytes(), at(group_block(number)))?;
    }
    let mut table = vec![0; BLOCK_SIZE];
    let slot = INODE_SIZE * (ROOT_INO as usize - 1);
    table[slot..slot + INODE_SIZE].copy_from_slice(root_inode(seed, id).as_bytes());
    disk.write_all_at(&table, at(2))?;
    disk.write_all_at(&journal_super(g, id), at(g.journal_start))?;
    let super_block = super_block(g, id);
    let mut block = vec![0; BLOCK_SIZE];
    block[SUPER_OFFSET..SUPER_OFFSET + 1024].copy_from_slice(super_block.as_bytes());
    disk.write_all_at(&block, at(g.blocks - 1))?;
    disk.sync_all()?;
    disk.write_all_at(&block, 0)?;
    disk.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Wishes;
    use crate::image::Image;

    #[test]
    fn what_is_written_reads_back_sound() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(300 << 20).unwrap();
        let g = Geometry::of(300 << 20, Wishes::default()).unwrap();
        let id = Identity {
            uuid: [5; 16],
            label: "probe".into(),
            time: 1_700_000_000,
            uid: 0,
            gid: 0,
        };
        write(file.as_file(), &g, &id).unwrap();
        let image = Image::open(file.path(), false).unwrap();
        assert_eq!(image.label(), "probe");
        assert_eq!(image.geometry(), g);
        for number in 0..g.groups {
            let group = image.group(number).unwrap();
            assert!(group.free_blocks.get() > 0);
        }
        // One flipped bit is seen.
        file.as_file()
            .write_all_at(&[0x55], (group_block(1) << BLOCK_BITS) + 2000)
            .unwrap();
        assert!(image.group(1).is_err());
        file.as_file().write_all_at(&[0x55], 1100).unwrap();
        assert!(Image::open(file.path(), false).is_err());
    }
}
