//! What a failure leaves: a folder with everything one needs to understand it, to step back into the
//! failed machine, and to run the check again the same way.
//!
//! [`Policy`] says for which outcomes there is one and how much room all of them may take. [`write()`]
//! makes one: it freezes the machine if that still runs, takes its disks, and writes down the facts
//! ([`Facts`], `dossier.json`) and a page for people (`README.md`). A dossier appears whole or not at
//! all, whatever ends this process. [`Dossier`] is the way back in.
//!
//! The image is not copied: a dossier names it by path and SHA-256.

mod machines;
mod reopen;
mod store;
mod write;

pub use reopen::{Back, Dossier};
pub use write::{Case, write};

use results::dossier::{HasDisk, Unusable};
use serde::{Deserialize, Serialize};

use machine::{MachineSpec, Version};

use results::Outcome;

/// What all dossiers may take on disk unless the caller says otherwise, in bytes. One with a frozen
/// machine takes about 200 MB.
pub const DEFAULT_CAP: u64 = 4 << 30;

/// Which checks leave a dossier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// All of them
    Passed,
    /// Those that did not pass
    #[default]
    Failed,
    /// None
    None,
}

/// When there is a dossier, and what it may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Which checks leave one.
    pub keep: Keep,
    /// Whether guest memory is dumped, for crash(8), when the machine cannot be frozen.
    pub dump_memory: bool,
    /// What all dossiers together may take on disk, in bytes; the oldest go first.
    pub cap: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            keep: Keep::default(),
            dump_memory: false,
            cap: DEFAULT_CAP,
        }
    }
}

impl Policy {
    /// The policy that keeps nothing, for tests that break things on purpose.
    pub fn none() -> Policy {
        Policy {
            keep: Keep::None,
            ..Policy::default()
        }
    }

    /// The policy of a nextest run, which has no command line of ours: `VEXFS_KEEP` (passed, failed
    /// or none) and `VEXFS_DUMP_MEMORY` (anything).
    ///
    /// # Errors
    /// A sentence, when `VEXFS_KEEP` is none of these words.
    pub fn from_env() -> Result<Policy, String> {
        let keep = match std::env::var("VEXFS_KEEP") {
            Ok(word) => clap::ValueEnum::from_str(&word, true).map_err(|_| {
                format!("VEXFS_KEEP is `{word}`: it must be passed, failed or none")
            })?,
            Err(_) => Keep::default(),
        };
        Ok(Policy {
            keep,
            dump_memory: std::env::var_os("VEXFS_DUMP_MEMORY").is_some(),
            ..Policy::default()
        })
    }

    /// Whether this outcome leaves a dossier.
    pub fn wants(&self, outcome: &Outcome) -> bool {
        match self.keep {
            Keep::Passed => true,
            Keep::Failed => !outcome.is_ok(),
            Keep::None => false,
        }
    }
}

/// What a machine was made of, in its dossier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// What it was made of.
    pub spec: MachineSpec,
    /// The QEMU it ran in.
    pub qemu: Version,
}

impl HasDisk for Made {
    fn has_disk(&self) -> bool {
        self.spec.image.is_some()
    }
}

/// The facts of a dossier with all that is needed to bring its machines back.
pub type Facts = results::dossier::Facts<Made>;

/// A machine of such a dossier.
pub type MachineFacts = results::dossier::MachineFacts<Made>;

/// Why a dossier could not be written, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum DossierError {
    /// A file of it failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no dossier, or one that this version cannot use.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The machine could not be brought back.
    #[error(transparent)]
    Snapshot(#[from] machine::snapshot::SnapshotError),
    /// The machine could not be booted.
    #[error(transparent)]
    Machine(#[from] machine::MachineError),
}

impl DossierError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DossierError {
        let what = what.into();
        move |source| DossierError::Io { what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_follows_the_outcome() {
        let failed = Outcome::fail("check", "x", "");
        let infra = Outcome::Infrastructure { what: "x".into() };
        let wants = |keep, outcome| {
            Policy {
                keep,
                ..Policy::default()
            }
            .wants(outcome)
        };
        assert!(wants(Keep::Failed, &failed) && wants(Keep::Failed, &infra));
        assert!(!wants(Keep::Failed, &Outcome::Pass));
        assert!(wants(Keep::Passed, &Outcome::Pass));
        assert!(!wants(Keep::None, &failed));
    }
}
