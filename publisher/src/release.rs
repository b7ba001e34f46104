//! Bringing a bundle's images to a destination: a release each, and `latest`.
//!
//! In a folder (here or behind SSH) it looks like this; `latest` is a link, and what begins with a dot
//! is no reader's business:
//!
//! ```text
//! vexfs-minimal/1.0.0_01a9a09fbaca/   index.json, index.html, SHA256SUMS, the image's folder, reports/,
//!                                     dossiers/, a patch from the release that was latest before
//! vexfs-minimal/latest -> 1.0.0_01a9a09fbaca
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::bundle::{DOSSIERS, PAGE, REPORTS, SUMS};
use crate::folder::{Brought, Folder};
use crate::index::{INDEX, SCHEMA, megabytes};
use crate::{
    Delta, Destination, FileEntry, ImageEntry, Index, PublishError, delta, layout, registry,
};

/// Names the release `latest` points to.
const LATEST: &str = "cd \"$1\" 2>/dev/null || exit 0; readlink latest || :";
/// Makes a folder for release $2, unless it is there already, and drops those of tries at other
/// releases; says where its files go.
const BEGIN: &str = "mkdir -p \"$1\"; cd \"$1\"; for it in .incoming-* .removing-*; do \
    [ ! -d \"$it\" ] || [ \"$it\" = \".incoming-$2\" ] || rm -rf \"$it\"; done; \
    if [ -d \"$2\" ]; then echo \"$2\"; else mkdir -p \".incoming-$2\"; echo \".incoming-$2\"; fi";
/// Gives release $2 its name, now that it is whole.
const SHOW: &str = "cd \"$1\"; [ -d \"$2\" ] || mv -T \".incoming-$2\" \"$2\"";
/// Moves `latest` to release $2, in one step.
const MOVE: &str = "cd \"$1\"; ln -sfn \"$2\" .latest; mv -fT .latest latest; readlink latest";
/// Keeps the $2 newest releases, release $3 and `latest`, says which went.
const RETAIN: &str = "cd \"$1\"; n=0; latest=$(readlink latest || :); \
    ls -1t -- */index.json 2>/dev/null | while IFS= read -r file; do it=${file%/index.json}; \
    [ ! -L \"$it\" ] || continue; n=$((n + 1)); \
    [ \"$n\" -gt \"$2\" ] || continue; [ \"$it\" != \"$latest\" ] && [ \"$it\" != \"$3\" ] || continue; \
    mv -T \"$it\" \".removing-$it\"; rm -rf \".removing-$it\"; echo \"$it\"; done";

/// How to publish.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many releases of a variant are kept at the destination; all if `None`. What `latest`
    /// points to is kept in any case.
    pub keep_last: Option<usize>,
    /// ssh_config(5) instead of the user's own.
    pub ssh_config: Option<PathBuf>,
    /// containers-registries.conf(5) instead of the user's own.
    pub registries_conf: Option<PathBuf>,
    /// Where programs' messages go.
    pub log: PathBuf,
    /// Folder for what is made on the way; hundreds of megabytes.
    pub scratch: PathBuf,
    /// Seconds since the epoch: releases in a registry are ordered by it.
    pub now: u64,
}

/// What came of one image at one destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The destination.
    pub place: String,
    /// The variant.
    pub variant: String,
    /// The release's name there.
    pub release: String,
    /// Files that had to be sent.
    pub sent: usize,
    /// Files that were there already, with the right digest.
    pub same: usize,
    /// Bytes sent.
    pub bytes: u64,
    /// Bytes an earlier, broken transfer had brought.
    pub resumed: u64,
    /// Bytes of the whole download, to hold the delta against.
    pub download: u64,
    /// How to come here from what was latest, or why there is no such thing.
    pub delta: Result<Delta, String>,
    /// What became of `latest`.
    pub latest: Latest,
    /// Releases that went because there are newer ones enough.
    pub removed: Vec<String>,
}

impl std::fmt::Display for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Published {
            place,
            variant,
            release,
            sent,
            same,
            latest,
            ..
        } = self;
        let sent_mb = megabytes(self.bytes);
        write!(
            f,
            "{variant} {release} to {place}: sent {sent} files ({sent_mb:.1} MB), {same} were there"
        )?;
        if self.resumed > 0 {
            let resumed = megabytes(self.resumed);
            write!(f, ", went on after {resumed:.1} MB of an earlier try")?;
        }
        match &self.delta {
            Ok(delta) => write!(
                f,
                "; delta from {} of {:.1} MB instead of {:.1} MB, applied and compared",
                delta.from_release,
                megabytes(delta.file.bytes),
                megabytes(self.download)
            )?,
            Err(why) => write!(f, "; no delta: {why}")?,
        }
        write!(f, "; latest {latest}")?;
        match self.removed.as_slice() {
            [] => Ok(()),
            removed => write!(f, "; removed {}", removed.join(", ")),
        }
    }
}

