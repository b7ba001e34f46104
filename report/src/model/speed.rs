//! What `perf run` measured: its files, and the questions they answer.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use results::figures::HostKind;
use results::figures::statistics::median;
use results::figures::{Direction, Metric, Record, SCHEMA};

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
pub(super) fn read(dir: &Path, notes: &mut Vec<String>) -> Vec<(String, Record)> {
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
            let file: Record = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
            match file.schema {
                SCHEMA => Ok(file),
                other => Err(format!(
                    "it is of format {other}, this program reads {SCHEMA}"
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
pub(super) fn speeds(files: &[(String, Record)]) -> Vec<Speed> {
    type Questions = BTreeMap<(String, String), Question>;
    let mut hosts: BTreeMap<HostKind, Questions> = BTreeMap::new();
    for (_, file) in files {
        let questions = hosts.entry(file.fingerprint.host.clone()).or_default();
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
        percentiles: metric.percentiles.map_or_else(BTreeMap::new, |spread| {
            BTreeMap::from([
                ("p50".to_owned(), spread.p50),
                ("p99".to_owned(), spread.p99),
            ])
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(time: &str, cores: usize, value: f64) -> (String, Record) {
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
