//! `dossier.json`: everything about a failure that a program needs, as plain data; and the page for people.
//!
//! What a machine was made of is a type of whoever starts machines: it stands here as a parameter. A reader
//! that does not care leaves it at its default.

mod page;

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use page::page;

use crate::{Outcome, Subject};

/// The only value of [`Facts::format`] this version reads and writes.
pub const FORMAT: u32 = 2;

/// Names of the files of a dossier.
pub mod files {
    /// The page for people.
    pub const README: &str = "README.md";
    /// The facts; the last file written.
    pub const FACTS: &str = "dossier.json";
    /// The serial consoles.
    pub const CONSOLE: &str = "console.log";
    /// What the kernels said.
    pub const KERNEL_LOG: &str = "kernel.log";
    /// What the agents were asked, when, and what they answered.
    pub const TRANSCRIPT: &str = "transcript.log";
    /// The first kernel report with source files and lines.
    pub const OOPS: &str = "oops.txt";
    /// Traces and registers taken when the deadline had passed.
    pub const LAST_WORDS: &str = "last-words.txt";
    /// The module that was tried in the place of the image's own.
    pub const MODULE: &str = "module.ko";
    /// The same with its debug information.
    pub const MODULE_DEBUG: &str = "module.debug.ko";
    /// The image's manifest.
    pub const IMAGE: &str = "image-manifest.json";
    /// In a machine's folder: QEMU's command line.
    pub const ARGUMENTS: &str = "qemu.args";
    /// In a machine's folder: what the guest wrote to its system disk.
    pub const OVERLAY: &str = "system.qcow2";
    /// In a machine's folder: the overlay below [`OVERLAY`], of a machine that was forked.
    pub const BASE: &str = "base.qcow2";
    /// In a machine's folder: guest memory of a frozen machine.
    pub const RAM: &str = "ram";
    /// In a machine's folder: device state of a frozen machine.
    pub const STATE: &str = "state";
    /// In a machine's folder: what crash(8) reads.
    pub const DUMP: &str = "memory.kdump";
}

/// A check's failure, or its pass when those are kept too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts<Made = serde_json::Value> {
    /// Version of this format.
    pub format: u32,
    /// The case, as reports name it: `minimal::quick::mkfs_mount`.
    pub case: String,
    /// The image's variant.
    pub variant: String,
    /// The check's name in the registry.
    pub check: String,
    /// What had to hold, as a sentence.
    pub about: String,
    /// What became of it.
    pub outcome: Told,
    /// The first thing the kernel log shows that it should not.
    pub first_finding: Option<String>,
    /// Whether the kernel log has a report with a call trace, which [`files::OOPS`] then explains.
    pub oops: bool,
    /// Whether the deadline passed, so that there are [`files::LAST_WORDS`].
    pub overran: bool,
    /// When it was written, in seconds since 1970.
    pub written: u64,
    /// Seconds the check took until its verdict, machine included.
    pub took_s: f64,
    /// Seconds the check may take.
    pub deadline_s: f64,
    /// The seed of all randomness in its story.
    pub seed: u64,
    /// What a test broke on purpose.
    pub breaks: Vec<Broken>,
    /// What ties it to an image, a host and machines.
    pub properties: Vec<(String, String)>,
    /// The image it ran on.
    pub image: ImageFacts,
    /// The module that was in the place of the image's own; its files are in the dossier.
    #[serde(default)]
    pub subject: Option<Subject>,
    /// The disk with the test tools.
    pub tools: PathBuf,
    /// The checkout's `out/`.
    pub out: PathBuf,
    /// Seconds from power-on to the agent's answer, at most.
    pub boot_deadline_s: f64,
    /// Its machines, in the order of their start; `machine-1` is the folder of the first.
    pub machines: Vec<MachineFacts<Made>>,
}

/// An outcome, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What sort: `pass`, `skip`, `infrastructure`, or the kind of failure.
    pub kind: String,
    /// One line.
    pub title: String,
    /// All that is known.
    pub detail: String,
}

impl From<&Outcome> for Told {
    fn from(outcome: &Outcome) -> Told {
        let (kind, title, detail) = outcome.failure();
        Told {
            kind: kind.into(),
            title: title.into(),
            detail: detail.into(),
        }
    }
}