/// What became of `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Latest {
    /// It points to this release, and did before.
    Stays,
    /// It points to this release now.
    Moved,
    /// It does not point to this release: not every required check passed.
    Withheld {
        /// What it points to.
        remains: Option<String>,
    },
}

impl std::fmt::Display for Latest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Latest::Stays => f.write_str("is this already"),
            Latest::Moved => f.write_str("points here now"),
            Latest::Withheld { remains: Some(to) } => {
                write!(f, "stays at {to}: not every required check passed")
            }
            Latest::Withheld { remains: None } => {
                f.write_str("points nowhere: not every required check passed")
            }
        }
    }
}

/// One image's files as they go to a destination.
pub(crate) struct Release {
    pub(crate) image: ImageEntry,
    made: String,
    /// Names in the release, and paths here.
    pub(crate) files: Vec<(FileEntry, PathBuf)>,
    pub(crate) work: TempDir,
}

impl Release {
    /// Of a bundle, which lies at `dir`.
    fn of(
        index: &Index,
        image: &ImageEntry,
        dir: &Path,
        scratch: &Path,
    ) -> Result<Release, PublishError> {
        let own = [
            format!("{}/", image.folder()),
            format!("{REPORTS}/"),
            format!("{DOSSIERS}/{}-", image.variant),
        ];
        let files = index.files.iter();
        let files = files.filter(|file| own.iter().any(|start| file.name.starts_with(start)));
        let files = files.map(|file| (file.clone(), dir.join(&file.name)));
        fs::create_dir_all(scratch).map_err(PublishError::io("make", scratch))?;
        Ok(Release {
            image: image.clone(),
            made: index.made.clone(),
            files: files.collect(),
            work: tempfile::Builder::new()
                .prefix("publishing-")
                .tempdir_in(scratch)
                .map_err(PublishError::io("make a folder in", scratch))?,
        })
    }

    /// Where the disk is here.
    pub(crate) fn disk(&self) -> PathBuf {
        let disk = self
            .files
            .iter()
            .find(|(file, _)| file.name == self.image.disk.name);
        disk.map_or_else(PathBuf::new, |(_, path)| path.clone())
    }

    /// Adds the delta from an earlier image, whose disk is at `old`, if it is worth it.
    pub(crate) async fn delta(
        &mut self,
        old: &Path,
        from: &ImageEntry,
        log: &Path,
    ) -> Result<Result<Delta, String>, PublishError> {
        let made = delta::make(
            (old, from),
            (&self.disk(), &self.image),
            self.work.path(),
            log,
        )
        .await?;
        if let Ok(delta) = &made {
            self.files
                .push((delta.file.clone(), self.work.path().join("patch")));
            self.image.delta = Some(delta.clone());
        }
        Ok(made)
    }

    /// Adds what describes the release, the index last: where that is, everything is.
    pub(crate) fn describe(&mut self) -> Result<Index, PublishError> {
        let mut entries: Vec<FileEntry> = self.files.iter().map(|(file, _)| file.clone()).collect();
        entries.sort();
        let index = Index {
            schema: SCHEMA,
            made: self.made.clone(),
            images: vec![self.image.clone()],
            not_built: Default::default(),
            files: entries,
        };
        let texts = [
            (SUMS, index.sums()),
            (PAGE, index.page()),
            (INDEX, index.json()),
        ];
        for (name, text) in texts {
            let path = self.work.path().join(name);
            fs::write(&path, text).map_err(PublishError::io("write", &path))?;
            let entry = FileEntry::of(&path, name).map_err(PublishError::io("read", &path))?;
            self.files.push((entry, path));
        }
        Ok(index)
    }
}

/// Brings every image of the bundle at `dir` to `place`.
///
/// # Errors
/// At the first image that could not be brought; what was brought before is in place, and `latest` of
/// this one as it was.
pub async fn publish(
    index: &Index,
    dir: &Path,
    place: &Destination,
    options: &Options,
) -> Result<Vec<Published>, PublishError> {
    let mut all = Vec::new();
    for image in &index.images {
        let release = Release::of(index, image, dir, &options.scratch)?;
        all.push(match place {
            Destination::OciLayout(path) => layout::publish(release, path, place, options).await?,
            Destination::OciRegistry(to) => registry::publish(release, to, place, options).await?,
            Destination::Folder(_) | Destination::Ssh { .. } => {
                into_folder(release, place, options).await?
            }
        });
    }
    Ok(all)
}

