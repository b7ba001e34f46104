//! `index.json`: what a bundle, or one release at a destination, holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Delta;

/// Its file name.
pub const INDEX: &str = "index.json";
/// The only value of [`Index::schema`] this version writes and reads.
pub(crate) const SCHEMA: u32 = 1;

/// What is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Version of this format.
    pub schema: u32,
    /// When it was made, as a reader writes it.
    pub made: String,
    /// The images; one in a release.
    pub images: Vec<ImageEntry>,
    /// Variants that were asked for and not built, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_built: BTreeMap<String, String>,
    /// Every other file, named relative to the index.
    pub files: Vec<FileEntry>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageEntry {
    /// Its variant.
    pub variant: String,
    /// The version it is labelled with.
    pub version: String,
    /// What `uname -r` says in it.
    pub kernel: String,
    /// The disk.
    pub disk: FileEntry,
    /// Its compressed form: the download.
    pub compressed: FileEntry,
    /// What came of its checks.
    pub checks: Tally,
    /// Whether every check that was required has passed: then it may become `latest`.
    pub passed: bool,
    /// How to come to it from the image that was latest before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Delta>,
}

/// How many checks came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed, or could not be judged.
    pub failed: usize,
    /// Skipped, with a reason.
    pub skipped: usize,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, relative to the index.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

impl FileEntry {
    /// Reads the file at `path`; it will be called `name`.
    pub(crate) fn of(path: &Path, name: &str) -> io::Result<FileEntry> {
        let bytes = path.metadata()?.len();
        Ok(FileEntry {
            name: name.to_owned(),
            bytes,
            sha256: sha256(&mut File::open(path)?, bytes)?,
        })
    }
}

impl ImageEntry {
    /// The release's name: the version, and which of the images of that version it is.
    pub fn release(&self) -> String {
        let digest = &self.disk.sha256;
        format!("{}_{}", self.version, digest.get(..12).unwrap_or(digest))
    }

    /// The folder of the image in a bundle.
    pub(crate) fn folder(&self) -> String {
        format!("vexfs-{}-{}", self.variant, self.version)
    }
}

impl Index {
    /// The text of the file.
    pub(crate) fn json(&self) -> String {
        // Strings, numbers and lists: there is nothing in it that JSON lacks.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Reads one.
    pub(crate) fn parse(text: &[u8]) -> Result<Index, String> {
        let index: Index = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match index.schema {
            SCHEMA => Ok(index),
            other => Err(format!("it is of format {other}, not {SCHEMA}")),
        }
    }

    /// `SHA256SUMS` for `sha256sum -c`.
    pub(crate) fn sums(&self) -> String {
        let line = |file: &FileEntry| format!("{}  {}\n", file.sha256, file.name);
        self.files.iter().map(line).collect()
    }

    /// A page for a person with a browser.
    pub(crate) fn page(&self) -> String {
        let images: String = self.images.iter().map(image_row).collect();
        let missing: String = self.not_built.iter().map(missing_row).collect();
        let files: String = self.files.iter().map(file_row).collect();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>VexFS images</title>\n\
             <style>{STYLE}</style></head><body>\n<h1>VexFS images</h1>\n<p>Made {made}. \
             <code>sha256sum -c SHA256SUMS</code> checks a download; <a href=\"{INDEX}\">{INDEX}</a> \
             says the same to programs.</p>\n\
             <table><tr><th>image</th><th>version</th><th>kernel</th><th>download</th><th>MB</th>\
             <th>checks</th></tr>\n{images}{missing}</table>\n\
             <h2>Files</h2>\n<table><tr><th>file</th><th>bytes</th><th>SHA-256</th></tr>\n{files}</table>\n\
             </body></html>\n",
            made = escaped(&self.made),
        )
    }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:75rem}\
    table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;\
    border-bottom:1px solid #8884}code{font-size:.9em}";

fn image_row(image: &ImageEntry) -> String {
    let Tally {
        passed,
        failed,
        skipped,
    } = image.checks;
    let delta = match &image.delta {
        Some(delta) => format!(
            " (from the image {}: <a href=\"{name}\">{:.1} MB</a>)",
            escaped(&delta.from_release),
            megabytes(delta.file.bytes),
            name = escaped(&delta.file.name),
        ),
        None => String::new(),
    };
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td><a href=\"{name}\">{name}</a>{delta}</td><td>{:.1}</td>\
         <td>{passed} passed, {failed} failed, {skipped} skipped</td></tr>\n",
        escaped(&image.variant),
        escaped(&image.version),
        escaped(&image.kernel),
        megabytes(image.compressed.bytes),
        name = escaped(&image.compressed.name),
    )
}

fn missing_row((variant, why): (&String, &String)) -> String {
    format!(
        "<tr><td>{}</td><td colspan=\"5\">not built: {}</td></tr>\n",
        escaped(variant),
        escaped(why)
    )
}

fn file_row(file: &FileEntry) -> String {
    format!(
        "<tr><td><a href=\"{name}\">{name}</a></td><td>{}</td><td><code>{}</code></td></tr>\n",
        file.bytes,
        file.sha256,
        name = escaped(&file.name),
    )
}

/// Decimal megabytes, as downloads are measured.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// SHA-256 in hex of the first `bytes` bytes of a file.
pub(crate) fn sha256(file: &mut File, bytes: u64) -> io::Result<String> {
    file.rewind()?;
    keeper::digest::of(file.take(bytes))
}
