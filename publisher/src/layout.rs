//! An OCI image layout (image-spec, "OCI Image Layout") as a destination: every image is an artifact
//! whose layers are its files, named by the annotation that oras(1) reads, and a tag.
//!
//! Tags are `<variant>-<release>` and `<variant>-latest`. The blobs come first, then `index.json` by
//! rename: a reader sees the old tags or the new ones.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::folder::Folder;
use crate::release::{Latest, Options, Published, Release, published};
use crate::{Destination, FileEntry, ImageEntry, Index, PublishError};

/// What a manifest, and an index of them, is.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What our artifact, its description and the files in it are.
const ARTIFACT: &str = "application/vnd.vexfs.image.v1";
const CONFIG: &str = "application/vnd.vexfs.image.config.v1+json";
const FILE: &str = "application/vnd.vexfs.file.v1";
/// Annotations of the OCI specification.
const TITLE: &str = "org.opencontainers.image.title";
const REF: &str = "org.opencontainers.image.ref.name";
/// Ours: seconds since the epoch.
pub(crate) const PUBLISHED: &str = "vexfs.published";

/// A layout in the making.
pub(crate) struct Artifact {
    /// Blobs, named as in a layout, and where they are here.
    pub(crate) blobs: Vec<(FileEntry, PathBuf)>,
    /// Digest of the manifest, `sha256:…`.
    pub(crate) digest: String,
    manifest_bytes: u64,
}

/// Tag of a release.
pub(crate) fn tag(image: &ImageEntry) -> String {
    format!("{}-{}", image.variant, image.release().replace('+', "_"))
}

/// Tag of what is latest.
pub(crate) fn latest_tag(variant: &str) -> String {
    format!("{variant}-latest")
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

/// The artifact of a release that has been described.
pub(crate) fn artifact(
    release: &Release,
    index: &Index,
    now: u64,
) -> Result<Artifact, PublishError> {
    let mut blobs = Vec::new();
    let mut layers = Vec::new();
    for (file, path) in &release.files {
        layers.push(json!({
            "mediaType": FILE, "digest": format!("sha256:{}", file.sha256), "size": file.bytes,
            "annotations": { TITLE: file.name },
        }));
        let entry = FileEntry {
            name: blob(&file.sha256),
            ..file.clone()
        };
        blobs.push((entry, path.clone()));
    }
    let mut made = |name: &str, text: String| -> Result<FileEntry, PublishError> {
        let path = release.work.path().join(name);
        fs::write(&path, text).map_err(PublishError::io("write", &path))?;
        let mut entry = FileEntry::of(&path, name).map_err(PublishError::io("read", &path))?;
        entry.name = blob(&entry.sha256);
        blobs.push((entry.clone(), path));
        Ok(entry)
    };
    let config = made("config.json", index.json())?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT,
        "config": { "mediaType": CONFIG, "digest": format!("sha256:{}", config.sha256), "size": config.bytes },
        "layers": layers,
        "annotations": {
            TITLE: release.image.folder(),
            "org.opencontainers.image.version": release.image.version,
            PUBLISHED: now.to_string(),
        },
    });
    let manifest = made("manifest.json", manifest.to_string())?;
    Ok(Artifact {
        digest: format!("sha256:{}", manifest.sha256),
        manifest_bytes: manifest.bytes,
        blobs,
    })
}

/// What a layout's `index.json` says, as far as it is ours to change.
#[derive(Debug)]
struct Tags {
    path: PathBuf,
    document: Value,
}