async fn into_folder(
    mut release: Release,
    place: &Destination,
    options: &Options,
) -> Result<Published, PublishError> {
    let (image, name) = (release.image.clone(), release.image.release());
    let root = Folder::of(place, options.ssh_config.as_deref(), &options.log);
    let root = root.ok_or_else(|| PublishError::Destination {
        word: place.to_string(),
        remedy: "it is no folder".into(),
    })?;
    let home = root.join(&format!("vexfs-{}", image.variant));
    let _lock = home.lock(&image.variant).await?;
    let latest = home
        .run("find latest", LATEST, &[])
        .await?
        .trim()
        .to_owned();
    let delta = match latest.as_str() {
        "" => Err("nothing was published before".into()),
        same if same == name => Err("it is what was published before".into()),
        earlier => from_earlier(&mut release, &home.join(earlier), &options.log).await?,
    };
    release.describe()?;
    let begun = home.run("make the release", BEGIN, &[&name]).await?;
    let brought = home.join(begun.trim()).bring(&release.files).await?;
    home.run("put the release in place", SHOW, &[&name]).await?;
    let pointer = match (image.passed, latest == name) {
        (true, true) => Latest::Stays,
        (true, false) => {
            let now = home.run("move latest", MOVE, &[&name]).await?;
            match now.trim() == name {
                true => Latest::Moved,
                false => {
                    return Err(PublishError::Program {
                        doing: format!("move latest at {}", home.name),
                        said: format!("it points to {} afterwards", now.trim()),
                    });
                }
            }
        }
        (false, _) => Latest::Withheld {
            remains: (!latest.is_empty()).then_some(latest),
        },
    };
    let removed = match options.keep_last {
        Some(keep) => {
            let keep = keep.max(1).to_string();
            home.run("remove old releases", RETAIN, &[&keep, &name])
                .await?
        }
        None => String::new(),
    };
    Ok(published(
        place,
        &image,
        brought,
        delta,
        pointer,
        removed.lines().map(str::to_owned).collect(),
    ))
}

/// The outcome in one.
pub(crate) fn published(
    place: &Destination,
    image: &ImageEntry,
    brought: Brought,
    delta: Result<Delta, String>,
    latest: Latest,
    removed: Vec<String>,
) -> Published {
    Published {
        place: place.to_string(),
        variant: image.variant.clone(),
        release: image.release(),
        sent: brought.sent,
        same: brought.same,
        bytes: brought.bytes,
        resumed: brought.resumed,
        download: image.compressed.bytes,
        delta,
        latest,
        removed,
    }
}

/// The delta from a release that is there. One that cannot be read is no reason not to publish a
/// better one.
async fn from_earlier(
    release: &mut Release,
    earlier: &Folder,
    log: &Path,
) -> Result<Result<Delta, String>, PublishError> {
    let old = release.work.path().join("old");
    let from = match earlier_disk(earlier, &old, log).await {
        Ok(from) => from,
        Err(error) => {
            return Ok(Err(format!(
                "the image published before is of no use: {error}"
            )));
        }
    };
    let made = release.delta(&old, &from, log).await;
    fs::remove_file(&old).map_err(PublishError::io("remove", &old))?;
    made
}

/// Makes the disk of a release that is there at `to`.
async fn earlier_disk(earlier: &Folder, to: &Path, log: &Path) -> Result<ImageEntry, PublishError> {
    let text = earlier
        .run("read the index", "cat \"$1/index.json\"", &[])
        .await?;
    let bad = |said: String| PublishError::Unreadable {
        what: INDEX.into(),
        place: earlier.name.clone(),
        said,
    };
    let index = Index::parse(text.as_bytes()).map_err(bad)?;
    let image = index
        .images
        .into_iter()
        .next()
        .ok_or_else(|| bad("it names no image".into()))?;
    // The name comes from elsewhere.
    let name = &image.compressed.name;
    if name.starts_with('/') || name.split('/').any(|part| part.starts_with('.')) {
        return Err(bad(format!("`{name}` is no file of a release")));
    }
    let download = to.with_extension("zst");
    let made = match earlier.here() {
        Some(dir) => delta::unpack(&dir.join(name), &image, to, log).await,
        None => match earlier.fetch(name, &download).await {
            Ok(()) => delta::unpack(&download, &image, to, log).await,
            Err(error) => Err(error),
        },
    };
    if download.exists() {
        fs::remove_file(&download).map_err(PublishError::io("remove", &download))?;
    }
    made.map(|()| image)
}
