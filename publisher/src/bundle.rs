//! One folder with all of a run, for whoever wants to download it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keeper::Kept;

use crate::index::{INDEX, SCHEMA};
use crate::{FileEntry, ImageEntry, Index, PublishError, Tally, run};

/// Checksums beside the index.
pub(crate) const SUMS: &str = "SHA256SUMS";
/// The page beside the index.
pub(crate) const PAGE: &str = "index.html";
/// Folder of what is told about the run.
pub(crate) const REPORTS: &str = "reports";
/// Folder of what failures left, an archive each.
pub(crate) const DOSSIERS: &str = "dossiers";

/// What goes into a bundle.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The images.
    pub images: Vec<ImageFiles>,
    /// Variants that were asked for and not built, and why.
    pub not_built: BTreeMap<String, String>,
    /// Reports: files, and folders with all that is in them.
    pub reports: Vec<PathBuf>,
    /// Dossiers of this run, with the variant each is about.
    pub dossiers: Vec<(String, PathBuf)>,
    /// When, as a reader writes it.
    pub made: String,
}

/// An image on disk.
#[derive(Debug, Clone)]
pub struct ImageFiles {
    /// Its folder: every file in it whose name does not begin with a dot goes along.
    pub dir: PathBuf,
    /// Its variant.
    pub variant: String,
    /// Its version.
    pub version: String,
    /// What `uname -r` says in it.
    pub kernel: String,
    /// The disk's file name.
    pub disk: String,
    /// The compressed disk's file name.
    pub compressed: String,
    /// Digests that are known: of a sealed image every large file's is in its `SHA256SUMS`.
    pub known: BTreeMap<String, String>,
    /// What came of its checks.
    pub checks: Tally,
    /// Whether all that was required has passed.
    pub passed: bool,
}

/// Lays out `dir` anew; what was there before goes when the new one is whole. Files are linked where
/// the file system can, else copied.
///
/// # Errors
/// When a file cannot be read or the folder not be written; then the earlier bundle stays.
pub async fn bundle(content: &Content, dir: &Path, log: &Path) -> Result<Index, PublishError> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(PublishError::io("make", parent))?;
    let work = tempfile::Builder::new()
        .prefix(".bundling-")
        .tempdir_in(parent)
        .map_err(PublishError::io("make a folder in", parent))?;
    let new = work.path().join("new");
    let mut files = Vec::new();
    let mut images = Vec::new();
    for image in &content.images {
        images.push(take_image(image, &new, &mut files)?);
    }
    for report in &content.reports {
        let name = report.file_name().unwrap_or_default().to_string_lossy();
        take(report, &format!("{REPORTS}/{name}"), &new, &mut files)?;
    }
    for (_, dossier) in &content.dossiers {
        pack(dossier, &new, &mut files, log).await?;
    }
    files.sort();
    let index = Index {
        schema: SCHEMA,
        made: content.made.clone(),
        images,
        not_built: content.not_built.clone(),
        files,
    };
    write(&new, INDEX, &index.json())?;
    write(&new, PAGE, &index.page())?;
    write(&new, SUMS, &index.sums())?;
    // Beside our own lock there is nothing to make this one step: a reader of the folder between the
    // two finds none.
    if dir.exists() {
        fs::rename(dir, work.path().join("old")).map_err(PublishError::io("move", dir))?;
    }
    fs::rename(&new, dir).map_err(PublishError::io("put in place", dir))?;
    Ok(index)
}

fn take_image(
    image: &ImageFiles,
    new: &Path,
    files: &mut Vec<FileEntry>,
) -> Result<ImageEntry, PublishError> {
    let nothing = || FileEntry {
        name: String::new(),
        bytes: 0,
        sha256: String::new(),
    };
    let mut entry = ImageEntry {
        variant: image.variant.clone(),
        version: image.version.clone(),
        kernel: image.kernel.clone(),
        disk: nothing(),
        compressed: nothing(),
        checks: image.checks,
        passed: image.passed,
        delta: None,
    };
    let folder = entry.folder();
    for (name, path) in listed(&image.dir)? {
        if path.is_dir() {
            take(&path, &format!("{folder}/{name}"), new, files)?;
            continue;
        }
        let file = put(
            &path,
            &format!("{folder}/{name}"),
            new,
            image.known.get(&name),
        )?;
        if name == image.disk {
            entry.disk = file.clone();
        }
        if name == image.compressed {
            entry.compressed = file.clone();
        }
        files.push(file);
    }
    for (what, file) in [
        (&image.disk, &entry.disk),
        (&image.compressed, &entry.compressed),
    ] {
        if file.name.is_empty() {
            let path = image.dir.join(what);
            return Err(PublishError::io("find", path)(
                io::ErrorKind::NotFound.into(),
            ));
        }
    }
    Ok(entry)
}

/// Names and paths of a folder, in order, without what begins with a dot.
fn listed(dir: &Path) -> Result<Vec<(String, PathBuf)>, PublishError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(PublishError::io("list", dir))? {
        let entry = entry.map_err(PublishError::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Takes a file, or a folder with all that is in it.
fn take(
    path: &Path,
    name: &str,
    new: &Path,
    files: &mut Vec<FileEntry>,
) -> Result<(), PublishError> {
    if !path.is_dir() {
        files.push(put(path, name, new, None)?);
        return Ok(());
    }
    for (below, path) in listed(path)? {
        take(&path, &format!("{name}/{below}"), new, files)?;
    }
    Ok(())
}

/// Links or copies one file.
fn put(
    path: &Path,
    name: &str,
    new: &Path,
    known: Option<&String>,
) -> Result<FileEntry, PublishError> {
    let to = new.join(name);
    let dir = to.parent().unwrap_or(new);
    fs::create_dir_all(dir).map_err(PublishError::io("make", dir))?;
    // A file that is written to later would change in the bundle too: only what is sealed is linked.
    let linked = known.is_some() && fs::hard_link(path, &to).is_ok();
    if !linked {
        fs::copy(path, &to).map_err(PublishError::io("copy", path))?;
    }
    let entry = match known {
        Some(sha256) => to.metadata().map(|meta| FileEntry {
            name: name.to_owned(),
            bytes: meta.len(),
            sha256: sha256.clone(),
        }),
        None => FileEntry::of(&to, name),
    };
    entry.map_err(PublishError::io("read", path))
}

/// One archive of a dossier: its disks and memory are mostly holes.
async fn pack(
    dossier: &Path,
    new: &Path,
    files: &mut Vec<FileEntry>,
    log: &Path,
) -> Result<(), PublishError> {
    let (parent, leaf) = (
        dossier.parent().unwrap_or(Path::new("/")),
        dossier
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    );
    let name = format!("{DOSSIERS}/{leaf}.tar.zst");
    let to = new.join(&name);
    let dir = new.join(DOSSIERS);
    fs::create_dir_all(&dir).map_err(PublishError::io("make", &dir))?;
    let command = Kept::new("tar")
        .args(["--create", "--sparse", "--zstd"])
        .arg("--file")
        .arg(&to)
        .arg("--directory")
        .arg(parent)
        .args(["--", &leaf]);
    run::output(command, &format!("pack {}", dossier.display()), log).await?;
    let entry = FileEntry::of(&to, &name).map_err(PublishError::io("read", &to))?;
    files.push(entry);
    Ok(())
}

fn write(new: &Path, name: &str, text: &str) -> Result<(), PublishError> {
    let path = new.join(name);
    fs::create_dir_all(new)
        .and_then(|()| fs::write(&path, text))
        .map_err(PublishError::io("write", path))
}
