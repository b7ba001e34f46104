//! `vexctl dump`: what lies on the disk, without the kernel.

use super::{Format, print_json};
use anyhow::Context;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use vexctl::fsck::Disk;
use vexctl::ondisk::{
    DIR_MAGIC, EXTENT_MAGIC, GROUP_MAGIC, Header, LINK_MAGIC, VECTOR_MAGIC, XATTR_MAGIC,
};
use vexctl::reader;
use zerocopy::FromBytes;

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Block device or image file.
    device: PathBuf,
    /// The inode at this path, from the file system's root.
    #[arg(long, conflicts_with_all = ["inode", "block"])]
    path: Option<String>,
    /// The inode of this number.
    #[arg(long, conflicts_with = "block")]
    inode: Option<u32>,
    /// The block of this number.
    #[arg(long)]
    block: Option<u64>,
    /// With an inode: its content to stdout; of a directory, its names; of a link, its target.
    #[arg(long)]
    content: bool,
    /// The disk as it is, without what its journal holds.
    #[arg(long)]
    no_replay: bool,
}

const KINDS: [(u32, &str); 6] = [
    (GROUP_MAGIC, "group"),
    (EXTENT_MAGIC, "extent node"),
    (DIR_MAGIC, "directory"),
    (LINK_MAGIC, "symlink"),
    (XATTR_MAGIC, "attributes"),
    (VECTOR_MAGIC, "vector"),
];

fn print(value: &serde_json::Value, format: Format) {
    match (format, value.as_object()) {
        (Format::Json, _) | (_, None) => print_json(value),
        (_, Some(fields)) => {
            fields
                .iter()
                .for_each(|(key, value)| println!("{key}: {value}"));
        }
    }
}

fn show_block(disk: &Disk, block: u64, format: Format) -> anyhow::Result<()> {
    let data = disk.read(block)?;
    let header = Header::read_from_prefix(&data)
        .ok()
        .map(|(header, _)| header);
    let kind = header.and_then(|h| KINDS.iter().find(|(magic, _)| *magic == h.magic.get()));
    let value = match (header, kind) {
        (Some(h), Some((magic, name))) => json!({
            "block": block, "kind": name, "owner": h.owner.get(), "generation": h.generation.get(),
            "says_it_is": h.block.get(), "count": h.count.get(), "level": h.level.get(),
            "sound": disk.read_checked(block, *magic, h.owner.get(), h.generation.get()).is_ok(),
        }),
        _ => json!({ "block": block, "kind": "data, inode table or journal" }),
    };
    print(&value, format);
    Ok(())
}

fn show_content(disk: &Disk, ino: u32) -> anyhow::Result<()> {
    let inode = reader::inode(disk, ino)?;
    let mut out = std::io::stdout().lock();
    match inode.mode.get() >> 12 {
        4 => {
            for name in reader::names(disk, ino, &inode)? {
                out.write_all(format!("{}\t{}\t", name.ino, name.kind).as_bytes())?;
                out.write_all(&name.name)?;
                out.write_all(b"\n")?;
            }
        }
        10 => out.write_all(&reader::link(disk, ino, &inode)?)?,
        _ => out.write_all(&reader::content(disk, ino, &inode)?)?,
    }
    Ok(())
}

fn show_inode(disk: &Disk, ino: u32, format: Format) -> anyhow::Result<()> {
    let inode = reader::inode(disk, ino)?;
    let mode = inode.mode.get();
    let holds_runs = matches!(mode >> 12, 4 | 8) || inode.size.get() > 111;
    let runs = if holds_runs {
        reader::runs(disk, ino, &inode)?
    } else {
        Vec::new()
    };
    let value = json!({
        "inode": ino, "mode": format!("{mode:o}"), "links": inode.links.get(),
        "uid": inode.uid.get(), "gid": inode.gid.get(), "size": inode.size.get(),
        "blocks": inode.blocks.get(), "generation": inode.generation.get(),
        "flags": inode.flags.get(), "parent": inode.parent.get(),
        "xattr_block": inode.xattr_block.get(), "vector_block": inode.vector_block.get(),
        "vector_dims": inode.vector_dims.get(), "tree_level": inode.extent_level.get(),
        "runs": runs.iter().map(|(first, length, start, unwritten)| json!({
            "first": first, "length": length, "start": start, "unwritten": unwritten,
        })).collect::<Vec<_>>(),
    });
    print(&value, format);
    Ok(())
}

/// Shows a block, an inode, or the superblock.
pub fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let mut disk = Disk::open(&args.device, false)?;
    if !args.no_replay {
        disk.replay()
            .context("cannot read the journal: try --no-replay")?;
    }
    if let Some(block) = args.block {
        return show_block(&disk, block, format);
    }
    let ino = match (&args.path, args.inode) {
        (Some(path), _) => {
            reader::resolve(&disk, path).with_context(|| format!("{path} in the image"))?
        }
        (_, Some(ino)) => ino,
        _ => vexctl::ondisk::ROOT_INO,
    };
    if args.content {
        show_content(&disk, ino)
    } else {
        show_inode(&disk, ino, format)
    }
}
