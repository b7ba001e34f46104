//! `vexctl info`: what a device holds, also in the form udev rules import.

use super::{Format, human_size, print_json, table};
use std::path::PathBuf;
use vexctl::image::Image;
use vexctl::ondisk::{BLOCK_SIZE, STATE_CLEAN, STATE_ERRORS};

/// Which device.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Block device or image file.
    device: PathBuf,
    /// As KEY=value lines for udev's IMPORT{program}; nothing and exit 0 if it is not VexFS.
    #[arg(long)]
    export: bool,
}

/// udev accepts no other bytes in a value it makes links from (`blkid -o udev` does the same).
fn udev_safe(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c);
    text.chars()
        .map(|c| if safe(c) { c } else { '_' })
        .collect()
}

/// Prints what the superblock says.
pub fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let image = match Image::open(&args.device, false) {
        Ok(image) => image,
        Err(_) if args.export => return Ok(()),
        Err(flaw) => return Err(flaw.into()),
    };
    let s = image.super_block();
    let (label, uuid, g) = (image.label(), image.uuid(), image.geometry());
    if args.export {
        println!(
            "ID_FS_TYPE=vexfs\nID_FS_USAGE=filesystem\nID_FS_VERSION={}",
            s.version.get()
        );
        println!("ID_FS_UUID={uuid}\nID_FS_UUID_ENC={uuid}");
        if !label.is_empty() {
            let safe = udev_safe(&label);
            println!("ID_FS_LABEL={safe}\nID_FS_LABEL_ENC={safe}");
        }
        return Ok(());
    }
    let state = s.state.get();
    let state = match (state & STATE_CLEAN != 0, state & STATE_ERRORS != 0) {
        (_, true) => "errors were seen",
        (true, false) => "clean",
        (false, false) => "mounted, or not unmounted in order",
    };
    let bytes = g.blocks * BLOCK_SIZE as u64;
    match format {
        Format::Json => print_json(&serde_json::json!({
            "device": args.device, "label": label, "uuid": uuid, "version": s.version.get(),
            "state": state, "bytes": bytes, "groups": g.groups,
            "inodes": u64::from(g.groups) * u64::from(g.group_inodes),
            "journal_start": g.journal_start, "journal_blocks": g.journal_blocks,
            "features": { "compat": s.compat.get(), "ro_compat": s.ro_compat.get(),
                "incompat": s.incompat.get() },
            "made": s.mkfs_time.get(), "mounted": s.mount_time.get(),
            "mount_count": s.mount_count.get(), "error_count": s.error_count.get(),
        })),
        Format::Table | Format::Compact => {
            let device = args.device.display().to_string();
            let row = vec![device, label, uuid, human_size(bytes), state.to_owned()];
            table::print(
                format,
                &["device", "label", "uuid", "size", "state"],
                &[row],
            );
        }
        Format::Human => {
            println!(
                "{}: VexFS version {}",
                args.device.display(),
                s.version.get()
            );
            println!(
                "  label     {}",
                if label.is_empty() { "(none)" } else { &label }
            );
            println!("  uuid      {uuid}");
            println!("  state     {state}");
            println!("  size      {} in {} groups", human_size(bytes), g.groups);
            println!(
                "  inodes    {}",
                u64::from(g.groups) * u64::from(g.group_inodes)
            );
            println!(
                "  journal   {} blocks from {}",
                g.journal_blocks, g.journal_start
            );
            println!(
                "  mounts    {}, errors {}",
                s.mount_count.get(),
                s.error_count.get()
            );
        }
    }
    Ok(())
}
