//! An OCI registry as a destination, through skopeo(1): who may write there, and whether its
//! certificate counts, is said where skopeo looks (`containers-auth.json(5)`,
//! `containers-registries.conf(5)`).

use std::path::Path;

use keeper::Kept;
use serde_json::Value;

use crate::folder::Brought;
use crate::layout::{self, PUBLISHED};
use crate::release::{Latest, Options, Published, Release, published};
use crate::{Destination, PublishError, run};

/// A repository of a registry.
struct Repository<'a> {
    name: &'a str,
    registries_conf: Option<&'a Path>,
    log: &'a Path,
}

impl Repository<'_> {
    async fn skopeo(
        &self,
        doing: &str,
        words: impl IntoIterator<Item = String>,
    ) -> Result<Vec<u8>, PublishError> {
        let mut command = Kept::new("skopeo");
        if let Some(file) = self.registries_conf {
            command = command.arg("--registries-conf").arg(file);
        }
        let command = command.args(words);
        run::output(command, &format!("{doing} at oci:{}", self.name), self.log).await
    }

    fn reference(&self, tag: &str) -> String {
        format!("docker://{}:{tag}", self.name)
    }

    async fn copy(&self, from: &str, to: &str) -> Result<(), PublishError> {
        // Digests name the files to whoever fetches them: nothing may be packed anew on the way.
        let words = [
            "copy",
            "--quiet",
            "--preserve-digests",
            "--retry-times",
            "3",
            from,
            to,
        ];
        self.skopeo("copy", words.map(str::to_owned))
            .await
            .map(drop)
    }

    /// The tags; none of a repository that is not there yet.
    async fn tags(&self) -> Result<Vec<String>, PublishError> {
        let words = ["list-tags".to_owned(), format!("docker://{}", self.name)];
        let text = match self.skopeo("list tags", words).await {
            Ok(text) => text,
            // How the error reads depends on the registry and on skopeo's version.
            Err(PublishError::Program { said, .. })
                if ["404 (Not Found)", "name unknown", "NAME_UNKNOWN"]
                    .iter()
                    .any(|word| said.contains(word)) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let document: Value = serde_json::from_slice(&text).unwrap_or_default();
        let tags = document["Tags"].as_array().cloned().unwrap_or_default();
        Ok(tags
            .iter()
            .filter_map(|tag| Some(tag.as_str()?.to_owned()))
            .collect())
    }

    /// A tag's manifest, as it is.
    async fn manifest(&self, tag: &str) -> Result<Vec<u8>, PublishError> {
        let words = ["inspect".to_owned(), "--raw".into(), self.reference(tag)];
        self.skopeo("read the manifest", words).await
    }
}

/// Brings a release into a repository.
pub(crate) async fn publish(
    mut release: Release,
    to: &str,
    place: &Destination,
    options: &Options,
) -> Result<Published, PublishError> {
    let repository = Repository {
        name: to,
        registries_conf: options.registries_conf.as_deref(),
        log: &options.log,
    };
    let image = release.image.clone();
    let (tag, latest) = (layout::tag(&image), layout::latest_tag(&image.variant));
    let there = repository.tags().await?;
    let before = match there.contains(&latest) {
        true => Some(digest(&repository.manifest(&latest).await?)),
        false => None,
    };
    let delta = match &before {
        None => Err("nothing was published before".into()),
        Some(manifest) => {
            let earlier = release.work.path().join("earlier");
            let local = format!("oci:{}:earlier", earlier.display());
            repository
                .copy(&repository.reference(&latest), &local)
                .await?;
            layout::delta_from(&mut release, &earlier, manifest, &options.log).await?
        }
    };
    let index = release.describe()?;
    let artifact = layout::artifact(&release, &index, options.now)?;
    let staged = release.work.path().join("layout");
    layout::stage(&artifact, &staged, &tag)?;
    let local = format!("oci:{}:{tag}", staged.display());
    repository.copy(&local, &repository.reference(&tag)).await?;
    // A registry checks each blob it is given; that the manifest names these is seen here.
    let is = digest(&repository.manifest(&tag).await?);
    if is != artifact.digest {
        return Err(PublishError::Digest {
            name: format!("the manifest of {tag}"),
            place: place.to_string(),
            wanted: artifact.digest,
            is,
        });
    }
    let pointer = match (image.passed, before) {
        (false, before) => Latest::Withheld { remains: before },
        (true, Some(before)) if before == artifact.digest => Latest::Stays,
        (true, _) => {
            repository
                .copy(&repository.reference(&tag), &repository.reference(&latest))
                .await?;
            Latest::Moved
        }
    };
    let removed = match options.keep_last {
        Some(keep) => retain(&repository, &image.variant, keep.max(1)).await?,
        None => Vec::new(),
    };
    let bytes = artifact.blobs.iter().map(|(blob, _)| blob.bytes).sum();
    let brought = Brought {
        sent: artifact.blobs.len(),
        bytes,
        ..Brought::default()
    };
    Ok(published(place, &image, brought, delta, pointer, removed))
}

/// Removes the oldest releases of a variant; what `latest` names stays.
async fn retain(
    repository: &Repository<'_>,
    variant: &str,
    keep: usize,
) -> Result<Vec<String>, PublishError> {
    let tags = repository.tags().await?;
    let latest = layout::latest_tag(variant);
    let latest = match tags.contains(&latest) {
        true => Some(digest(&repository.manifest(&latest).await?)),
        false => None,
    };
    let mut releases = Vec::new();
    for tag in tags
        .into_iter()
        .filter(|tag| layout::is_release(tag, variant))
    {
        let text = repository.manifest(&tag).await?;
        let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
        let at = manifest["annotations"][PUBLISHED].as_str();
        let at: u64 = at.and_then(|at| at.parse().ok()).unwrap_or(0);
        releases.push((at, tag, digest(&text)));
    }
    releases.sort_by(|a, b| b.cmp(a));
    let mut removed = Vec::new();
    let kept: Vec<String> = releases
        .iter()
        .take(keep)
        .map(|(_, _, it)| it.clone())
        .collect();
    for (_, tag, it) in releases.into_iter().skip(keep) {
        // A registry removes manifests, not tags: one that another tag names must stay.
        if Some(&it) == latest.as_ref() || kept.contains(&it) {
            continue;
        }
        let words = ["delete".to_owned(), repository.reference(&tag)];
        repository.skopeo("remove an old release", words).await?;
        removed.push(tag);
    }
    Ok(removed)
}

/// `sha256:…` of a manifest.
fn digest(manifest: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!("sha256:{}", hex::encode(Sha256::digest(manifest)))
}
