//! What a report says, as plain data: gathered once from `out/` by [`gather()`], then told as a page, as
//! Markdown, as JSON and as KCIDB by renderers that add nothing of their own.
//!
//! Everything in here may come from a guest and is hostile: it is data to the renderers, never markup.

mod boots;
mod checks;
mod gather;
mod images;
mod links;
mod logs;
mod speed;
mod trends;

pub use boots::{Boot, Stage, Unit};
pub use checks::{Cell, Failure, Known, Row};
pub use gather::gather;
pub use images::{Image, NO_PACKAGE, Named, PackageSize, Size, manifests};
pub use links::Link;
pub use logs::{Log, MOST_OF_ALL, MOST_OF_FAILED, MOST_OF_PASSED};
pub use speed::{Question, Speed, Subject};
pub use trends::{Change, Moment, Series, Trends};

use serde::Serialize;

use results::Outcome;

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;

/// Everything a report says.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it was made, in RFC 3339, UTC.
    pub made: String,
    /// `passed`, `failed` or `nothing`: of all checks together.
    pub verdict: &'static str,
    /// How many checks came out how.
    pub tally: Tally,
    /// The host that ran the latest of them: name and value.
    pub host: Vec<Fact>,
    /// The images, by variant.
    pub images: Vec<Image>,
    /// The matrix of checks and images.
    pub checks: Vec<Row>,
    /// Every check that did not pass, and every dossier there is.
    pub failures: Vec<Failure>,
    /// Where the time of boots went.
    pub boots: Vec<Boot>,
    /// What was measured, by kind of host.
    pub speed: Vec<Speed>,
    /// Earlier runs, by kind of host.
    pub history: Vec<Trends>,
    /// What machines said. The text is on the page alone.
    pub logs: Vec<Log>,
    /// What is missing in this report, and why.
    pub notes: Vec<String>,
}

/// How many checks came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All.
    pub checks: usize,
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped, each with a reason.
    pub skipped: usize,
    /// The host could not do its part.
    pub infrastructure: usize,
    /// Of those that passed: only after they had not.
    pub flaky: usize,
}

/// A name and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// The name.
    pub name: String,
    /// What it is.
    pub value: String,
}

impl Fact {
    /// A fact.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Fact {
        Fact {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// One word for an outcome: `pass`, `fail`, `skip` or `infrastructure`.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail { .. } => "fail",
        Outcome::Skip { .. } => "skip",
        Outcome::Infrastructure { .. } => "infrastructure",
    }
}

/// `2026-01-31T12:00:00Z` of seconds since the epoch.
pub fn rfc3339(seconds: u64) -> String {
    results::clock::utc(seconds)
        .replacen(' ', "T", 1)
        .replace(" UTC", "Z")
}

/// Now, in seconds since the epoch.
pub(crate) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