/// Something a test broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The point of the story.
    pub point: String,
    /// The script that was run there.
    pub script: String,
    /// What was put into the guest for it: a file of the host, and its path there.
    #[serde(default)]
    pub files: Vec<(PathBuf, String)>,
}

/// An image, by reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Its folder.
    pub dir: PathBuf,
    /// SHA-256 of its disk.
    pub sha256: String,
}

/// A machine of the check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts<Made = serde_json::Value> {
    /// Its folder in the dossier.
    pub folder: String,
    /// Its id.
    pub id: String,
    /// What it was made of.
    #[serde(flatten)]
    pub made: Made,
    /// What is left of it.
    pub left: Left,
}

/// What a machine was made of, as far as a dossier asks.
pub trait HasDisk {
    /// Whether it had a system disk, so that there is an overlay of it.
    fn has_disk(&self) -> bool;
}

/// It is no dossier, or one that this version cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a dossier that can be used: {why}", dir.display())]
pub struct Unusable {
    /// Where it is.
    pub dir: PathBuf,
    /// What is wrong, and what to do.
    pub why: String,
}

/// What is left of a machine, besides its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "left", rename_all = "snake_case")]
pub enum Left {
    /// Memory and device state: it can be brought back as it was.
    Frozen,
    /// A memory dump for crash(8).
    Dump {
        /// Why it could not be frozen.
        why: String,
    },
    /// Nothing.
    Disks {
        /// Why it could not be frozen.
        why: String,
    },
}

impl<Made: DeserializeOwned> Facts<Made> {
    /// Reads the facts of the dossier in `dir`.
    ///
    /// # Errors
    /// When there is no `dossier.json`, or not one of this format.
    pub fn read(dir: &Path) -> Result<Facts<Made>, Unusable> {
        let unusable = |why: String| Unusable {
            dir: dir.to_owned(),
            why,
        };
        let text = std::fs::read(dir.join(files::FACTS))
            .map_err(|e| unusable(format!("{}: {e}", files::FACTS)))?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let bad = |e: serde_json::Error| unusable(format!("{}: {e}", files::FACTS));
        let Format { format } = serde_json::from_slice(&text).map_err(bad)?;
        if format != FORMAT {
            return Err(unusable(format!(
                "it is of format {format}, this program reads {FORMAT}: use the version that wrote it"
            )));
        }
        serde_json::from_slice(&text).map_err(bad)
    }
}

impl<Made: HasDisk> Facts<Made> {
    /// The files a dossier of this kind of end must have, relative to its folder.
    pub fn expected_files(&self) -> Vec<PathBuf> {
        use files::*;
        let mut all: Vec<PathBuf> = [README, FACTS, CONSOLE, KERNEL_LOG, TRANSCRIPT, IMAGE]
            .map(PathBuf::from)
            .into();
        if let Some(subject) = &self.subject {
            all.extend([subject.file.clone(), subject.debug.clone()]);
            all.extend(subject.files.iter().map(|(file, ..)| file.clone()));
        }
        all.extend(self.oops.then(|| OOPS.into()));
        all.extend(self.overran.then(|| LAST_WORDS.into()));
        for machine in &self.machines {
            let mut own = vec![ARGUMENTS];
            own.extend(machine.made.has_disk().then_some(OVERLAY));
            match machine.left {
                Left::Frozen => own.extend([RAM, STATE]),
                Left::Dump { .. } => own.push(DUMP),
                Left::Disks { .. } => {}
            }
            all.extend(own.iter().map(|name| Path::new(&machine.folder).join(name)));
        }
        all
    }

    /// Which of [`Facts::expected_files`] are missing from `dir`, or empty where they may not be.
    /// None missing: the dossier is complete.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn missing(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        // A guest can die before it says a word.
        let may_be_empty = [files::CONSOLE, files::KERNEL_LOG, files::TRANSCRIPT].map(Path::new);
        let mut missing = Vec::new();
        for name in self.expected_files() {
            match std::fs::metadata(dir.join(&name)) {
                Ok(meta) if meta.len() > 0 || may_be_empty.contains(&name.as_path()) => {}
                Ok(_) => missing.push(name),
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(name),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }
}
