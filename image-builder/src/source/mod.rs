//! The source tree to build: a folder, a tarball, or a commit of a git repository. What was said
//! about it is checked before anything else happens.

mod checks;
pub(crate) mod git;
pub(crate) mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use image::{FileRecord, SourceConfig, SourceOrigin};
use serde::{Deserialize, Serialize};

use self::checks::{check_digest, refused, without_secrets, words_of};
use crate::run::Site;
use crate::{BuildError, BuildRequest};

pub use checks::SourceChecks;

/// Name of the step in logs, and of the folder in the cache.
pub(crate) const STEP: &str = "source";
const CACHE: &str = "sources";
/// How many unpacked trees are kept; the least recently made go first.
const KEPT: usize = 4;
/// The tree's folder in a cache entry, and the file that makes a folder one.
const TREE: &str = "tree";
const DONE: &str = "done.json";

/// A tree that can be built from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) tree: PathBuf,
    pub(crate) digest: String,
    pub(crate) config: SourceConfig,
    pub(crate) origin: SourceOrigin,
}

/// What the user's word names.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Folder(PathBuf),
    Tarball(PathBuf),
    Git { url: String, revision: String },
}

/// What is remembered of an unpacked tree.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    sha256: String,
    origin: SourceOrigin,
}

/// Gets the tree of a request into reach and checks it.
pub(crate) async fn prepare(site: &Site<'_>, request: &BuildRequest) -> Result<Source, BuildError> {
    let checks = &request.source_checks;
    let want = checks.digest.as_deref().map(sha256).transpose()?;
    let word = Word::parse(&request.source)?;
    if checks.signed_tag && !matches!(word, Word::Git { .. }) {
        return Err(refused(
            &request.source,
            "only a tag of a git repository is signed: name one by URL@TAG",
        ));
    }
    let (tree, origin, digest) = match word {
        Word::Folder(dir) => {
            let dir = std::path::absolute(&dir).map_err(BuildError::io("find", &dir))?;
            let digest = tree::digest(&dir).map_err(BuildError::io("read", &dir))?;
            check_digest(&request.source, "the tree", want.as_deref(), &digest)?;
            (dir, SourceOrigin::default(), digest)
        }
        Word::Tarball(file) => {
            let record = FileRecord::of(&file).map_err(BuildError::io("read", &file))?;
            check_digest(&request.source, "the file", want.as_deref(), &record.sha256)?;
            let origin = SourceOrigin {
                tarball: Some(record.name),
                tarball_sha256: Some(record.sha256.clone()),
                ..SourceOrigin::default()
            };
            let name = format!("tarball-{}", record.sha256);
            unpacked(site, &name, origin, async |to| {
                untar(site, &file, to).await?;
                Ok(single_folder(to))
            })
            .await?
        }
        Word::Git { url, revision } => {
            let fetched = git::fetch(site, &url, &revision, checks).await?;
            let origin = SourceOrigin {
                git: Some(without_secrets(&url)),
                revision: Some(revision),
                commit: Some(fetched.commit.clone()),
                signature: fetched.signature.clone(),
                ..SourceOrigin::default()
            };
            let name = format!("git-{}", fetched.commit);
            let found = unpacked(site, &name, origin, async |to| {
                git::check_out(site, &url, &fetched, to).await?;
                Ok(None)
            })
            .await?;
            check_digest(&request.source, "the tree", want.as_deref(), &found.2)?;
            found
        }
    };
    let config = match &checks.config {
        Some(file) => given(file)?,
        None => SourceConfig::of_tree(&tree)?,
    };
    Ok(Source {
        tree,
        digest,
        config,
        origin,
    })
}

impl Word {
    fn parse(source: &Path) -> Result<Word, BuildError> {
        if source.is_dir() {
            return Ok(Word::Folder(source.to_owned()));
        }
        if source.is_file() {
            return Ok(Word::Tarball(source.to_owned()));
        }
        let missing = |said: &str| BuildError::MissingSource {
            path: source.to_owned(),
            said: said.into(),
        };
        let text = source
            .to_str()
            .ok_or_else(|| missing("the name is not text"))?;
        // `https://me@host/x.git@v1`: a revision comes after the last slash of the address, unless
        // the revision itself has one (`release/1.0`).
        match text.rsplit_once('@') {
            Some((url, revision)) if !url.is_empty() && !revision.contains(':') => {
                git::check_words(url, revision).map_err(|said| refused(source, said))?;
                Ok(Word::Git {
                    url: url.into(),
                    revision: revision.into(),
                })
            }
            _ if text.contains("://") => Err(missing(
                "it is an address without a revision. Name a commit or a tag: URL@REVISION",
            )),
            _ => Err(missing(
                "there is no such folder or tarball. Give the folder in which `make vm-build` makes \
                 the module, a tarball of it, or URL@REVISION of a git repository, by --vexfs-source",
            )),
        }
    }
}

