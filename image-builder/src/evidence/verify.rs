//! Everything beside an image held against everything else, and a signature over it.
//!
//! The signature (ssh-keygen(1), "-Y sign") is over `SHA256SUMS`, which names every other file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use image::inspect::Tree;
use image::{FileRecord, Image, Manifest, STAMP};
use serde_json::Value;

use crate::stages::seal::{SUMS, VERDICT};
use crate::{BuildError, evidence};

/// What a signature is for: one made for something else does not count.
const NAMESPACE: &str = "vexfs-image";
/// The file ssh-keygen writes.
const SIGNATURE: &str = "SHA256SUMS.sig";
/// Files that come and go beside a sealed image.
const UNSEALED: &[&str] = &[SUMS, SIGNATURE, STAMP, VERDICT];

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What must hold, as a sentence.
    pub what: &'static str,
    /// What does not, a line each; empty when it holds.
    pub wrong: Vec<String>,
}

/// Holds everything in an image's directory against everything else: digests, manifest, bills of
/// materials, provenance, the packages in the disk itself, and the signature.
///
/// With `signers` (ssh-keygen(1), "ALLOWED SIGNERS") there must be a signature of one of them;
/// without, a signature that is there must at least be whole.
///
/// # Errors
/// When there is no image, or its disk cannot be read. What does not hold is no error but in the
/// findings.
pub async fn verify(dir: &Path, signers: Option<&Path>) -> Result<Vec<Finding>, BuildError> {
    let image = Image::read(dir.to_owned())?;
    let mut findings = vec![
        Finding {
            what: "every file has the digest SHA256SUMS says, and none is left out",
            wrong: sums(dir).map_err(BuildError::io("read", dir))?,
        },
        Finding {
            what: "the files are those of the manifest",
            wrong: image
                .verify()
                .err()
                .map(|e| e.to_string())
                .into_iter()
                .collect(),
        },
        Finding {
            what: "both bills of materials name the manifest's packages, and the provenance its disk",
            wrong: documents(dir, &image.manifest),
        },
    ];
    let tree = Tree::of_disk(&image.disk).await?;
    findings.push(Finding {
        what: "the packages in the disk are those of the manifest",
        wrong: packages(&image.manifest, &tree),
    });
    findings.push(signature(dir, signers).await);
    Ok(findings)
}

/// Signs an image's checksums with an SSH key; the signature is put beside them.
///
/// # Errors
/// When ssh-keygen cannot use the key.
pub async fn sign(dir: &Path, key: &Path) -> Result<(), BuildError> {
    let bad = |said: String| BuildError::BadRequest {
        field: "--sign",
        value: key.display().to_string(),
        remedy: format!("ssh-keygen says: {said}"),
    };
    let key_path = std::path::absolute(key).map_err(BuildError::io("find", key))?;
    let (fine, said) = ssh_keygen(dir, &["-Y", "sign", "-n", NAMESPACE, "-f"], &[&key_path])
        .await
        .map_err(|e| bad(e.to_string()))?;
    if fine { Ok(()) } else { Err(bad(said)) }
}

