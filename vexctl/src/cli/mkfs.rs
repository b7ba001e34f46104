//! `vexctl mkfs`, `mkfs.vexfs`.

use super::{Format, human_size, print_json};
use anyhow::{Context, bail};
use std::path::PathBuf;
use vexctl::config::parse_size;
use vexctl::geometry::{Geometry, Wishes};
use vexctl::image;
use vexctl::mkfs::{Identity, write};
use vexctl::ondisk::BLOCK_SIZE;

/// What to make, and where.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Block device or image file.
    device: PathBuf,
    /// Size, such as 512M; an image file is made or grown to it. Default: the whole device.
    size: Option<String>,
    /// Name of the file system, up to 32 bytes.
    #[arg(short = 'L', long, default_value = "")]
    label: String,
    /// UUID instead of a random one.
    #[arg(short = 'U', long)]
    uuid: Option<String>,
    /// Journal size, 4M to 64M.
    #[arg(short = 'J', long)]
    journal: Option<String>,
    /// Disk bytes for each inode.
    #[arg(short = 'i', long)]
    bytes_per_inode: Option<u64>,
    /// Accepted as other mkfs programs do: an existing file system is always replaced.
    #[arg(short = 'F', long, alias = "f")]
    force: bool,
}

fn size_of(text: &str) -> anyhow::Result<u64> {
    parse_size(text).with_context(|| format!("`{text}` is not a size: write it like 512M or 8G"))
}

/// Makes the file system.
pub fn run(args: &Args, format: Format, quiet: bool) -> anyhow::Result<()> {
    let path = args.device.display();
    if args.label.len() > 32 {
        bail!(
            "the label `{}` is longer than 32 bytes: shorten it",
            args.label
        );
    }
    let size = args.size.as_deref().map(size_of).transpose()?;
    if !args.device.exists() {
        let Some(size) = size else {
            bail!("{path} does not exist: name a device, or give a size to make an image file");
        };
        std::fs::File::create(&args.device)
            .and_then(|file| file.set_len(size))
            .with_context(|| format!("cannot make {path}"))?;
    }
    let disk = image::open_device(&args.device, true).with_context(|| {
        format!("cannot open {path} for writing: is it mounted (`findmnt {path}`), are you root?")
    })?;
    let mut bytes = image::device_size(&disk).with_context(|| format!("size of {path}"))?;
    if let Some(size) = size {
        if size > bytes {
            disk.set_len(size)
                .with_context(|| format!("{path} cannot grow to {size} bytes"))?;
        }
        bytes = size;
    }
    let journal = args.journal.as_deref().map(size_of).transpose()?;
    let geometry = Geometry::of(
        bytes,
        Wishes {
            bytes_per_inode: args.bytes_per_inode,
            journal_blocks: journal
                .map(|size| u32::try_from(size / BLOCK_SIZE as u64).unwrap_or(u32::MAX)),
        },
    )?;
    let uuid = match &args.uuid {
        Some(text) => image::parse_uuid(text)
            .with_context(|| format!("`{text}` is not a UUID: 32 hexadecimal digits are"))?,
        None => {
            let mut uuid = [0; 16];
            getrandom::fill(&mut uuid).context("no random numbers for a UUID")?;
            uuid[6] = uuid[6] & 0x0f | 0x40; // RFC 4122: version 4, random
            uuid[8] = uuid[8] & 0x3f | 0x80;
            uuid
        }
    };
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let identity = Identity {
        uuid,
        label: args.label.clone(),
        time,
        uid: 0,
        gid: 0,
    };
    write(&disk, &geometry, &identity).with_context(|| format!("writing {path}"))?;
    let inodes = u64::from(geometry.groups) * u64::from(geometry.group_inodes);
    match format {
        _ if quiet => {}
        Format::Json => print_json(&serde_json::json!({
            "device": args.device, "uuid": image::format_uuid(&uuid), "label": args.label,
            "bytes": geometry.blocks * BLOCK_SIZE as u64, "groups": geometry.groups,
            "inodes": inodes, "journal_bytes": u64::from(geometry.journal_blocks) * 4096,
        })),
        _ => println!(
            "{path}: VexFS of {}, {} groups, {inodes} inodes, {} journal, UUID {}",
            human_size(geometry.blocks * BLOCK_SIZE as u64),
            geometry.groups,
            human_size(u64::from(geometry.journal_blocks) * BLOCK_SIZE as u64),
            image::format_uuid(&uuid),
        ),
    }
    Ok(())
}
