//! Two records beside each other. Pure.

use std::fmt::Write;

use super::statistics::{self, Interval};
use super::{Direction, Record};

/// The seed of the bootstrap: the same records come out the same.
const SEED: u64 = 0x5EED;

/// A line for each metric that both have: the medians, their ratio, and how sure it is. They were not
/// measured in turns, so this is a hint, not a gate: for that there is `perf compare`.
///
/// # Errors
/// A sentence, when the records are of unlike hosts and `across_hosts` does not say that this is
/// known, or when they have nothing in common.
pub fn difference(old: &Record, new: &Record, across_hosts: bool) -> Result<String, String> {
    let mut text = String::new();
    if let Err(why) = old.fingerprint.comparable(&new.fingerprint) {
        if !across_hosts {
            return Err(why);
        }
        for difference in old.fingerprint.host.differences(&new.fingerprint.host) {
            // A string takes what is written to it.
            let _ = writeln!(text, "UNLIKE HOSTS  {difference}");
        }
    }
    let mut common = 0;
    for metric in &new.metrics {
        let same = |m: &&super::Metric| m.name == metric.name && m.subject == metric.subject;
        let Some(before) = old.metrics.iter().find(same) else {
            continue;
        };
        let (Some(was), Some(is)) = (before.median(), metric.median()) else {
            continue;
        };
        common += 1;
        let interval = statistics::ratio_of_medians(&before.samples, &metric.samples, SEED);
        let _ = writeln!(
            text,
            "{:<24} {:<12} {was:>10.3} -> {is:>10.3} {:<5} {}",
            metric.name,
            metric.subject,
            metric.unit,
            word(interval, metric.direction)
        );
    }
    match common {
        0 => Err("the two records have no metric in common".into()),
        _ => Ok(text),
    }
}

fn word(interval: Option<Interval>, direction: Direction) -> String {
    let Some(Interval { ratio, low, high }) = interval else {
        return "(too few samples to say more)".into();
    };
    let grew = match (low > 1.0, high < 1.0) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    let word = match (grew, direction) {
        (None, _) => "no difference shown",
        (Some(true), Direction::Higher) | (Some(false), Direction::Lower) => "better",
        _ => "worse",
    };
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    format!(
        "{:+.1} % ({:+.1} to {:+.1} %): {word}",
        percent(ratio),
        percent(low),
        percent(high)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Metric, fingerprint};

    fn record(rate: f64) -> Record {
        let samples = (0..12).map(|n| rate + f64::from(n % 3) / 10.0).collect();
        let metric = Metric {
            samples,
            ..Metric::new("fio/seq_read", "vexfs", "MB/s", Direction::Higher)
        };
        Record::new(fingerprint::tests::somewhere(), vec![metric])
    }

    #[test]
    fn two_records_of_one_host_are_shown_side_by_side() {
        let said = |old, new| difference(&record(old), &record(new), false).expect("one host");
        assert!(said(100.0, 50.0).contains("worse"));
        assert!(said(50.0, 100.0).contains("better"));
        assert!(said(100.0, 100.0).contains("no difference shown"));
    }

    #[test]
    fn unlike_hosts_are_refused_unless_that_is_known() {
        let old = record(100.0);
        let mut new = record(50.0);
        new.fingerprint.host.cpu = "B".into();
        let why = difference(&old, &new, false).expect_err("refused");
        assert!(
            why.contains("unlike hosts") && why.contains("--across-hosts"),
            "{why}"
        );
        let text = difference(&old, &new, true).expect("asked for");
        assert!(text.starts_with("UNLIKE HOSTS"), "{text}");
    }

    #[test]
    fn records_of_different_things_are_an_error() {
        let mut other = record(1.0);
        other.metrics[0].name = "boot/agent".into();
        assert!(difference(&record(1.0), &other, false).is_err());
    }
}
