//! What a build tells while it runs.

use serde::{Deserialize, Serialize};

/// One thing that happened. Events of stages that run side by side are interleaved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BuildEvent {
    /// The stages this build consists of, in the order in which they are reported.
    Planned {
        /// Stage names.
        stages: Vec<String>,
    },
    /// A stage has to run.
    StageStarted {
        /// The stage's name.
        stage: String,
        /// Which input made it necessary, as a sentence (`changed: provision/30-config.sh`).
        why: String,
    },
    /// A stage printed something worth showing.
    Line {
        /// The stage's name.
        stage: String,
        /// One line without its end.
        line: String,
    },
    /// What else there is to know about a stage that ran (how much its compiler cache had).
    StageDetail {
        /// The stage's name.
        stage: String,
        /// A few words.
        text: String,
    },
    /// The stage's result for exactly these inputs is in the cache.
    StageCached {
        /// The stage's name.
        stage: String,
    },
    /// The stage ran and its result is in place.
    StageDone {
        /// The stage's name.
        stage: String,
        /// Wall time it took.
        seconds: f64,
    },
    /// Something the user should know (another build holds the lock, the mirror is slow).
    Note {
        /// A sentence.
        text: String,
    },
}
