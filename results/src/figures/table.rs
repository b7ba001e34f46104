//! A record as a table for a terminal. Pure.

use std::fmt::Write;

use super::{Direction, Metric, Record};

/// What figures look like on a terminal: a line each, a subject's peers below it with how many times
/// better or worse they are.
pub fn table(record: &Record) -> String {
    let mut text = String::new();
    let mut rows: Vec<&Metric> = record.metrics.iter().collect();
    // A bench that measures one subject after the other has its peers in a heap at the end.
    rows.sort_by_key(|row| {
        record
            .metrics
            .iter()
            .position(|other| other.name == row.name)
    });
    for metric in rows {
        let Some(median) = metric.median() else {
            continue;
        };
        let name = match metric.peer_of {
            None => metric.name.as_str(),
            Some(_) => "",
        };
        let spread = spread(&metric.samples);
        let beside = beside(metric, median, &record.metrics);
        let percentiles = metric.percentiles.map_or_else(String::new, |p| {
            format!("  p50 {} ms, p99 {} ms", figure(p.p50), figure(p.p99))
        });
        // A string takes what is written to it.
        let _ = writeln!(
            text,
            "{name:<24} {:<12} {:>9} {:<5} ({spread}){percentiles}{beside}",
            metric.subject,
            figure(median),
            metric.unit
        );
    }
    for waterfall in &record.waterfall {
        let stages: Vec<String> = waterfall
            .stages
            .iter()
            .map(|stage| format!("{} {:.2}", stage.name, stage.seconds))
            .collect();
        let _ = writeln!(
            text,
            "{} boots by {}: {} s",
            waterfall.image,
            waterfall.firmware,
            stages.join(", ")
        );
        let units: Vec<String> = waterfall
            .units
            .iter()
            .take(5)
            .map(|unit| format!("{} {:.2}", unit.name, unit.seconds))
            .collect();
        let _ = writeln!(text, "  slowest units: {} s", units.join(", "));
    }
    text
}

/// `5 from 1.0 to 2.0`.
fn spread(samples: &[f64]) -> String {
    let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let high = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} from {} to {}", samples.len(), figure(low), figure(high))
}

/// How the one that this is a peer of does beside it.
fn beside(metric: &Metric, median: f64, all: &[Metric]) -> String {
    let ours = metric.peer_of.as_ref().and_then(|subject| {
        let found = all
            .iter()
            .find(|m| m.name == metric.name && m.subject == *subject)?;
        Some((subject, found.median()?))
    });
    let Some((subject, ours)) = ours else {
        return String::new();
    };
    let better = match metric.direction {
        Direction::Higher => ours / median,
        Direction::Lower => median / ours,
    };
    match better >= 1.0 {
        true => format!("  {subject} is {better:.1} times better"),
        false => format!("  {subject} is {:.1} times worse", 1.0 / better),
    }
}

/// Three digits that count.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Percentiles, fingerprint};

    #[test]
    fn peers_stand_below_with_the_ratio() {
        let metric = |subject: &str, samples: &[f64]| Metric {
            samples: samples.to_vec(),
            ..Metric::new("fio/seq_read", subject, "MB/s", Direction::Higher)
        };
        let time = |subject: &str, sample: f64| Metric {
            samples: vec![sample],
            percentiles: Some(Percentiles {
                p50: 0.5,
                p99: 20.0,
            }),
            ..Metric::new("fio/fsync", subject, "ms", Direction::Lower)
        };
        let record = Record::new(
            fingerprint::tests::somewhere(),
            vec![
                metric("vexfs", &[100.0, 300.0, 200.0]),
                time("vexfs", 3.0),
                metric("ext4", &[100.0]).beside("vexfs"),
                time("ext4", 1.5).beside("vexfs"),
                Metric::new("nothing", "vexfs", "s", Direction::Lower),
            ],
        );
        let text = table(&record);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].contains("200 MB/s  (3 from 100 to 300)"), "{text}");
        assert!(lines[1].contains("vexfs is 2.0 times better"), "{text}");
        assert!(lines[3].contains("vexfs is 2.0 times worse"), "{text}");
        assert!(lines[3].contains("p50 0.500 ms, p99 20.0 ms"), "{text}");
    }
}
