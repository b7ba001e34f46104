//! The seal: the finished disk, its compressed form, manifest and checksums, put in place at once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use image::{FileRecord, Format, Image, MANIFEST, Manifest, sparse};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::BuildError;
use crate::evidence::{self, Ingredients, Record};
use crate::run::Site;
use crate::stages::{form, formats, module, packer};
use crate::store::key::Inputs;
use crate::store::{Entry, Stage};
use crate::versions::Versions;

/// Name of the stage.
pub(crate) const STAGE: &str = "seal";
/// zstd(1) options: of a 300 MB disk on two cores, -12 takes 12 s for 5 % less than -9's 5 s.
pub(crate) const COMPRESSION: &[&str] = &["-9", "--long=27", "-T0", "-q"];
/// The harness's verdict on the disk.
pub(crate) const VERDICT: &str = "verdict.json";
/// Checksums for `sha256sum -c`.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// How the names of images in the making begin.
const SEALING: &str = ".sealing-";

/// What a finished image is: its content key.
pub(crate) fn inputs(image: &Stage, versions: &Versions) -> Inputs {
    let documents = evidence::DOCUMENTS.map(|(name, _)| name);
    Inputs::default()
        .with("image", image.inputs.key())
        .with("compression", COMPRESSION.join(" "))
        .with("beside it", "the module with debug information")
        .with("documents", documents.concat())
        .with_all(versions.of(STAGE))
}

/// Puts disk and manifest into `dir` (an image's own directory), all of it or nothing.
///
/// `manifest` is complete but for what is only known now: the files.
pub(crate) async fn seal(
    site: &Site<'_>,
    dir: &Path,
    (packed, built): (&Entry, &Entry),
    mut manifest: Manifest,
    forms: &BTreeSet<Format>,
    ingredients: &Ingredients,
) -> Result<Image, BuildError> {
    let images = dir.parent().unwrap_or(dir);
    fs::create_dir_all(images).map_err(BuildError::io("make", images))?;
    sweep(images, &manifest.disk.name);
    // Beside its final place, to be renamed; a name no reader takes for an image.
    let work = tempfile::Builder::new()
        .prefix(&format!("{SEALING}{}-", manifest.disk.name))
        .tempdir_in(images)
        .map_err(BuildError::io("make a directory in", images))?;
    let new = work.path().join("image");
    fs::create_dir(&new).map_err(BuildError::io("make", &new))?;
    let disk = new.join(&manifest.disk.name);
    copy(&packed.dir.join(packer::DISK), &disk)?;
    let debug = new.join(module::debug_name(&manifest.module));
    copy(&built.dir.join(module::MODULE_DEBUG), &debug)?;
    let compressed = new.join(&manifest.compressed.name);
    let command = Site::program("zstd")
        .args(COMPRESSION.iter().copied())
        .arg("-o")
        .args([&compressed, &disk]);
    let virtual_bytes = manifest.disk.virtual_bytes;
    // Hashing and compressing side by side: both read the disk, and neither is quick.
    let (disk_record, ()) = tokio::try_join!(record(&disk), site.step(STAGE, command))?;
    manifest.disk = disk_record;
    manifest.disk.virtual_bytes = virtual_bytes;
    manifest.compressed = record(&compressed).await?;
    manifest.module.debug = Some(record(&debug).await?);
    let write = |name: &str, text: &str| {
        fs::write(new.join(name), text).map_err(BuildError::io("write", new.join(name)))
    };
    let name = manifest.disk.name.trim_end_matches(".qcow2").to_owned();
    for &form in forms.iter().filter(|form| **form != Format::Qcow2) {
        let file = new.join(format!("{name}{}", form.suffix()));
        let from = form::From {
            disk: &disk,
            key: &manifest.key,
            epoch: manifest.source_date_epoch,
            name: &name,
            version: &manifest.vexfs_version,
        };
        formats::make(site, STAGE, form, from, &file).await?;
        let mut record = record(&file).await?;
        record.virtual_bytes = virtual_bytes.filter(|_| form.is_disk());
        manifest.formats.insert(form, record);
    }
    let record = Record {
        name: &name,
        manifest: &manifest,
        ingredients,
    };
    let mut texts = vec![(MANIFEST.to_owned(), json(&manifest)?)];
    for (suffix, document) in evidence::DOCUMENTS {
        texts.push((format!("{name}{suffix}"), json(&document(&record))?));
    }
    let mut sums = sums(&manifest);
    for (name, text) in &texts {
        write(name, text)?;
        sums += &line(&crate::store::key::digest(text), name);
    }
    write(SUMS, &sums)?;
    keep_verdict(dir, &new, &manifest)?;
    publish(&new, dir)?;
    let image = Image::read(dir.to_owned())?;
    image.remember();
    Ok(image)
}