impl Tags {
    fn read(root: &Path) -> Result<Tags, PublishError> {
        let path = root.join("index.json");
        let document = match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|error| PublishError::Unreadable {
                    what: "index.json".into(),
                    place: root.display().to_string(),
                    said: error.to_string(),
                })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] })
            }
            Err(error) => return Err(PublishError::io("read", path)(error)),
        };
        Ok(Tags { path, document })
    }

    fn all(&self) -> &[Value] {
        self.document["manifests"]
            .as_array()
            .map_or(&[], Vec::as_slice)
    }

    fn find(&self, tag: &str) -> Option<&Value> {
        self.all().iter().find(|one| one["annotations"][REF] == tag)
    }

    fn digest(&self, tag: &str) -> Option<String> {
        Some(self.find(tag)?["digest"].as_str()?.to_owned())
    }

    fn remove(&mut self, tag: &str) {
        if let Some(all) = self.document["manifests"].as_array_mut() {
            all.retain(|one| one["annotations"][REF] != tag);
        }
    }

    fn set(&mut self, tag: &str, artifact: &Artifact, now: u64) {
        self.remove(tag);
        let entry = json!({
            "mediaType": MANIFEST, "artifactType": ARTIFACT,
            "digest": artifact.digest, "size": artifact.manifest_bytes,
            "annotations": { REF: tag, PUBLISHED: now.to_string() },
        });
        if let Some(all) = self.document["manifests"].as_array_mut() {
            all.push(entry);
        }
    }

    /// The tags of a variant's releases, newest first.
    fn releases(&self, variant: &str) -> Vec<String> {
        let entries = self.all().iter().filter_map(|one| {
            let tag = one["annotations"][REF].as_str()?;
            let at: u64 = one["annotations"][PUBLISHED].as_str()?.parse().ok()?;
            is_release(tag, variant).then(|| (at, tag.to_owned()))
        });
        let mut entries: Vec<(u64, String)> = entries.collect();
        entries.sort_by(|a, b| b.cmp(a));
        entries.into_iter().map(|(_, tag)| tag).collect()
    }

    fn write(&self) -> Result<(), PublishError> {
        keeper::draft::file(&self.path, self.document.to_string())
            .map_err(PublishError::io("write", &self.path))
    }
}

