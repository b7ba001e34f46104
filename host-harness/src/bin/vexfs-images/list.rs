//! `vexfs-images list`

use clap::ValueEnum;
use image::Image;
use machine::snapshot::Listed;
use machine::snapshot::{DEFAULT_CAP, Store};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use crate::options::Place;

/// Version of `--format json`.
const SCHEMA: u32 = 1;

/// A form of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Options of `list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// In which form
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
    #[command(flatten)]
    place: Place,
}

/// Shows the images there are, and the snapshots of them.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let images = images(&layout.images());
    let store = Store::open(layout.snapshots(), DEFAULT_CAP)?;
    let snapshots = store.list()?;
    match args.format {
        Form::Json => {
            let value = as_json(&images, &snapshots);
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Form::Text => {
            println!("images in {}:", layout.images().display());
            images
                .iter()
                .for_each(|found| println!("  {}", image_line(found)));
            if images.is_empty() {
                println!("  none: run `cargo images build --variants minimal`");
            }
            println!("snapshots in {}:", layout.snapshots().display());
            snapshots
                .iter()
                .for_each(|listed| println!("  {}", snapshot_line(listed)));
        }
    }
    Ok(0)
}

/// A folder with an image, or what is wrong with it.
type Found = (PathBuf, Result<Image, String>);

/// What is in the folder of images, by name.
fn images(dir: &Path) -> Vec<Found> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.retain(|path| path.join("manifest.json").is_file());
    folders.sort();
    let open = |folder: PathBuf| {
        let image = Image::open(&folder).map_err(|error| error.to_string());
        (folder, image)
    };
    folders.into_iter().map(open).collect()
}

fn image_line((folder, image): &Found) -> String {
    match image {
        Ok(image) => {
            let manifest = &image.manifest;
            format!(
                "{:<12} {:<10} kernel {}  {} MiB  {}",
                manifest.variant,
                manifest.vexfs_version,
                manifest.kernel.release,
                manifest.disk.bytes >> 20,
                &manifest.disk.sha256[..16],
            )
        }
        Err(error) => format!("{}: {error}", folder.display()),
    }
}

fn snapshot_line(listed: &Listed) -> String {
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
    format!(
        "{}  {:>5} MiB  {of}, used {age} min ago{busy}",
        listed.key,
        listed.bytes >> 20
    )
}

fn as_json(images: &[Found], snapshots: &[Listed]) -> Value {
    let image = |(folder, image): &Found| match image {
        Ok(image) => json!({
            "folder": folder,
            "variant": image.manifest.variant,
            "version": image.manifest.vexfs_version,
            "kernel": image.manifest.kernel.release,
            "disk": image.disk,
            "bytes": image.manifest.disk.bytes,
            "sha256": image.manifest.disk.sha256,
        }),
        Err(error) => json!({ "folder": folder, "error": error }),
    };
    let snapshot = |listed: &Listed| {
        json!({
            "key": listed.key.to_string(),
            "bytes": listed.bytes,
            "image": listed.manifest.as_ref().map(|m| &m.image_digest),
            "seconds_since_use": listed.used.elapsed().unwrap_or_default().as_secs(),
            "in_use": listed.busy,
        })
    };
    json!({
        "schema": SCHEMA,
        "images": images.iter().map(image).collect::<Vec<_>>(),
        "snapshots": snapshots.iter().map(snapshot).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_image_is_listed_with_the_reason() {
        let dir = tempfile::tempdir().expect("a folder");
        let broken = dir.path().join("vexfs-minimal-1.0.0");
        std::fs::create_dir(&broken).expect("a folder");
        std::fs::write(broken.join("manifest.json"), r#"{"schema": 99}"#).expect("a file");
        let found = images(dir.path());
        let value = as_json(&found, &[]);
        assert_eq!(value["schema"], 1);
        assert_eq!(value["images"][0]["folder"], json!(broken));
        assert!(value["images"][0]["error"].is_string(), "{value}");
        assert!(image_line(&found[0]).starts_with(&broken.display().to_string()));
        assert_eq!(as_json(&[], &[])["images"], json!([]));
    }
}