/// Runs ssh-keygen on SHA256SUMS (its standard input, and where it signs its last argument).
async fn ssh_keygen(dir: &Path, words: &[&str], paths: &[&Path]) -> io::Result<(bool, String)> {
    let out = tempfile::NamedTempFile::new()?;
    let is_sign = words.contains(&"sign");
    let mut command = keeper::Kept::new("ssh-keygen")
        .args(words.to_vec())
        .args(paths)
        .stdin(fs::File::open(dir.join(SUMS))?)
        .stdout(out.reopen()?)
        .stderr(fs::File::options().append(true).open(out.path())?)
        .current_dir(dir);
    if is_sign {
        // It asks before it writes over an older one.
        match fs::remove_file(dir.join(SIGNATURE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => command = command.arg(SUMS),
        }
    }
    let status = command.spawn().await?.wait().await?;
    let said = fs::read_to_string(out.path())?;
    Ok((status.success(), said.trim().to_owned()))
}

async fn signature(dir: &Path, signers: Option<&Path>) -> Finding {
    let what = match signers {
        Some(_) => "an allowed signer signed the checksums",
        None => "the signature, if there is one, is whole",
    };
    let there = dir.join(SIGNATURE).is_file();
    let wrong = match (signers, there) {
        (None, false) => Ok(None),
        (Some(_), false) => Ok(Some(format!("there is no {SIGNATURE}"))),
        (None, true) => {
            let words = ["-Y", "check-novalidate", "-n", NAMESPACE, "-s", SIGNATURE];
            failure(ssh_keygen(dir, &words, &[]).await)
        }
        (Some(signers), true) => by_signer(dir, signers).await,
    };
    Finding {
        what,
        wrong: match wrong {
            Ok(wrong) => wrong.into_iter().collect(),
            Err(error) => vec![error.to_string()],
        },
    }
}

fn failure(ended: io::Result<(bool, String)>) -> io::Result<Option<String>> {
    let (fine, said) = ended?;
    Ok((!fine).then_some(said))
}

async fn by_signer(dir: &Path, signers: &Path) -> io::Result<Option<String>> {
    let signers = std::path::absolute(signers)?;
    let find = ["-Y", "find-principals", "-s", SIGNATURE, "-f"];
    let (found, said) = ssh_keygen(dir, &find, &[&signers]).await?;
    if !found {
        return Ok(Some(format!("no allowed signer made {SIGNATURE}: {said}")));
    }
    let who = said.lines().next().unwrap_or_default();
    let check = [
        "-Y", "verify", "-n", NAMESPACE, "-s", SIGNATURE, "-I", who, "-f",
    ];
    failure(ssh_keygen(dir, &check, &[&signers]).await)
}

fn sums(dir: &Path) -> io::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for line in fs::read_to_string(dir.join(SUMS))?.lines() {
        let Some((digest, name)) = line
            .split_once("  ")
            .filter(|(_, name)| !name.contains('/'))
        else {
            wrong.push(format!("no digest and name: {line}"));
            continue;
        };
        named.insert(name.to_owned());
        match FileRecord::of(&dir.join(name)) {
            Ok(have) if have.sha256 == digest => {}
            Ok(have) => wrong.push(format!("{name} has {}, not {digest}", have.sha256)),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !named.contains(&name) && !UNSEALED.contains(&name.as_str()) {
            wrong.push(format!("{name} is in no line of {SUMS}"));
        }
    }
    Ok(wrong)
}

fn documents(dir: &Path, manifest: &Manifest) -> Vec<String> {
    let name = manifest.disk.name.trim_end_matches(".qcow2");
    let mut wrong = Vec::new();
    let wanted: BTreeSet<(&str, &str)> = manifest
        .packages
        .iter()
        .map(|package| (package.name.as_str(), package.version.as_str()))
        .collect();
    for (suffix, _) in evidence::DOCUMENTS {
        let file = format!("{name}{suffix}");
        let text = fs::read(dir.join(&file)).map_err(|e| e.to_string());
        let parsed =
            text.and_then(|t| serde_json::from_slice::<Value>(&t).map_err(|e| e.to_string()));
        let document = match parsed {
            Ok(document) => document,
            Err(error) => {
                wrong.push(format!("{file}: {error}"));
                continue;
            }
        };
        let entries = |list: &str| document[list].as_array().cloned().unwrap_or_default();
        let subjects = entries("subject");
        if !subjects.is_empty() {
            let disks = [&manifest.disk, &manifest.compressed];
            for record in disks.into_iter().chain(manifest.formats.values()) {
                let says = |s: &Value| {
                    s["name"] == record.name.as_str()
                        && s["digest"]["sha256"] == record.sha256.as_str()
                };
                if !subjects.iter().any(says) {
                    wrong.push(format!(
                        "{file} does not have the digest of {}",
                        record.name
                    ));
                }
            }
            continue;
        }
        let packages = [entries("packages"), entries("components")].concat();
        let found: Vec<(String, String)> = packages.iter().filter_map(debian).collect();
        let found: BTreeSet<(&str, &str)> = found
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        for (name, version) in wanted.symmetric_difference(&found) {
            let where_ = if wanted.contains(&(*name, *version)) {
                "lacks"
            } else {
                "has of its own"
            };
            wrong.push(format!("{file} {where_} {name} {version}"));
        }
    }
    wrong
}

/// Name and version of an entry that is a Debian package, by its package URL.
fn debian(entry: &Value) -> Option<(String, String)> {
    let url = entry["purl"]
        .as_str()
        .or(entry["externalRefs"][0]["referenceLocator"].as_str())?;
    let version = entry["version"]
        .as_str()
        .or(entry["versionInfo"].as_str())?;
    url.starts_with("pkg:deb/")
        .then_some((entry["name"].as_str()?.to_owned(), version.to_owned()))
}

fn packages(manifest: &Manifest, tree: &Tree) -> Vec<String> {
    let by_name = |packages: &[image::Package]| -> BTreeMap<String, String> {
        packages
            .iter()
            .map(|p| (format!("{}:{}", p.name, p.architecture), p.version.clone()))
            .collect()
    };
    let (said, there) = (by_name(&manifest.packages), by_name(&tree.packages()));
    let names: BTreeSet<&String> = said.keys().chain(there.keys()).collect();
    names
        .into_iter()
        .filter(|name| said.get(*name) != there.get(*name))
        .map(|name| {
            let version = |of: &BTreeMap<String, String>| {
                of.get(name).cloned().unwrap_or_else(|| "none".into())
            };
            format!(
                "{name}: the manifest says {}, the disk has {}",
                version(&said),
                version(&there)
            )
        })
        .collect()
}
