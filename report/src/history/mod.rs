//! What earlier runs found, in an embedded database (`out/history.redb`), so that a report can show
//! trends, and what takes the room in earlier images, so that it can show the difference.
//!
//! A [`Run`] is added by [`crate::Recorder`], which listens to the events of a run, and by reports, for files of
//! `perf run` they have not seen before. Every run says what kind of host it was on; nothing here, and
//! nothing that reads it, puts figures of unlike hosts in one row.
//!
//! [`results::figures::change`] finds the points where a row of figures changed its level.

mod store;

pub use store::{History, HistoryError, MOST_RUNS};

use serde::{Deserialize, Serialize};

use results::figures::HostKind;
use results::figures::{Direction, Record};

/// One run: checks that ran, or figures that were measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// `checks`, or `perf` and the name of the file.
    pub what: String,
    /// Where it ran.
    pub host: HostKind,
    /// The images it was about.
    pub images: Vec<ImageMark>,
    /// What became of each check, by the name reports use (`minimal::quick::stress`).
    pub outcomes: Vec<(String, String)>,
    /// What was measured.
    pub figures: Vec<Figure>,
}

/// An image at the time of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMark {
    /// The variant.
    pub variant: String,
    /// The version it is labelled with.
    pub version: String,
    /// SHA-256 of its disk.
    pub sha256: String,
    /// The commit its module is from, when that is known.
    pub commit: Option<String>,
}

/// One figure of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, the same in every run: `minimal::quick::stress`, `fio/seq_read: vexfs (minimal)`.
    pub series: String,
    /// Its unit.
    pub unit: String,
    /// Which way is better.
    pub better: Direction,
    /// The figure: the median, when there were several.
    pub value: f64,
    /// Whether it depends on the host it was taken on; the size of an image does not.
    pub of_host: bool,
}

impl Run {
    /// What a file of `perf run` says, as a run. `None` when it does not say when it was.
    pub fn of_record(name: &str, record: &Record) -> Option<Run> {
        let print = &record.fingerprint;
        let figures = record.metrics.iter().filter_map(|metric| {
            Some(Figure {
                series: format!("{}: {} ({})", metric.name, metric.subject, print.variant),
                unit: metric.unit.clone(),
                better: metric.direction,
                value: metric.median().filter(|value| value.is_finite())?,
                of_host: true,
            })
        });
        Some(Run {
            at_ms: results::clock::seconds(&record.time)? * 1000,
            what: format!("perf {name}"),
            host: print.host.clone(),
            images: vec![ImageMark {
                variant: print.variant.clone(),
                version: String::new(),
                sha256: print.image_sha256.clone(),
                commit: None,
            }],
            outcomes: Vec::new(),
            figures: figures.collect(),
        })
    }
}
