//! What was measured, as data: one file a run, `out/reports/perf/NAME.json`, which reports read.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Fingerprint;
use super::statistics::median;

/// The version of the file's layout.
pub const SCHEMA: u32 = 1;

/// All that one run measured, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`] of whoever wrote it.
    pub schema: u32,
    /// When, in RFC 3339, UTC.
    pub time: String,
    /// What ran it. Figures of unlike fingerprints are not comparable.
    pub fingerprint: Fingerprint,
    /// The figures.
    pub metrics: Vec<Metric>,
    /// Where the time of boots went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waterfall: Vec<Waterfall>,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More is better: throughput.
    Higher,
    /// Less is better: time, memory, size.
    Lower,
}

/// One figure, measured some times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The question: `BENCH/WHAT`, for example `fio/seq_read`.
    pub name: String,
    /// Of what: `vexfs`, or a peer such as `ext4`.
    pub subject: String,
    /// Unit of the samples.
    pub unit: String,
    /// Which way is better.
    pub direction: Direction,
    /// The figures, in the order they were taken.
    pub samples: Vec<f64>,
    /// The subject of the same name that this one stands beside; `None` for what the run is about.
    pub peer_of: Option<String>,
    /// Of the single operations, where the tool tells; in milliseconds, whatever the unit.
    pub percentiles: Option<Percentiles>,
}

/// How the times of single operations are spread, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

/// Where the time of one boot went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waterfall {
    /// The image's variant.
    pub image: String,
    /// `bios`, `uefi` or `direct`.
    pub firmware: String,
    /// One after the other, from power-on.
    pub stages: Vec<Stage>,
    /// The units that took longest, longest first.
    pub units: Vec<UnitTime>,
}

/// A part of a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// `firmware`, `loader`, `kernel`, `initramfs` or `user space`.
    pub name: String,
    /// How long, in seconds of the host's clock.
    pub seconds: f64,
}

/// A unit's part of a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitTime {
    /// Its name.
    pub name: String,
    /// When it began, in seconds since the kernel's start.
    pub start: f64,
    /// How long until it was up, in seconds.
    pub seconds: f64,
}

impl Metric {
    /// A metric without samples.
    pub fn new(name: &str, subject: &str, unit: &str, direction: Direction) -> Metric {
        Metric {
            name: name.into(),
            subject: subject.into(),
            unit: unit.into(),
            direction,
            samples: Vec::new(),
            peer_of: None,
            percentiles: None,
        }
    }

    /// As the peer of another subject.
    pub fn beside(mut self, subject: &str) -> Metric {
        self.peer_of = Some(subject.into());
        self
    }

    /// The middle of its samples; `None` when there are none.
    pub fn median(&self) -> Option<f64> {
        median(&self.samples)
    }
}

impl Record {
    /// A record of now.
    pub fn new(fingerprint: Fingerprint, metrics: Vec<Metric>) -> Record {
        Record {
            schema: SCHEMA,
            time: now(),
            fingerprint,
            metrics,
            waterfall: Vec::new(),
        }
    }

    /// Reads a file that [`Record::write`] wrote.
    ///
    /// # Errors
    /// A sentence, when it cannot be read or is of another layout.
    pub fn read(path: &Path) -> Result<Record, String> {
        let cannot = |why: &dyn std::fmt::Display| {
            format!("cannot read the measurements {}: {why}", path.display())
        };
        let text = std::fs::read_to_string(path).map_err(|e| cannot(&e))?;
        let record: Record = serde_json::from_str(&text).map_err(|e| cannot(&e))?;
        match record.schema {
            SCHEMA => Ok(record),
            other => Err(cannot(&format!(
                "it has layout {other}, this program knows {SCHEMA}: measure again"
            ))),
        }
    }

    /// Writes it to `DIR/NAME.json`, by rename: a reader sees all of it or what was there before.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn write(&self, dir: &Path, name: &str) -> io::Result<PathBuf> {
        let path = dir.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        write_whole(&path, &text)?;
        Ok(path)
    }
}

/// The time, in RFC 3339, UTC.
pub(super) fn now() -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let utc = crate::clock::utc(now.as_secs());
    utc.replacen(' ', "T", 1).replace(" UTC", "Z")
}

/// Writes a file by rename, making its folder.
pub(super) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    keeper::draft::file(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout that reports read, word for word.
    const TEXT: &str = r#"{"schema":1,"time":"2026-11-26T19:00:00Z","fingerprint":{"cpu":"c","cores":2,
        "accelerator":"tcg","vsock":"user","qemu":"7.2.22","host_kernel":"6.1","guest_kernel":"6.1.0",
        "image_sha256":"00","variant":"minimal"},
        "metrics":[{"name":"fio/seq_read","subject":"ext4","unit":"MB/s","direction":"higher",
        "samples":[1.0,2.0,4.0],"peer_of":"vexfs","percentiles":{"p50":1.0,"p99":2.0}}],
        "waterfall":[{"image":"minimal","firmware":"bios","stages":[{"name":"firmware","seconds":1.2}],
        "units":[{"name":"x.service","start":1.0,"seconds":0.2}]}]}"#;

    #[test]
    fn the_layout_is_what_reports_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("given.json");
        std::fs::write(&path, TEXT).expect("written");
        let record = Record::read(&path).expect("it is read");
        assert_eq!(record.metrics[0].direction, Direction::Higher);
        assert_eq!(record.metrics[0].median(), Some(2.0));
        let written = record.write(dir.path(), "again").expect("written");
        assert_eq!(Record::read(&written), Ok(record));
        let value = |path: &Path| -> serde_json::Value {
            serde_json::from_str(&std::fs::read_to_string(path).expect("read")).expect("JSON")
        };
        assert_eq!(value(&written), value(&path));
    }

    #[test]
    fn the_time_is_of_rfc_3339() {
        let record = Record::new(super::super::fingerprint::tests::somewhere(), Vec::new());
        let shape: String = record
            .time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00Z");
    }

    #[test]
    fn another_layout_is_refused_with_a_sentence() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("old.json");
        std::fs::write(&path, TEXT.replace("\"schema\":1", "\"schema\":9")).expect("written");
        let error = Record::read(&path).expect_err("refused");
        assert!(
            error.contains("old.json") && error.contains("measure again"),
            "{error}"
        );
    }
}
