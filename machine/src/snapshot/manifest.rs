//! What is written down about a snapshot, and how it is found to be whole.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Key;
use super::key::identity;
use crate::{MachineSpec, Version};

/// Names of the files of a snapshot.
pub(super) mod files {
    /// Guest memory, with holes.
    pub(in crate::snapshot) const RAM: &str = "ram";
    /// State of all devices, as QEMU's migration stream.
    pub(in crate::snapshot) const STATE: &str = "state";
    /// The system disk's overlay at the moment of the freeze.
    pub(in crate::snapshot) const OVERLAY: &str = "system.qcow2";
    /// OVMF's variables.
    pub(in crate::snapshot) const UEFI_VARS: &str = "uefi-vars.fd";
    /// The secret that the agent in the frozen machine knows.
    pub(in crate::snapshot) const SECRET: &str = "secret";
    /// This file's own name. It is the last one written.
    pub(in crate::snapshot) const MANIFEST: &str = "manifest.json";
    /// Its time of change is when the snapshot was last used.
    pub(in crate::snapshot) const USED: &str = "used";
}

/// A snapshot's facts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The snapshot's name.
    pub key: Key,
    /// The machine that was frozen.
    pub spec: MachineSpec,
    /// SHA-256 of the image it booted.
    pub image_digest: String,
    /// The agent's version in it.
    pub agent_version: String,
    /// The QEMU that wrote the state.
    pub qemu: Version,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// Seconds from the start of the boot until it was published.
    pub took: f64,
    /// Bytes of guest memory that are not zero.
    pub memory_bytes: u64,
    /// The image file as it was: the overlay is worth nothing without it.
    image: Option<String>,
    /// The files as they were written.
    files: Vec<FileFacts>,
}

/// How a file is known to be the one that was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FileFacts {
    name: String,
    length: u64,
    modified_s: i64,
    modified_ns: i64,
    /// Only of files small enough to be read on each use.
    sha256: Option<String>,
}

/// Files up to this size are read and compared on each use, in bytes; the device state has half a
/// megabyte. Memory and disk are known by length and time of change: reading them would cost more
/// than the fork.
const READ_UP_TO: u64 = 4 << 20;

impl FileFacts {
    fn of(dir: &Path, name: &str) -> io::Result<FileFacts> {
        let path = dir.join(name);
        let meta = std::fs::metadata(&path)?;
        let sha256 = match meta.len() <= READ_UP_TO {
            true => Some(hex::encode(Sha256::digest(std::fs::read(&path)?))),
            false => None,
        };
        Ok(FileFacts {
            name: name.into(),
            length: meta.len(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
            sha256,
        })
    }
}

/// What is known about a snapshot before its files are written down.
pub(super) struct Draft {
    pub(super) key: Key,
    pub(super) spec: MachineSpec,
    pub(super) image_digest: String,
    pub(super) agent_version: String,
    pub(super) qemu: Version,
    pub(super) took: f64,
    pub(super) memory_bytes: u64,
}

impl Manifest {
    /// Writes down the files of `dir` as they are now.
    pub(super) fn write(dir: &Path, draft: Draft) -> io::Result<Manifest> {
        let mut names: Vec<String> = std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        let files = names
            .iter()
            .map(|name| FileFacts::of(dir, name))
            .collect::<io::Result<Vec<_>>>()?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let manifest = Manifest {
            image: draft.spec.image.as_deref().map(identity),
            key: draft.key,
            spec: draft.spec,
            image_digest: draft.image_digest,
            agent_version: draft.agent_version,
            qemu: draft.qemu,
            made: now.map_or(0, |now| now.as_secs()),
            took: draft.took,
            memory_bytes: draft.memory_bytes,
            files,
        };
        std::fs::write(
            dir.join(files::MANIFEST),
            serde_json::to_vec_pretty(&manifest)?,
        )?;
        Ok(manifest)
    }

    /// Reads the manifest of the snapshot in `dir`.
    pub(super) fn read(dir: &Path) -> io::Result<Manifest> {
        Ok(serde_json::from_slice(&std::fs::read(
            dir.join(files::MANIFEST),
        )?)?)
    }

    /// Why the snapshot in `dir` is not what this manifest says, if so.
    pub(super) fn flaw(&self, dir: &Path) -> Option<String> {
        for facts in &self.files {
            match FileFacts::of(dir, &facts.name) {
                Ok(now) if now == *facts => {}
                Ok(_) => return Some(format!("{} has changed", facts.name)),
                Err(error) => return Some(format!("{}: {error}", facts.name)),
            }
        }
        let changed = self.spec.image.as_deref().map(identity) != self.image;
        changed.then(|| "its image has changed".to_owned())
    }
}
