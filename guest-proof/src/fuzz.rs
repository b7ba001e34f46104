//! Damaged file systems, one after the other: each is mounted, walked, changed and unmounted again.
//! Errors are fine; an oops, a warning, a hang or a file system that cannot be unmounted is not.
//!
//! Of two sound file systems, one clean and one as a power cut would leave it, copies are damaged in
//! memory: bytes of metadata change, half of the time with a checksum that fits again, for otherwise
//! nothing but the checksum would ever be tried.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vexctl::checksum;
use vexctl::mkfs::{seal_block, seal_inode, seal_super};
use vexctl::ondisk::{
    BLOCK_SIZE, DIR_MAGIC, EXTENT_MAGIC, GROUP_MAGIC, Header, INODE_SIZE, Inode, LINK_MAGIC,
    SUPER_OFFSET, SuperBlock, VECTOR_MAGIC, XATTR_MAGIC,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::exercise::Seen;
use crate::model::random;

/// Which damaged file systems to try, and where.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device they are put on; what is on it is lost.
    device: PathBuf,
    /// Where they are mounted.
    dir: PathBuf,
    /// The file system's type.
    #[arg(long, default_value = "vexfs")]
    fstype: String,
    /// A file with a sound, clean file system.
    #[arg(long)]
    clean: PathBuf,
    /// A file with a sound file system whose journal is to be replayed.
    #[arg(long)]
    dirty: PathBuf,
    /// All randomness follows from it.
    #[arg(long)]
    seed: u64,
    /// Number of the first.
    #[arg(long)]
    from: u64,
    /// How many.
    #[arg(long)]
    count: u64,
}

/// Tries them; the number of each goes into the kernel log before it is mounted, so that what hangs is known. Stops
/// at the first that the kernel complains about in its taint, and leaves it on the device.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let sound = [read(&args.clean)?, read(&args.dirty)?];
    let targets = [targets(&sound[0])?, targets(&sound[1])?];
    let before = taint()?;
    let (mut mounted, mut operations, mut errors) = (0, 0, 0);
    for number in args.from..args.from + args.count {
        let mut rng = random(args.seed, &[7, number]);
        let which = usize::from(rng.u32(..3) == 0);
        let (image, said) = damaged(&sound[which], &targets[which], &mut rng);
        println!("{number}: {said}");
        // At level debug, which no console shows: with what the kernel says of it, should that hang.
        fs::write("/dev/kmsg", format!("<7>proof: image {number}: {said}\n")).unwrap_or_default();
        put(&args.device, &image)?;
        if let Some(seen) = one(args, &mut rng)? {
            mounted += 1;
            operations += seen.operations;
            errors += seen.errors;
        }
        let now = taint()?;
        if now != before {
            println!("image {number}: the kernel's taint went from {before} to {now}");
            return Ok(false);
        }
    }
    println!(
        "{} images, {mounted} mounted, {operations} operations, {errors} errors",
        args.count
    );
    Ok(true)
}

/// Mounts what is on the device, uses it, and unmounts it; `None` when it does not mount.
fn one(args: &Args, rng: &mut fastrand::Rng) -> anyhow::Result<Option<Seen>> {
    let options = match rng.bool() {
        true => "errors=continue",
        false => "errors=remount-ro",
    };
    let options = CString::new(options)?;
    let (flags, data) = (MountFlags::empty(), Some(options.as_c_str()));
    if mount(&args.device, &args.dir, args.fstype.as_str(), flags, data).is_err() {
        return Ok(None);
    }
    let mut seen = Seen::default();
    seen.walk(&args.dir, 0);
    seen.change(&args.dir, rng);
    let before = seen.files.len();
    // Once more without what memory still knows.
    fs::write("/proc/sys/vm/drop_caches", "2")?;
    seen.files.clear();
    seen.dirs.clear();
    seen.walk(&args.dir, 0);
    seen.operations += before as u64;
    unmount(&args.dir, UnmountFlags::empty()).context("it cannot be unmounted")?;
    Ok(Some(seen))
}

fn taint() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/tainted").context("cannot read the taint")?;
    Ok(text.trim().to_owned())
}

/// Puts an image on the device, past the page cache.
fn put(device: &Path, image: &[u8]) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(device)
        .with_context(|| format!("cannot open {}", device.display()))?;
    let mut room = vec![0; image.len() + BLOCK_SIZE];
    let at = room.as_ptr().align_offset(BLOCK_SIZE);
    room[at..at + image.len()].copy_from_slice(image);
    file.write_all_at(&room[at..at + image.len()], 0)
        .context("cannot write the image")
}

/// What a block is to the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Super,
    /// A block with a header, by its magic.
    Headed(u32),
    /// Inodes, with the number of the first.
    Table(u32),
    Journal,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Super => "superblock",
            Kind::Headed(GROUP_MAGIC) => "group",
            Kind::Headed(EXTENT_MAGIC) => "extents",
            Kind::Headed(DIR_MAGIC) => "directory",
            Kind::Headed(LINK_MAGIC) => "symlink",
            Kind::Headed(XATTR_MAGIC) => "attributes",
            Kind::Headed(_) => "vector",
            Kind::Table(_) => "inodes",
            Kind::Journal => "journal",
        }
    }
}