/// A verdict is about the disk: with the same disk it stays, whatever else is beside it now.
fn keep_verdict(old: &Path, new: &Path, manifest: &Manifest) -> Result<(), BuildError> {
    let (from, to) = (old.join(VERDICT), new.join(VERDICT));
    let same = Image::read(old.to_owned())
        .is_ok_and(|image| image.manifest.disk.sha256 == manifest.disk.sha256);
    if !same || !from.is_file() {
        return Ok(());
    }
    fs::copy(&from, &to)
        .map(drop)
        .map_err(BuildError::io("copy", from))
}

/// Size and digest of a file, worked out beside what else is going on.
async fn record(path: &Path) -> Result<FileRecord, BuildError> {
    let owned = path.to_owned();
    let record = tokio::task::spawn_blocking(move || FileRecord::of(&owned)).await;
    record
        .map_err(std::io::Error::other)
        .and_then(|record| record)
        .map_err(BuildError::io("read", path))
}

/// Removes what a killed build of the same image left; the caller holds the image's lock. What
/// cannot be removed is in nobody's way.
fn sweep(images: &Path, name: &str) {
    let prefix = format!("{SEALING}{name}-");
    for entry in fs::read_dir(images).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _left = fs::remove_dir_all(entry.path());
        }
    }
}

/// Copies a sparse file.
fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    let source = File::open(from).map_err(BuildError::io("open", from))?;
    let target = File::create(to).map_err(BuildError::io("make", to))?;
    let bytes = source
        .metadata()
        .map_err(BuildError::io("read", from))?
        .len();
    target
        .set_len(bytes)
        .and_then(|()| sparse::copy(&source, &target, 0))
        .map_err(BuildError::io("write", to))
}

fn json(value: &impl serde::Serialize) -> Result<String, BuildError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|e| BuildError::io("write", "JSON")(std::io::Error::other(e)))
}

/// The lines of `SHA256SUMS` for what is no text, with names relative to it.
fn sums(manifest: &Manifest) -> String {
    [&manifest.disk, &manifest.compressed]
        .into_iter()
        .chain(&manifest.module.debug)
        .chain(manifest.formats.values())
        .map(|file| line(&file.sha256, &file.name))
        .collect()
}

fn line(digest: &str, name: &str) -> String {
    format!("{digest}  {name}\n")
}

/// Puts `new` in the place of `dir` in one step; what was there ends up at `new`, to be removed
/// with its parent. Machines that run on the old disk keep it open.
fn publish(new: &Path, dir: &Path) -> Result<(), BuildError> {
    let flags = if dir.exists() {
        RenameFlags::RENAME_EXCHANGE
    } else {
        RenameFlags::RENAME_NOREPLACE
    };
    renameat2(AT_FDCWD, new, AT_FDCWD, dir, flags)
        .map_err(|error| BuildError::io("put in place", dir)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_image_is_replaced_as_a_whole() {
        let home = tempfile::tempdir().expect("a directory");
        let (new, dir) = (home.path().join("new"), home.path().join("image"));
        for (path, text) in [(&dir, "old"), (&new, "new")] {
            fs::create_dir(path).expect("a directory");
            fs::write(path.join(text), text).expect("a file");
        }
        publish(&new, &dir).expect("published");
        assert!(dir.join("new").exists() && !dir.join("old").exists());
        assert!(new.join("old").exists());
        fs::remove_dir_all(&dir).expect("removed");
        publish(&new, &dir).expect("published where there was none");
        assert!(dir.join("old").exists() && !new.exists());
    }
}
