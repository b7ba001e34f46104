//! What was built from what, and what takes the room in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::Manifest;
use image::inspect::{Kind, Tree};
use results::Layout;
use serde::Serialize;

use super::{Fact, Link};
use crate::history::{History, Run};

/// Paths that no package of the distribution brought: ours, and what was made while building.
pub const NO_PACKAGE: &str = "(no package)";

/// An image.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// The variant.
    pub variant: String,
    /// The version it is labelled with.
    pub version: String,
    /// SHA-256 of its disk.
    pub sha256: String,
    /// The commit its source is at, when that is known.
    pub commit: Option<String>,
    /// SHA-256 over its source tree.
    pub source_sha256: String,
    /// Bytes of the disk.
    pub disk_bytes: u64,
    /// Bytes of its compressed form.
    pub download_bytes: u64,
    /// What it is made of: name and value.
    pub made_of: Vec<Fact>,
    /// The programs that made it, and their versions.
    pub tools: Vec<Fact>,
    /// The variables of the build.
    pub variables: Vec<Fact>,
    /// The stages of the build, and how many seconds each took when it last ran.
    pub stages: Vec<Named>,
    /// What lies beside it.
    pub files: Vec<Link>,
    /// What takes the room in it, when that could be seen.
    pub size: Option<Size>,
}

/// A name and a number.
#[derive(Debug, Clone, Serialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
}

/// What takes the room in an image.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// Bytes of all files in it.
    pub bytes: u64,
    /// The same of the image of the same variant before this one, when there was one.
    pub before: Option<u64>,
    /// When that one was last seen, in RFC 3339.
    pub before_seen: Option<String>,
    /// By package, largest first; packages that are gone come last.
    pub packages: Vec<PackageSize>,
}

/// The files of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageSize {
    /// The package.
    pub name: String,
    /// Bytes; 0 when it is gone.
    pub bytes: u64,
    /// Bytes in the image before; `None` when there was no such image, 0 when it was not in it.
    pub before: Option<u64>,
}

/// The manifests of all images, with their folders, by folder name. One that cannot be read is left out.
pub fn manifests(layout: &Layout) -> Vec<(PathBuf, Manifest)> {
    let Ok(entries) = std::fs::read_dir(layout.images()) else {
        return Vec::new();
    };
    let mut dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.sort();
    let read = |dir: PathBuf| {
        let text = std::fs::read(dir.join("manifest.json")).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        Some((dir, manifest))
    };
    dirs.into_iter().filter_map(read).collect()
}

/// The report of one image; `from` is the report's folder.
pub(super) fn image(from: &Path, dir: &Path, manifest: &Manifest, size: Option<Size>) -> Image {
    let disk = &manifest.disk.name;
    let stem = disk.trim_end_matches(".qcow2");
    let files = [
        "manifest.json".to_owned(),
        "SHA256SUMS".to_owned(),
        "verdict.json".to_owned(),
        disk.clone(),
        manifest.compressed.name.clone(),
        format!("{stem}.spdx.json"),
        format!("{stem}.cdx.json"),
        format!("{stem}.provenance.json"),
    ];
    let facts = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| Fact::new(k, v)).collect();
    Image {
        variant: manifest.variant.clone(),
        version: manifest.vexfs_version.clone(),
        sha256: manifest.disk.sha256.clone(),
        commit: manifest.source.commit.clone(),
        source_sha256: manifest.source.sha256.clone(),
        disk_bytes: manifest.disk.bytes,
        download_bytes: manifest.compressed.bytes,
        made_of: made_of(manifest),
        tools: facts(&manifest.tools),
        variables: facts(&manifest.variables),
        stages: manifest
            .stages
            .iter()
            .map(|stage| Named {
                name: stage.name.clone(),
                seconds: stage.seconds,
            })
            .collect(),
        files: files
            .iter()
            .filter_map(|name| Link::to(from, &dir.join(name), name))
            .collect(),
        size,
    }
}

