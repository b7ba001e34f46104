//! What `perf run` measured: its files, and the questions they answer.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::history::change::median;
use crate::history::{Direction, Figure, HostKind, ImageMark, Run};

/// The only layout of the files this version reads.
const FORMAT: u32 = 1;

/// A file of `perf run`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Measured {
    schema: u32,
    /// When, in RFC 3339.
    pub time: String,
    /// On what.
    pub fingerprint: Fingerprint,
    metrics: Vec<Metric>,
    #[serde(default)]
    pub waterfall: Vec<Waterfall>,
}

/// The host and the image.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Fingerprint {
    cpu: String,
    cores: usize,
    accelerator: String,
    vsock: String,
    qemu: String,
    host_kernel: String,
    guest_kernel: String,
    image_sha256: String,
    variant: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Metric {
    name: String,
    subject: String,
    unit: String,
    direction: Direction,
    samples: Vec<f64>,
    peer_of: Option<String>,
    percentiles: Option<BTreeMap<String, f64>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Waterfall {
    pub image: String,
    pub firmware: String,
    pub stages: Vec<StageTime>,
    #[serde(default)]
    pub units: Vec<UnitTime>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct StageTime {
    pub name: String,
    pub seconds: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct UnitTime {
    pub name: String,
    pub start: f64,
    pub seconds: f64,
}

impl Fingerprint {
    pub fn kind(&self) -> HostKind {
        HostKind {
            cpu: self.cpu.clone(),
            cores: self.cores,
            accelerator: self.accelerator.clone(),
            vsock: self.vsock.clone(),
            qemu: self.qemu.clone(),
            host_kernel: self.host_kernel.clone(),
        }
    }
}

/// What was measured on one kind of host.
#[derive(Debug, Clone, Serialize)]
pub struct Speed {
    /// The kind of host, in a word.
    pub host_id: String,
    /// The same, in full.
    pub host: String,
    /// The questions, by name.
    pub questions: Vec<Question>,
}

/// A question, and the answers of what it is about and of its peers.
#[derive(Debug, Clone, Serialize)]
pub struct Question {
    /// `fio/seq_read`.
    pub name: String,
    /// The image's variant.
    pub variant: String,
    /// The guest's kernel.
    pub guest_kernel: String,
    /// When, in RFC 3339.
    pub time: String,
    /// The unit.
    pub unit: String,
    /// Which way is better.
    pub better: Direction,
    /// The answers: what it is about first.
    pub subjects: Vec<Subject>,
}

/// The answer of one of them.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// `vexfs`, or a peer such as `ext4`.
    pub name: String,
    /// Whether it is there to compare with.
    pub peer: bool,
    /// The middle of the samples.
    pub median: f64,
    /// The least of them.
    pub least: f64,
    /// The largest of them.
    pub most: f64,
    /// How many there are.
    pub samples: usize,
    /// Its median as a multiple of that of what the question is about.
    pub ratio: Option<f64>,
    /// How single operations are spread: `p50`, `p99` and their like, in the unit.
    pub percentiles: BTreeMap<String, f64>,
}

/// Reads the files of `perf run` in a folder, oldest first, with their names; notes what cannot be read.
pub(super) fn read(dir: &Path, notes: &mut Vec<String>) -> Vec<(String, Measured)> {
    let mut all = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return all;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(|e| e.to_string());
        let parsed = bytes.and_then(|bytes| {
            let file: Measured = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
            match file.schema {
                FORMAT => Ok(file),
                other => Err(format!(
                    "it is of format {other}, this program reads {FORMAT}"
                )),
            }
        });
        match parsed {
            Ok(file) => all.push((name.into_owned(), file)),
            Err(why) => notes.push(format!("reports/perf/{name} is left out: {why}")),
        }
    }
    all.sort_by(|(a, x), (b, y)| (&x.time, a).cmp(&(&y.time, b)));
    all
}

/// The latest answer to every question, by kind of host: figures of unlike hosts are never put together.
pub(super) fn speeds(files: &[(String, Measured)]) -> Vec<Speed> {
    type Questions = BTreeMap<(String, String), Question>;
    let mut hosts: BTreeMap<HostKind, Questions> = BTreeMap::new();
    for (_, file) in files {
        let questions = hosts.entry(file.fingerprint.kind()).or_default();
        let mut of_file = Questions::new();
        for metric in &file.metrics {
            let Some(subject) = subject(metric) else {
                continue;
            };
            let variant = file.fingerprint.variant.clone();
            let key = (metric.name.clone(), variant.clone());
            let question = of_file.entry(key).or_insert_with(|| Question {
                name: metric.name.clone(),
                variant,
                guest_kernel: file.fingerprint.guest_kernel.clone(),
                time: file.time.clone(),
                unit: metric.unit.clone(),
                better: metric.direction,
                subjects: Vec::new(),
            });
            question.subjects.push(subject);
        }
        for question in of_file.values_mut() {
            question.subjects.sort_by_key(|subject| subject.peer);
            let first = question.subjects.first().filter(|first| !first.peer);
            let base = first.map(|first| first.median).filter(|base| *base > 0.0);
            for subject in question.subjects.iter_mut().filter(|s| s.peer) {
                subject.ratio = base.map(|base| subject.median / base);
            }
        }
        questions.extend(of_file);
    }
    let speed = |(host, questions): (HostKind, Questions)| Speed {
        host_id: host.id(),
        host: host.label(),
        questions: questions.into_values().collect(),
    };
    hosts.into_iter().map(speed).collect()
}

fn subject(metric: &Metric) -> Option<Subject> {
    let finite: Vec<f64> = metric
        .samples
        .iter()
        .copied()
        .filter(|x| x.is_finite())
        .collect();
    Some(Subject {
        name: metric.subject.clone(),
        peer: metric.peer_of.is_some(),
        median: median(&finite)?,
        least: finite.iter().copied().reduce(f64::min)?,
        most: finite.iter().copied().reduce(f64::max)?,
        samples: finite.len(),
        ratio: None,
        percentiles: metric.percentiles.clone().unwrap_or_default(),
    })
}

/// A file as a run of the history. `None` when it does not say when it was.
pub(super) fn as_run(name: &str, file: &Measured) -> Option<Run> {
    let print = &file.fingerprint;
    let figures = file.metrics.iter().filter_map(|metric| {
        Some(Figure {
            series: format!("{}: {} ({})", metric.name, metric.subject, print.variant),
            unit: metric.unit.clone(),
            better: metric.direction,
            value: subject(metric)?.median,
            of_host: true,
        })
    });
    Some(Run {
        at_ms: seconds(&file.time)? * 1000,
        what: format!("perf {name}"),
        host: print.kind(),
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

/// Seconds since the epoch of a time in RFC 3339; UTC only.
fn seconds(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut clock = clock.splitn(3, ':');
    let hour: i64 = clock.next()?.parse().ok()?;
    let minute: i64 = clock.next()?.parse().ok()?;
    let second: f64 = clock.next()?.parse().ok()?;
    // Days from the civil date, after Howard Hinnant's days_from_civil.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(seconds("2023-11-14T22:13:20Z"), Some(1_700_000_000));
        assert_eq!(seconds("1970-01-01T00:00:00.5Z"), Some(0));
        assert_eq!(seconds("2024-02-29T00:00:00Z"), Some(1_709_164_800));
        assert_eq!(seconds("yesterday"), None);
    }

    fn file(time: &str, cores: usize, value: f64) -> (String, Measured) {
        let text = serde_json::json!({
        "schema": 1, "time": time,
        "fingerprint": {"cpu": "X", "cores": cores, "accelerator": "tcg", "vsock": "user",
            "qemu": "7", "host_kernel": "6", "guest_kernel": "6", "image_sha256": "0",
            "variant": "minimal"},
        "metrics": [
            {"name": "fio/seq_read", "subject": "ext4", "unit": "MB/s", "direction": "higher",
             "samples": [value * 2.0], "peer_of": "vexfs", "percentiles": null},
            {"name": "fio/seq_read", "subject": "vexfs", "unit": "MB/s", "direction": "higher",
             "samples": [value], "peer_of": null, "percentiles": {"p50": 1.0, "p99": 2.0}},
        ]});
        (
            "x.json".into(),
            serde_json::from_value(text).expect("the agreed form"),
        )
    }

    #[test]
    fn the_latest_answer_stands_with_its_peers_and_hosts_stay_apart() {
        let files = [
            file("2026-01-01T00:00:00Z", 2, 1.0),
            file("2026-01-02T00:00:00Z", 2, 100.0),
            file("2026-01-03T00:00:00Z", 64, 5.0),
        ];
        let speeds = speeds(&files);
        assert_eq!(speeds.len(), 2);
        let question = &speeds[0].questions[0];
        assert_eq!(question.subjects[0].name, "vexfs");
        assert_eq!(question.subjects[0].median, 100.0);
        assert_eq!(question.subjects[1].ratio, Some(2.0));
        assert_eq!(speeds[1].questions[0].subjects[0].median, 5.0);
    }
}
