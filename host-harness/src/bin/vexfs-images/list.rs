//! `vexfs-images list`

use image_builder::Image;
use machine::snapshot::{DEFAULT_CAP, Store};

use crate::options::Place;

/// Options of `list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// Shows the images there are, and the snapshots of them.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let mut folders: Vec<_> = std::fs::read_dir(layout.images())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("manifest.json").is_file())
        .collect();
    folders.sort();
    println!("images in {}:", layout.images().display());
    for folder in &folders {
        match Image::open(folder) {
            Ok(image) => {
                let manifest = &image.manifest;
                println!(
                    "  {:<12} {:<10} kernel {}  {} MiB  {}",
                    manifest.variant,
                    manifest.vexfs_version,
                    manifest.kernel.release,
                    manifest.disk.bytes >> 20,
                    &manifest.disk.sha256[..16],
                );
            }
            Err(error) => println!("  {}: {error}", folder.display()),
        }
    }
    if folders.is_empty() {
        println!("  none: run `cargo images build --variants minimal`");
    }
    let store = Store::open(layout.snapshots(), DEFAULT_CAP)?;
    println!("snapshots in {}:", layout.snapshots().display());
    for listed in store.list()? {
        let of = listed.manifest.as_ref().map_or_else(
            || "unreadable".to_owned(),
            |m| {
                format!(
                    "image {}  {} MiB memory, {} processors, {}",
                    &m.image_digest[..m.image_digest.len().min(16)],
                    m.spec.memory_mib,
                    m.spec.cpus,
                    m.spec.accelerator
                )
            },
        );
        let age = listed.used.elapsed().unwrap_or_default().as_secs() / 60;
        let busy = if listed.busy { ", in use" } else { "" };
        println!(
            "  {}  {:>5} MiB  {of}, used {age} min ago{busy}",
            listed.key,
            listed.bytes >> 20
        );
    }
    Ok(0)
}
