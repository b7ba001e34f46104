//! An image's root file system as an OCI image (opencontainers image-spec v1.0): one layer, its
//! configuration, a manifest and an index, in a tar archive of the image layout.
//!
//! The tree is read straight out of the disk, as [`image::inspect::Tree`] does it. What a container makes anew
//! (devices, sockets) stays out; a file of several names becomes several files; extended attributes
//! are not carried over (no image has file capabilities; see the check of declared files).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ext4_view::{Ext4, FileType};
use image::FileRecord;
use image::inspect::{Disk, root_of};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::BuildError;
use crate::evidence::timestamp;
use crate::run::Site;
use crate::stages::form::From;
use crate::store::key;

/// Writes the archive of `from`'s disk to `to`.
pub(crate) async fn write(
    site: &Site<'_>,
    stage: &'static str,
    from: From<'_>,
    to: &Path,
) -> Result<(), BuildError> {
    let work = site.scratch(stage)?;
    let layer = work.path().join("layer.tar");
    let disk = Disk::open(from.disk).await?;
    let latest = from.epoch;
    let target = layer.clone();
    let plain = tokio::task::spawn_blocking(move || {
        let fs = root_of(disk)?;
        let mut archive = Builder::new(io::BufWriter::new(File::create_new(&target)?));
        add(&fs, ext4_view::PathBuf::new("/"), &mut archive, latest)?;
        archive.into_inner()?.flush()?;
        FileRecord::of(&target)
    });
    let plain = plain
        .await
        .map_err(io::Error::other)
        .and_then(|plain| plain)
        .map_err(BuildError::io("read the root file system of", from.disk))?;
    // Without name and time; leaves layer.tar.gz.
    let gzip = Site::program("gzip").args(["-n", "-6"]).arg(&layer);
    site.step(stage, gzip).await?;
    let packed = work.path().join("layer.tar.gz");
    let record = FileRecord::of(&packed).map_err(BuildError::io("read", &packed))?;
    let documents = documents(from, &plain, &record);
    archive(&documents, (&record.sha256, &packed), from.epoch, to)
        .map_err(BuildError::io("write", to))
}

/// Adds a folder or file, and what is below it in the order of names.
fn add(
    fs: &Ext4,
    path: ext4_view::PathBuf,
    archive: &mut Builder<impl Write>,
    latest: u64,
) -> io::Result<()> {
    let meta = fs.symlink_metadata(&path).map_err(io::Error::other)?;
    let mut header = Header::new_gnu();
    header.set_mode(u32::from(meta.mode() & 0o7777));
    header.set_uid(u64::from(meta.uid()));
    header.set_gid(u64::from(meta.gid()));
    let modified = u64::try_from(meta.modified().seconds()).unwrap_or(0);
    header.set_mtime(modified.min(latest));
    header.set_size(0);
    let bytes: &[u8] = path.as_ref();
    let name = match bytes.strip_prefix(b"/") {
        Some(b"") | None => OsStr::new("./").to_owned(),
        Some(name) => OsStr::from_bytes(name).to_owned(),
    };
    match meta.file_type() {
        FileType::Directory => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, &name, io::empty())?;
            let mut below = Vec::new();
            for entry in fs.read_dir(&path).map_err(io::Error::other)? {
                let entry = entry.map_err(io::Error::other)?;
                let name = entry.file_name();
                if name != "." && name != ".." {
                    below.push(path.join(name));
                }
            }
            below.sort();
            below
                .into_iter()
                .try_for_each(|path| add(fs, path, archive, latest))
        }
        FileType::Regular => {
            let content = fs.read(&path).map_err(io::Error::other)?;
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, &name, content.as_slice())
        }
        FileType::Symlink => {
            let target = fs.read_link(&path).map_err(io::Error::other)?;
            header.set_entry_type(EntryType::Symlink);
            let target: &[u8] = target.as_ref();
            archive.append_link(&mut header, &name, OsStr::from_bytes(target))
        }
        FileType::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            archive.append_data(&mut header, &name, io::empty())
        }
        FileType::BlockDevice | FileType::CharacterDevice | FileType::Socket => Ok(()),
    }
}

/// A blob by its digest.
fn descriptor(media: &str, sha256: &str, bytes: u64) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{media}"),
        "digest": format!("sha256:{sha256}"),
        "size": bytes,
    })
}

/// Configuration, manifest and index, as text.
fn documents(from: From<'_>, plain: &FileRecord, packed: &FileRecord) -> [String; 3] {
    let created = timestamp(from.epoch);
    let config = json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            // systemd's way to be asked to shut down.
            "Cmd": ["/sbin/init"],
            "StopSignal": "SIGRTMIN+3",
            "Labels": {
                "org.opencontainers.image.title": from.name,
                "org.opencontainers.image.version": from.version,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", plain.sha256)]},
        "history": [{"created": created, "created_by": format!("vexfs-images, key {}", from.key)}],
    })
    .to_string();
    let blob = |media, text: &str| descriptor(media, &key::digest(text), text.len() as u64);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", &config),
        "layers": [descriptor("layer.v1.tar+gzip", &packed.sha256, packed.bytes)],
    })
    .to_string();
    let mut of_manifest = blob("manifest.v1+json", &manifest);
    of_manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
    of_manifest["annotations"] = json!({"org.opencontainers.image.ref.name": from.version});
    let index = json!({"schemaVersion": 2, "manifests": [of_manifest]}).to_string();
    [config, manifest, index]
}

/// The layout's files in one archive.
fn archive(
    [config, manifest, index]: &[String; 3],
    (layer, packed): (&str, &Path),
    epoch: u64,
    to: &Path,
) -> io::Result<()> {
    let mut archive = Builder::new(io::BufWriter::new(File::create_new(to)?));
    let mut put = |name: &str, bytes: u64, content: &mut dyn io::Read| {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(epoch);
        header.set_size(bytes);
        archive.append_data(&mut header, name, content)
    };
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    let blob = |text: &String| format!("blobs/sha256/{}", key::digest(text));
    for (name, text) in [
        ("oci-layout".to_owned(), layout),
        ("index.json".to_owned(), index.as_str()),
        (blob(config), config.as_str()),
        (blob(manifest), manifest.as_str()),
    ] {
        put(&name, text.len() as u64, &mut text.as_bytes())?;
    }
    let mut file = File::open(packed)?;
    let bytes = file.metadata()?.len();
    put(&format!("blobs/sha256/{layer}"), bytes, &mut file)?;
    archive.into_inner()?.flush()
}
