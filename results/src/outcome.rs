//! What became of a check. How it comes to that is the harness's word.

use serde::{Deserialize, Serialize};

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It holds, and nothing spoke against it.
    Pass,
    /// It does not hold, or the kernel misbehaved beside it.
    Fail {
        /// What sort of failure: a finding's kind, `check`, `deadline`, `leak` or `ended`.
        kind: String,
        /// One line.
        title: String,
        /// Everything else that is known, as text.
        detail: String,
    },
    /// It was not done.
    Skip {
        /// Why; never empty.
        reason: String,
    },
    /// The harness or its host could not do it: says nothing about the image.
    Infrastructure {
        /// What was missing or broke.
        what: String,
    },
}

impl Outcome {
    /// Exit code of the harness when checks passed, and the others were skipped with a reason.
    pub const EXIT_OK: u8 = 0;
    /// Exit code when a check failed, whatever else happened.
    pub const EXIT_FAIL: u8 = 1;
    /// Exit code when nothing was asked, or everything was skipped.
    pub const EXIT_NOTHING: u8 = 3;
    /// Exit code when no check failed but one could not be judged: `EX_TEMPFAIL` of sysexits(3), so that a
    /// CI job may try again.
    pub const EXIT_INFRASTRUCTURE: u8 = 75;

    /// A failure.
    pub fn fail(
        kind: impl Into<String>,
        title: impl Into<String>,
        detail: impl Into<String>,
    ) -> Outcome {
        Outcome::Fail {
            kind: kind.into(),
            title: title.into(),
            detail: detail.into(),
        }
    }

    /// Whether it leaves a run green.
    pub fn is_ok(&self) -> bool {
        matches!(self, Outcome::Pass | Outcome::Skip { .. })
    }

    /// Kind, title and detail for a report. A pass has none of them, a skip only its reason as title.
    pub fn failure(&self) -> (&str, &str, &str) {
        match self {
            Outcome::Pass => ("pass", "", ""),
            Outcome::Fail {
                kind,
                title,
                detail,
            } => (kind, title, detail),
            Outcome::Skip { reason } => ("skip", reason, ""),
            Outcome::Infrastructure { what } => ("infrastructure", what, ""),
        }
    }
}