/// The tree below the cache that `make` leaves in an empty folder, or in the one it names in there;
/// made again if it is not as it was.
async fn unpacked(
    site: &Site<'_>,
    name: &str,
    origin: SourceOrigin,
    make: impl AsyncFnOnce(&Path) -> Result<Option<PathBuf>, BuildError>,
) -> Result<(PathBuf, SourceOrigin, String), BuildError> {
    let home = site.cache.join(CACHE);
    fs::create_dir_all(&home).map_err(BuildError::io("make", &home))?;
    let dir = home.join(name);
    let _lock = site.lock(&home.join(format!(".{name}.lock"))).await?;
    let done: Option<Done> = fs::read(dir.join(DONE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let tree = dir.join(TREE);
    if let Some(done) = done
        && tree::digest(&tree).is_ok_and(|digest| digest == done.sha256)
    {
        return Ok((tree, origin, done.sha256));
    }
    let scratch = site.scratch(STEP)?;
    let entry = scratch.path().join("entry");
    let unpacked = scratch.path().join("unpacked");
    for dir in [&entry, &unpacked] {
        fs::create_dir(dir).map_err(BuildError::io("make", dir))?;
    }
    let root = make(&unpacked).await?.unwrap_or(unpacked);
    fs::rename(&root, entry.join(TREE)).map_err(BuildError::io("rename", &root))?;
    let sha256 = tree::digest(&entry.join(TREE)).map_err(BuildError::io("read", &entry))?;
    let done = Done {
        sha256: sha256.clone(),
        origin: origin.clone(),
    };
    let text = serde_json::to_vec_pretty(&done).unwrap_or_default();
    fs::write(entry.join(DONE), text).map_err(BuildError::io("write", entry.join(DONE)))?;
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(BuildError::io("remove", &dir))?;
    }
    fs::rename(&entry, &dir).map_err(BuildError::io("rename", &entry))?;
    evict(&home, &dir);
    Ok((tree, origin, sha256))
}

/// Trees of long ago go; what cannot be removed costs only space.
fn evict(home: &Path, keep: &Path) {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries
        .filter(|entry| entry.path() != keep && entry.path().is_dir())
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    dirs.sort();
    dirs.reverse();
    for (_, dir) in dirs.drain(..).skip(KEPT - 1) {
        let _left = fs::remove_dir_all(dir);
    }
}

/// What a tarball that holds one folder is about.
fn single_folder(dir: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.flatten();
    let first = entries.next()?.path();
    (entries.next().is_none() && first.is_dir() && !first.is_symlink()).then_some(first)
}

async fn untar(site: &Site<'_>, file: &Path, to: &Path) -> Result<(), BuildError> {
    // tar(1) itself keeps absolute names, `..` and links out of the folder in check.
    let command = Site::program("tar")
        .args(["--extract", "--no-same-owner", "--no-same-permissions"])
        .arg("--file")
        .args([file, "--directory".as_ref(), to]);
    site.output(STEP, command)
        .await
        .map(drop)
        .map_err(|error| refused(file, words_of(error)))
}

/// The digits of `sha256:…`.
fn sha256(word: &str) -> Result<String, BuildError> {
    let digits = word.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(digits.to_ascii_lowercase());
    }
    Err(BuildError::BadRequest {
        field: "--source-digest",
        value: word.into(),
        remedy: "a digest looks like sha256: and 64 hexadecimal digits".into(),
    })
}

/// Reads a file given beside the tree.
fn given(file: &Path) -> Result<SourceConfig, BuildError> {
    let text = fs::read_to_string(file).map_err(|error| BuildError::DataFile {
        path: file.to_owned(),
        said: format!(" {error} (--source-config; see {})", image::SOURCE_CONFIG),
    })?;
    Ok(SourceConfig::parse(&text, file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> Result<Word, String> {
        Word::parse(Path::new(word)).map_err(|error| error.to_string())
    }

    fn git(url: &str, revision: &str) -> Result<Word, String> {
        Ok(Word::Git {
            url: url.into(),
            revision: revision.into(),
        })
    }

    #[test]
    fn a_word_is_a_folder_a_tarball_or_a_revision() {
        assert_eq!(parse("/tmp"), Ok(Word::Folder("/tmp".into())));
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(parse(file), Ok(Word::Tarball(file.into())));
        assert_eq!(
            parse("https://me@host/x.git@v1.0"),
            git("https://me@host/x.git", "v1.0")
        );
        assert_eq!(
            parse("git@host:x.git@release/1.0"),
            git("git@host:x.git", "release/1.0")
        );
        let error = parse("https://host/x.git").expect_err("no revision");
        assert!(error.contains("URL@REVISION"), "{error}");
        let error = parse("git@host:x.git").expect_err("no revision");
        assert!(error.contains("no such folder"), "{error}");
        for bad in ["-u/x@v1", "https://host/x@-v1", "https://host/x@a b"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.contains("cannot be"), "{bad}: {error}");
        }
        assert!(parse("https://host/x@").is_err());
    }

    #[test]
    fn a_digest_has_sixty_four_digits() {
        let digits = "0123456789ABCDEF".repeat(4);
        assert_eq!(
            sha256(&format!("sha256:{digits}")).expect("a digest"),
            digits.to_lowercase()
        );
        for bad in ["", "sha256:", "sha256:01", digits.as_str(), "md5:0123"] {
            assert!(sha256(bad).is_err(), "{bad}");
        }
    }
}