/// The metadata blocks of an image, by kind.
fn targets(image: &[u8]) -> anyhow::Result<Vec<(Kind, Vec<u64>)>> {
    let (super_block, _) = SuperBlock::ref_from_prefix(&image[SUPER_OFFSET..])
        .ok()
        .context("the image is too small")?;
    let journal = super_block.journal_start.get();
    let journal = journal..journal + u64::from(super_block.journal_blocks.get());
    let table = 2..2 + u64::from(super_block.group_inodes.get()) / 16;
    let mut found: Vec<(Kind, Vec<u64>)> = vec![(Kind::Super, vec![0])];
    for (number, block) in (1..).zip(image[BLOCK_SIZE..].chunks_exact(BLOCK_SIZE)) {
        let kind = if journal.contains(&number) {
            (number == journal.start || block.iter().any(|b| *b != 0)).then_some(Kind::Journal)
        } else if table.contains(&number) {
            let first = u32::try_from(number - table.start)? * 16 + 1;
            block.iter().any(|b| *b != 0).then_some(Kind::Table(first))
        } else {
            headed(block, number)
        };
        let Some(kind) = kind else { continue };
        match found.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, blocks)) => blocks.push(number),
            None => found.push((kind, vec![number])),
        }
    }
    if found.len() < 6 {
        bail!("the sound file system has too little in it: {found:?}");
    }
    Ok(found)
}

fn headed(block: &[u8], number: u64) -> Option<Kind> {
    let (header, _) = Header::ref_from_prefix(block).ok()?;
    let magic = header.magic.get();
    let known = [
        GROUP_MAGIC,
        EXTENT_MAGIC,
        DIR_MAGIC,
        LINK_MAGIC,
        XATTR_MAGIC,
        VECTOR_MAGIC,
    ];
    (known.contains(&magic) && header.block.get() == number).then_some(Kind::Headed(magic))
}

/// A copy with some of its metadata changed, and what that was.
fn damaged(
    sound: &[u8],
    targets: &[(Kind, Vec<u64>)],
    rng: &mut fastrand::Rng,
) -> (Vec<u8>, String) {
    let mut image = sound.to_vec();
    let seed = SuperBlock::ref_from_prefix(&image[SUPER_OFFSET..])
        .map_or(0, |(super_block, _)| checksum::seed(&super_block.uuid));
    let mut said = Vec::new();
    for _ in 0..rng.usize(1..=3) {
        // First a kind: otherwise it would be inodes nearly always.
        let (kind, blocks) = &targets[rng.usize(..targets.len())];
        let block = blocks[rng.usize(..blocks.len())];
        let at = usize::try_from(block).unwrap_or(0) * BLOCK_SIZE;
        let data = &mut image[at..at + BLOCK_SIZE];
        let fits = rng.bool();
        change(*kind, data, rng);
        if fits {
            seal(*kind, data, seed);
        }
        let how = if fits { "" } else { ", checksum wrong" };
        said.push(format!("{} in block {block}{how}", kind.name()));
    }
    (image, said.join("; "))
}

/// Changes some bytes of a block, more often where there is something.
fn change(kind: Kind, data: &mut [u8], rng: &mut fastrand::Rng) {
    let range = match kind {
        Kind::Super => SUPER_OFFSET..SUPER_OFFSET + 172,
        _ => 0..data.len(),
    };
    for _ in 0..rng.usize(1..=6) {
        let mut at = rng.usize(range.clone());
        for _ in 0..20 {
            if data[at] != 0 {
                break;
            }
            at = rng.usize(range.clone());
        }
        match rng.u32(..5) {
            0 => data[at] ^= 1 << rng.u32(..8),
            1 => data[at] = 0xff,
            2 => data[at] = 0,
            // A whole field of it.
            3 => {
                let end = (at + 4).min(range.end);
                rng.fill(&mut data[at & !3..end]);
            }
            _ => data[at] = rng.u8(..),
        }
    }
}

/// Makes the checksums of a block fit.
fn seal(kind: Kind, data: &mut [u8], seed: u32) {
    match kind {
        Kind::Super => {
            if let Ok((super_block, _)) = SuperBlock::mut_from_prefix(&mut data[SUPER_OFFSET..]) {
                seal_super(super_block);
            }
        }
        Kind::Headed(_) => seal_block(seed, data),
        Kind::Table(first) => {
            for (ino, slot) in (first..).zip(data.chunks_exact_mut(INODE_SIZE)) {
                if let Ok(inode) = Inode::mut_from_bytes(slot)
                    && inode.as_bytes().iter().any(|b| *b != 0)
                {
                    seal_inode(seed, ino, inode);
                }
            }
        }
        // Its checksums are jbd2's; a block of it whose sum is wrong is not replayed.
        Kind::Journal => {}
    }
}