fn made_of(manifest: &Manifest) -> Vec<Fact> {
    let source = &manifest.source;
    let origin = &source.origin;
    let kernel = &manifest.kernel;
    let module = &manifest.module;
    let mut facts = vec![Fact::new("source", source.config.name.clone())];
    let mut fact = |name: &str, value: Option<String>| {
        facts.extend(value.map(|value| Fact::new(name, value)));
    };
    fact(
        "commit",
        source.commit.clone().or_else(|| origin.commit.clone()),
    );
    fact("repository", origin.git.clone());
    fact("revision", origin.revision.clone());
    fact("tarball", origin.tarball.clone());
    fact("signature", origin.signature.clone());
    fact("source tree SHA-256", Some(source.sha256.clone()));
    fact(
        "kernel",
        Some(format!(
            "{} ({} {})",
            kernel.release, kernel.package, kernel.version
        )),
    );
    fact(
        "module",
        Some(match &module.version {
            Some(version) => format!("{} {version}", module.name),
            None => module.name.clone(),
        }),
    );
    fact("module SHA-256", Some(module.sha256.clone()));
    for (name, program) in &manifest.programs {
        fact(name, Some(program.version.clone()));
    }
    fact("Debian packages", Some(manifest.packages.len().to_string()));
    fact("disk SHA-256", Some(manifest.disk.sha256.clone()));
    fact("build key", Some(manifest.key.clone()));
    facts
}

/// Bytes of files by package, read out of the disk.
///
/// # Errors
/// What the disk said, as a sentence.
pub async fn by_package(disk: &Path) -> Result<BTreeMap<String, u64>, String> {
    let tree = Tree::of_disk(disk).await.map_err(|e| e.to_string())?;
    let owners = tree.owners();
    let mut sums = BTreeMap::new();
    for (path, node) in &tree.nodes {
        if let Kind::File { bytes, .. } = node.kind {
            let owner = owners.of(path).unwrap_or(NO_PACKAGE);
            *sums.entry(owner.to_owned()).or_default() += bytes;
        }
    }
    Ok(sums)
}

/// The image of this variant that the latest run with another one was about, and what took the room in
/// it, when that is known.
pub(super) fn before(
    history: &History,
    runs: &[Run],
    manifest: &Manifest,
) -> Option<(u64, BTreeMap<String, u64>)> {
    runs.iter().rev().find_map(|run| {
        let mut marks = run.images.iter();
        let mark = marks
            .find(|mark| mark.variant == manifest.variant && mark.sha256 != manifest.disk.sha256)?;
        let sizes = history.sizes(&mark.sha256).ok().flatten()?;
        Some((run.at_ms / 1000, sizes))
    })
}

/// Puts an image beside the one before.
pub(super) fn size(
    now: &BTreeMap<String, u64>,
    before: Option<(u64, BTreeMap<String, u64>)>,
) -> Size {
    let was = |name: &String| {
        let (_, before) = before.as_ref()?;
        Some(before.get(name).copied().unwrap_or(0))
    };
    let mut packages: Vec<PackageSize> = now
        .iter()
        .map(|(name, bytes)| PackageSize {
            name: name.clone(),
            bytes: *bytes,
            before: was(name),
        })
        .collect();
    let gone = before.iter().flat_map(|(_, before)| before);
    packages.extend(
        gone.filter(|(name, _)| !now.contains_key(*name))
            .map(|(name, bytes)| PackageSize {
                name: name.clone(),
                bytes: 0,
                before: Some(*bytes),
            }),
    );
    packages.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    Size {
        bytes: now.values().sum(),
        before: before.as_ref().map(|(_, before)| before.values().sum()),
        before_seen: before.as_ref().map(|(at, _)| super::rfc3339(*at)),
        packages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_names_what_came_what_went_and_what_grew() {
        let map = |rows: &[(&str, u64)]| {
            rows.iter()
                .map(|(name, bytes)| ((*name).to_owned(), *bytes))
                .collect::<BTreeMap<_, _>>()
        };
        let now = map(&[("kernel", 90), ("perl", 10), ("new", 5)]);
        let before = map(&[("kernel", 80), ("perl", 10), ("gone", 7)]);
        let size = size(&now, Some((0, before)));
        assert_eq!((size.bytes, size.before), (105, Some(97)));
        let rows: Vec<(&str, u64, Option<u64>)> = size
            .packages
            .iter()
            .map(|p| (p.name.as_str(), p.bytes, p.before))
            .collect();
        let expected = [
            ("kernel", 90, Some(80)),
            ("perl", 10, Some(10)),
            ("new", 5, Some(0)),
            ("gone", 0, Some(7)),
        ];
        assert_eq!(rows, expected);
        let alone = super::size(&now, None);
        assert!(alone.packages.iter().all(|p| p.before.is_none()));
    }
}
