//! A finished image on disk.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::manifest::{self, Manifest};
use crate::{FileRecord, ImageError};
use serde::{Deserialize, Serialize};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// Remembers which state of the disk file was hashed last; see [`Image::open`].
pub const STAMP: &str = ".verified.json";

/// An image whose disk has been checked against its manifest.
#[derive(Debug, Clone)]
pub struct Image {
    /// `out/images/vexfs-<variant>-<version>`.
    pub dir: PathBuf,
    /// The qcow2 file. Never boot it itself: always an overlay on it.
    pub disk: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

/// A file's identity as stat(2) tells it. Content cannot change without the change time moving.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed_ns: i128,
    sha256: String,
}

impl Image {
    /// Opens the image in `dir` and checks its disk's SHA-256 against the manifest.
    ///
    /// Hashing a disk of hundreds of megabytes in each of many test processes would cost more than
    /// the tests, so the digest is remembered in `.verified.json` together with the file's inode,
    /// size and change time, and computed anew only when one of those moved. Use
    /// [`Image::verify`] where that is not enough.
    ///
    /// # Errors
    /// [`ImageError::NotWhole`] when something is missing or does not fit the manifest.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Image, ImageError> {
        let image = Image::read(dir.into())?;
        let stamp_file = image.dir.join(STAMP);
        let seen: Option<Stamp> = fs::read(&stamp_file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let want = &image.manifest.disk;
        let now = image.stamp(want)?;
        if seen.as_ref() != Some(&now) {
            image.check(want)?;
            image.remember();
        }
        Ok(image)
    }

    /// Whether every file of the manifest is there with its size.
    pub fn has_files(&self) -> bool {
        let m = &self.manifest;
        [&m.disk, &m.compressed]
            .into_iter()
            .chain(&m.module.debug)
            .chain(m.formats.values())
            .all(|want| {
                let meta = fs::metadata(self.dir.join(&want.name));
                meta.is_ok_and(|meta| meta.len() == want.bytes)
            })
    }

    /// Notes that the disk was hashed as it is now and fits the manifest: for whoever has changed its
    /// file's times and not its content, by linking it elsewhere.
    pub fn remember(&self) {
        let stamp = self.stamp(&self.manifest.disk).ok();
        if let Some(Ok(bytes)) = stamp.map(|stamp| serde_json::to_vec(&stamp)) {
            // A read-only image directory only costs the shortcut.
            let _slow_next_time = fs::write(self.dir.join(STAMP), bytes);
        }
    }

    /// Hashes the disk and its compressed form, whatever was remembered.
    ///
    /// # Errors
    /// [`ImageError::NotWhole`] naming the first file that does not fit.
    pub fn verify(&self) -> Result<(), ImageError> {
        self.check(&self.manifest.disk)?;
        self.check(&self.manifest.compressed)?;
        self.manifest
            .formats
            .values()
            .try_for_each(|format| self.check(format))?;
        self.manifest
            .module
            .debug
            .iter()
            .try_for_each(|debug| self.check(debug))
    }

    /// The newest-version image of `variant` below `out_dir` (`out_dir/images/vexfs-<variant>-*`),
    /// or `None` when there is none.
    ///
    /// # Errors
    /// Those of [`Image::open`] for the one found: a damaged image is an error, not an absence.
    pub fn find(out_dir: &Path, variant: &str) -> Result<Option<Image>, ImageError> {
        Image::find_in(&out_dir.join("images"), variant)
    }

    /// The same, in the folder that holds the images' own folders.
    ///
    /// # Errors
    /// Those of [`Image::find`].
    pub fn find_in(images: &Path, variant: &str) -> Result<Option<Image>, ImageError> {
        let prefix = format!("vexfs-{variant}-");
        let newest = folders(images)?
            .into_iter()
            .filter_map(|dir| {
                let name = dir.file_name()?.to_str()?;
                Some((version_order(name.strip_prefix(&prefix)?), dir))
            })
            .max();
        newest.map(|(_, dir)| Image::open(dir)).transpose()
    }

    /// Every variant's newest image in a folder, by name.
    ///
    /// # Errors
    /// Those of [`Image::open`] for any of them.
    pub fn all(images: &Path) -> Result<Vec<Image>, ImageError> {
        let mut variants = BTreeSet::new();
        for dir in folders(images)? {
            variants.insert(Image::read(dir)?.manifest.variant);
        }
        let found = variants
            .iter()
            .map(|variant| Image::find_in(images, variant));
        Ok(found
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Reads the manifest without looking at the disk's content.
    ///
    /// # Errors
    /// [`ImageError::NotWhole`] when there is none, or none of this format.
    pub fn read(dir: PathBuf) -> Result<Image, ImageError> {
        let bad = |said: String| ImageError::NotWhole {
            dir: dir.clone(),
            said,
        };
        let text = fs::read(dir.join(MANIFEST)).map_err(|e| bad(format!("{MANIFEST}: {e}")))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|e| bad(format!("{MANIFEST}: {e}")))?;
        if manifest.schema != manifest::SCHEMA {
            return Err(bad(format!(
                "{MANIFEST} is of format {}, this program reads {}",
                manifest.schema,
                manifest::SCHEMA
            )));
        }
        let name = Path::new(&manifest.disk.name);
        if name.file_name() != Some(name.as_os_str()) {
            return Err(bad(format!(
                "{MANIFEST} names a disk outside its directory"
            )));
        }
        Ok(Image {
            disk: dir.join(name),
            dir,
            manifest,
        })
    }

    fn bad(&self, said: String) -> ImageError {
        ImageError::NotWhole {
            dir: self.dir.clone(),
            said,
        }
    }

    /// The file's present identity, with the digest it ought to have.
    fn stamp(&self, want: &FileRecord) -> Result<Stamp, ImageError> {
        let meta = fs::metadata(self.dir.join(&want.name))
            .map_err(|e| self.bad(format!("{}: {e}", want.name)))?;
        Ok(Stamp {
            inode: meta.ino(),
            bytes: meta.len(),
            changed_ns: i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()),
            sha256: want.sha256.clone(),
        })
    }

    fn check(&self, want: &FileRecord) -> Result<(), ImageError> {
        let name = &want.name;
        let have =
            FileRecord::of(&self.dir.join(name)).map_err(|e| self.bad(format!("{name}: {e}")))?;
        if have.bytes != want.bytes {
            return Err(self.bad(format!(
                "{name} has {} bytes, its manifest says {}",
                have.bytes, want.bytes
            )));
        }
        if have.sha256 != want.sha256 {
            return Err(self.bad(format!(
                "{name} has SHA-256 {}, its manifest says {}",
                have.sha256, want.sha256
            )));
        }
        Ok(())
    }
}

/// The folders of images in a folder; none in one that is not there.
fn folders(images: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let entries = match fs::read_dir(images) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ImageError::io("list", images)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let dir = entry.map_err(ImageError::io("list", images))?.path();
        let hidden = dir
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && dir.join(MANIFEST).is_file() {
            found.push(dir);
        }
    }
    Ok(found)
}

/// `1.10.0` is newer than `1.9.0`; anything that is no number sorts first.
fn version_order(version: &str) -> Vec<u64> {
    version
        .split(['.', '-', '+', '~'])
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}
