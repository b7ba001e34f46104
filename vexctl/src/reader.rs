//! Reading names and files straight from the disk, journal included: for debugging, and for checks
//! that must not trust the kernel.

use crate::fsck::Disk;
use crate::image::Flaw;
use crate::ondisk::{
    BLOCK_SIZE, DIR_MAGIC, DirentHead, EXTENT_MAGIC, EXTENT_UNWRITTEN, Extent, GROUP_BLOCKS,
    Header, INLINE_LINK, INODE_SIZE, INODES_PER_BLOCK, Inode, LINK_MAGIC, ROOT_INO,
};
use zerocopy::{FromBytes, IntoBytes};

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Inode number.
    pub ino: u32,
    /// `DT_*` of `dirent.h`.
    pub kind: u8,
    /// The name's bytes.
    pub name: Vec<u8>,
}

/// A run of blocks: first block in the file, length, first block on the disk, never written.
pub type Run = (u64, u64, u64, bool);

/// Reads inode `ino`.
///
/// # Errors
/// [`Flaw`] if it cannot be read or is not in use.
pub fn inode(disk: &Disk, ino: u32) -> Result<Inode, Flaw> {
    let per_group = disk.sb.group_inodes.get();
    if ino == 0 || (ino - 1) / per_group >= disk.sb.groups.get() {
        return Err(Flaw::Block(0, "has no such inode"));
    }
    let (group, index) = ((ino - 1) / per_group, (ino - 1) % per_group);
    let block = u64::from(group) * GROUP_BLOCKS + 2 + u64::from(index / INODES_PER_BLOCK);
    let at = (index % INODES_PER_BLOCK) as usize * INODE_SIZE;
    let data = disk.read(block)?;
    match Inode::read_from_bytes(&data[at..at + INODE_SIZE]) {
        Ok(inode) if inode.mode.get() != 0 => Ok(inode),
        _ => Err(Flaw::Block(block, "holds no inode there")),
    }
}

fn add_runs(
    disk: &Disk,
    ino: u32,
    generation: u32,
    level: u16,
    entries: &[Extent],
    runs: &mut Vec<Run>,
) -> Result<(), Flaw> {
    for entry in entries {
        let start = entry.start.get();
        if level == 0 {
            let length = entry.length.get();
            let plain = u64::from(length & !EXTENT_UNWRITTEN);
            runs.push((
                entry.block.get().into(),
                plain,
                start,
                length & EXTENT_UNWRITTEN != 0,
            ));
            continue;
        }
        let data = disk.read_checked(start, EXTENT_MAGIC, ino, generation)?;
        let count = Header::ref_from_prefix(&data).map_or(0, |(h, _)| usize::from(h.count.get()));
        let end = (32 + count * 16).min(BLOCK_SIZE);
        let children: Vec<Extent> = data[32..end]
            .chunks_exact(16)
            .filter_map(|bytes| Extent::read_from_bytes(bytes).ok())
            .collect();
        add_runs(disk, ino, generation, level - 1, &children, runs)?;
    }
    Ok(())
}

/// The runs of an inode, in order.
///
/// # Errors
/// [`Flaw`] if its tree is damaged.
pub fn runs(disk: &Disk, ino: u32, inode: &Inode) -> Result<Vec<Run>, Flaw> {
    let mut runs = Vec::new();
    let count = usize::from(inode.extent_count.get()).min(inode.root.len());
    let level = inode.extent_level.get().min(crate::ondisk::MAX_LEVEL);
    add_runs(
        disk,
        ino,
        inode.generation.get(),
        level,
        &inode.root[..count],
        &mut runs,
    )?;
    Ok(runs)
}

/// The content of a regular file; holes and blocks never written read as zeroes.
///
/// # Errors
/// [`Flaw`] if something on the way is damaged.
pub fn content(disk: &Disk, ino: u32, inode: &Inode) -> Result<Vec<u8>, Flaw> {
    let size = usize::try_from(inode.size.get()).unwrap_or(usize::MAX);
    let mut data = vec![0; size];
    for (first, length, start, unwritten) in runs(disk, ino, inode)? {
        for n in (0..length).filter(|_| !unwritten) {
            let at = usize::try_from((first + n) * BLOCK_SIZE as u64).unwrap_or(usize::MAX);
            if at >= size {
                break;
            }
            let part = (size - at).min(BLOCK_SIZE);
            data[at..at + part].copy_from_slice(&disk.read(start + n)?[..part]);
        }
    }
    Ok(data)
}

/// The names in a directory.
///
/// # Errors
/// [`Flaw`] if something on the way is damaged.
pub fn names(disk: &Disk, ino: u32, inode: &Inode) -> Result<Vec<Name>, Flaw> {
    let mut names = Vec::new();
    for (_, length, start, _) in runs(disk, ino, inode)? {
        for block in start..start + length {
            let data = disk.read_checked(block, DIR_MAGIC, ino, inode.generation.get())?;
            let mut at = 32;
            while let Some(Ok((head, rest))) = data.get(at..).map(DirentHead::ref_from_prefix) {
                let step = usize::from(head.rec_len.get());
                let name = rest.get(..usize::from(head.name_len));
                let (Some(name), true) = (name, step >= 16) else {
                    break;
                };
                if head.ino.get() != 0 {
                    names.push(Name {
                        ino: head.ino.get(),
                        kind: head.kind,
                        name: name.to_vec(),
                    });
                }
                at += step;
            }
        }
    }
    Ok(names)
}

/// Where a symbolic link points to.
///
/// # Errors
/// [`Flaw`] if something on the way is damaged.
pub fn link(disk: &Disk, ino: u32, inode: &Inode) -> Result<Vec<u8>, Flaw> {
    let size = usize::try_from(inode.size.get())
        .unwrap_or(usize::MAX)
        .min(4096);
    if size <= INLINE_LINK {
        return Ok(inode.root.as_bytes()[..size].to_vec());
    }
    let mut target = Vec::new();
    for (_, length, start, _) in runs(disk, ino, inode)? {
        for block in start..start + length {
            let data = disk.read_checked(block, LINK_MAGIC, ino, inode.generation.get())?;
            target.extend_from_slice(&data[32..]);
        }
    }
    target.truncate(size);
    Ok(target)
}

/// The inode at `path`, which begins at the root; symbolic links are not followed.
///
/// # Errors
/// [`Flaw`] if a part is missing or damaged.
pub fn resolve(disk: &Disk, path: &str) -> Result<u32, Flaw> {
    let mut ino = ROOT_INO;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let dir = inode(disk, ino)?;
        let found = names(disk, ino, &dir)?
            .into_iter()
            .find(|n| n.name == part.as_bytes());
        ino = found.ok_or(Flaw::Block(0, "holds no such name"))?.ino;
    }
    Ok(ino)
}