/// Whether a tag is one of a variant's releases: `minimal-1.0.0_…`, not `minimal-latest`.
pub(crate) fn is_release(tag: &str, variant: &str) -> bool {
    let rest = tag
        .strip_prefix(variant)
        .and_then(|rest| rest.strip_prefix('-'));
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The digest of the file of that name in a manifest, and the description of the image.
fn blob_of(root: &Path, manifest: &str) -> Option<(PathBuf, ImageEntry)> {
    let path = |digest: &str| Some(root.join(blob(digest.strip_prefix("sha256:")?)));
    let read = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let manifest = read(path(manifest)?)?;
    let config = path(manifest["config"]["digest"].as_str()?)?;
    let index = Index::parse(&fs::read(config).ok()?).ok()?;
    let image = index.images.into_iter().next()?;
    let layers = manifest["layers"].as_array()?;
    let layer = layers
        .iter()
        .find(|l| l["annotations"][TITLE] == image.compressed.name)?;
    Some((path(layer["digest"].as_str()?)?, image))
}

/// Adds the delta from the image that `manifest` in the layout at `root` names.
pub(crate) async fn delta_from(
    release: &mut Release,
    root: &Path,
    manifest: &str,
    log: &Path,
) -> Result<Result<crate::Delta, String>, PublishError> {
    let useless = || {
        Ok(Err(
            "the image published before is of no use: it cannot be read".into(),
        ))
    };
    let Some((download, from)) = blob_of(root, manifest) else {
        return useless();
    };
    if from.disk.sha256 == release.image.disk.sha256 {
        return Ok(Err("it is what was published before".into()));
    }
    let old = release.work.path().join("old");
    if let Err(error) = crate::delta::unpack(&download, &from, &old, log).await {
        return Ok(Err(format!(
            "the image published before is of no use: {error}"
        )));
    }
    let made = release.delta(&old, &from, log).await;
    fs::remove_file(&old).map_err(PublishError::io("remove", &old))?;
    made
}

/// Brings a release into a layout.
pub(crate) async fn publish(
    mut release: Release,
    root: &Path,
    place: &Destination,
    options: &Options,
) -> Result<Published, PublishError> {
    let image = release.image.clone();
    let folder = Folder::of(place, None, &options.log);
    let folder = folder.ok_or_else(|| PublishError::Destination {
        word: place.to_string(),
        remedy: "it is no folder".into(),
    })?;
    let _lock = folder.lock(&image.variant).await?;
    let mut tags = Tags::read(root)?;
    let (tag, latest) = (tag(&image), latest_tag(&image.variant));
    let before = tags.digest(&latest);
    let delta = match &before {
        None => Err("nothing was published before".into()),
        Some(manifest) => delta_from(&mut release, root, manifest, &options.log).await?,
    };
    let index = release.describe()?;
    let artifact = artifact(&release, &index, options.now)?;
    let brought = folder.bring(&artifact.blobs).await?;
    let marker = root.join("oci-layout");
    fs::write(&marker, "{\"imageLayoutVersion\":\"1.0.0\"}")
        .map_err(PublishError::io("write", marker))?;
    tags.set(&tag, &artifact, options.now);
    let pointer = match image.passed {
        true => {
            tags.set(&latest, &artifact, options.now);
            match before.as_ref() == Some(&artifact.digest) {
                true => Latest::Stays,
                false => Latest::Moved,
            }
        }
        false => Latest::Withheld { remains: before },
    };
    let mut removed = Vec::new();
    if let Some(keep) = options.keep_last {
        let kept = tags.digest(&latest);
        for old in tags.releases(&image.variant).into_iter().skip(keep.max(1)) {
            if tags.digest(&old) != kept {
                tags.remove(&old);
                removed.push(old);
            }
        }
    }
    tags.write()?;
    if !removed.is_empty() {
        sweep(root, &tags)?;
    }
    Ok(published(place, &image, brought, delta, pointer, removed))
}

/// Removes the blobs that no manifest names any more.
fn sweep(root: &Path, tags: &Tags) -> Result<(), PublishError> {
    let mut named = std::collections::BTreeSet::new();
    let hex = |value: &Value| {
        value
            .as_str()
            .map(|d| d.trim_start_matches("sha256:").to_owned())
    };
    for one in tags.all() {
        let Some(digest) = hex(&one["digest"]) else {
            continue;
        };
        let path = root.join(blob(&digest));
        let text = fs::read(&path).map_err(PublishError::io("read", &path))?;
        named.insert(digest);
        let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        let parts = layers.iter().map(|layer| &layer["digest"]);
        named.extend(parts.chain([&manifest["config"]["digest"]]).filter_map(hex));
        // A nested index is somebody else's: what it names stays, whatever it is.
        if manifest["manifests"].is_array() {
            return Ok(());
        }
    }
    let dir = root.join("blobs/sha256");
    for entry in fs::read_dir(&dir)
        .map_err(PublishError::io("list", &dir))?
        .flatten()
    {
        if !named.contains(entry.file_name().to_string_lossy().as_ref()) {
            fs::remove_file(entry.path()).map_err(PublishError::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Lays an artifact out at `root` with links, for skopeo to copy.
pub(crate) fn stage(artifact: &Artifact, root: &Path, tag: &str) -> Result<(), PublishError> {
    for (entry, path) in &artifact.blobs {
        let to = root.join(&entry.name);
        let dir = to.parent().unwrap_or(root);
        fs::create_dir_all(dir).map_err(PublishError::io("make", dir))?;
        // Two files of one content are one blob.
        if !to.exists() {
            fs::hard_link(path, &to)
                .or_else(|_| fs::copy(path, &to).map(drop))
                .map_err(PublishError::io("copy", path))?;
        }
    }
    let marker = root.join("oci-layout");
    fs::write(&marker, "{\"imageLayoutVersion\":\"1.0.0\"}")
        .map_err(PublishError::io("write", marker))?;
    let mut tags = Tags::read(root)?;
    tags.set(tag, artifact, 0);
    tags.write()
}
