//! A disk for cloud-init's NoCloud, made without root: mkfs.vfat(8) on a file and mcopy(1) into it.

use std::path::Path;

use keeper::Kept;
use machine::{DiskContent, DiskFormat, ExtraDisk};

use super::Failure;

/// Size in KiB; the smallest FAT that mkfs.vfat makes without complaint is below it.
const KIB: u32 = 1024;

/// Makes the disk's file in `dir`, where the machine's logs will be: `user_data` on a disk of that label.
///
/// # Errors
/// When the host's mkfs.vfat(8) or mcopy(1) fails.
pub async fn seed_disk(dir: &Path, label: &str, user_data: &str) -> Result<ExtraDisk, Failure> {
    let trouble = |what: &str, error: &dyn std::fmt::Display| {
        Failure::Host(format!("cannot make the seed disk: {what}: {error}"))
    };
    let (image, log) = (dir.join("seed.img"), dir.join("seed.log"));
    std::fs::create_dir_all(dir).map_err(|e| trouble("directory", &e))?;
    let run = async |command: Kept, what: &str| {
        // Where the administrator's programs are, also for an ordinary user.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let command = command.env("PATH", path);
        keeper::run(command, &log, |_| {})
            .await
            .map_err(|e| trouble(what, &e))
    };
    let mkfs = Kept::new("mkfs.vfat").args(["-C", "-n", label]).arg(&image);
    run(mkfs.arg(KIB.to_string()), "mkfs.vfat (package dosfstools)").await?;
    for (name, text) in [
        ("meta-data", "instance-id: vexfs-check\n"),
        ("user-data", user_data),
    ] {
        let file = dir.join(name);
        std::fs::write(&file, text).map_err(|e| trouble(name, &e))?;
        let copy = Kept::new("mcopy").arg("-i").args([&image, &file]);
        run(copy.arg(format!("::{name}")), "mcopy (package mtools)").await?;
    }
    Ok(ExtraDisk {
        serial: "vexfs-seed".into(),
        content: DiskContent::ReadOnly {
            path: image,
            format: DiskFormat::Raw,
        },
    })
}
