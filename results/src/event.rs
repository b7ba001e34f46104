//! What happens during a run, as data. The runner emits events; reporters subscribe and know
//! nothing of machines, checks or builds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{BuildEvent, Outcome, Tier};

/// One step of a run, in the order they happen.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run begins on a host with these facts (accelerator, vsock backend, versions).
    RunStarted {
        /// Name of each fact and its value, in the order to show them.
        facts: Vec<(String, String)>,
    },
    /// The build of a variant's image moved on.
    Build {
        /// The variant.
        variant: String,
        /// What happened.
        step: BuildEvent,
    },
    /// The checks of an image are about to run.
    Validating {
        /// The variant.
        variant: String,
        /// Why a stored verdict does not do.
        why: String,
    },
    /// The checks of an image do not run: they have passed before, and nothing they depend on has
    /// changed since.
    VerdictStored {
        /// The variant.
        variant: String,
        /// When the latest of them ran, in seconds since the epoch.
        at: u64,
        /// What came of each then.
        results: Vec<CaseResult>,
    },
    /// A check begins.
    CaseStarted {
        /// Which.
        case: CaseId,
    },
    /// A check has its verdict.
    CaseFinished(Box<CaseResult>),
    /// All is done.
    RunFinished {
        /// Seconds since the run started.
        seconds: f64,
    },
}

/// The name of one check on one image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CaseId {
    /// The image's variant.
    pub variant: String,
    /// The tier the check belongs to.
    pub tier: Tier,
    /// The check's name in the registry.
    pub check: String,
}

impl CaseId {
    /// The check of that name on an image of that variant.
    pub fn new(variant: impl Into<String>, tier: Tier, check: impl Into<String>) -> CaseId {
        CaseId {
            variant: variant.into(),
            tier,
            check: check.into(),
        }
    }
}

impl std::fmt::Display for CaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}::{}", self.variant, self.tier, self.check)
    }
}

/// What became of one check, with the evidence that ties it to a machine that ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// Which check, on which variant.
    pub case: CaseId,
    /// The verdict of both judges.
    pub outcome: Outcome,
    /// How long it took, machine included.
    pub took: Duration,
    /// Machine id, boot id, console digest, accelerator and the like; a name can recur (a check
    /// that boots twice has two machines).
    pub properties: Vec<(String, String)>,
    /// The transcript: what was asked of the guest and what it answered.
    pub transcript: String,
    /// The kernel log while the check ran.
    pub kernel_log: String,
    /// What a tool inside the check reported one by one; empty for most checks.
    pub parts: Vec<Part>,
    /// Earlier tries of the same check in this run, all of them not green: it was to be tried again, or
    /// the host had ended them.
    pub earlier: Vec<Attempt>,
    /// The folder with everything about it, when it left one; see [`crate::dossier`].
    pub dossier: Option<std::path::PathBuf>,
}

impl CaseResult {
    /// A result of which nothing more is known.
    pub fn new(case: CaseId, outcome: Outcome) -> CaseResult {
        CaseResult {
            case,
            outcome,
            took: Duration::ZERO,
            properties: Vec::new(),
            transcript: String::new(),
            kernel_log: String::new(),
            parts: Vec::new(),
            earlier: Vec::new(),
            dossier: None,
        }
    }

    /// Whether it passed only after it had failed. A try that the host has ended says nothing about the
    /// image and makes nothing flaky.
    pub fn is_flaky(&self) -> bool {
        let failed = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Fail { .. });
        self.outcome == Outcome::Pass && self.earlier.iter().any(failed)
    }
}

/// One of many results within a check: a case of a test suite that the check ran in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The tool's own name for it.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// A try of a check that was not the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Why it was tried again.
    pub outcome: Outcome,
    /// What was asked of the guest and what it answered.
    pub transcript: String,
    /// The kernel log while it ran.
    pub kernel_log: String,
    /// The folder with everything about it.
    pub dossier: Option<std::path::PathBuf>,
}

impl From<CaseResult> for Attempt {
    fn from(result: CaseResult) -> Attempt {
        Attempt {
            outcome: result.outcome,
            transcript: result.transcript,
            kernel_log: result.kernel_log,
            dossier: result.dossier,
        }
    }
}
