//! Earlier runs as rows of figures, and where their level changed.

use std::collections::BTreeMap;

use results::figures::Direction;
use results::figures::HostKind;
use results::figures::change::points;
use results::figures::statistics::median;
use serde::Serialize;

use super::rfc3339;
use crate::history::{Figure, Run};

/// The most moments of a series that are shown.
const MOST: usize = 200;

/// The runs on one kind of host.
#[derive(Debug, Clone, Serialize)]
pub struct Trends {
    /// The kind of host, in a word; `any` for what does not depend on it.
    pub host_id: String,
    /// The same, in full.
    pub host: String,
    /// How many runs.
    pub runs: usize,
    /// Their figures; those that changed first.
    pub series: Vec<Series>,
}

/// A row of figures.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Which way is better.
    pub better: Direction,
    /// The latest figure.
    pub last: f64,
    /// The middle of those shown.
    pub median: f64,
    /// The figures, oldest first.
    pub moments: Vec<Moment>,
    /// Where the level changed.
    pub changes: Vec<Change>,
}

/// A figure and when it was taken.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    /// In RFC 3339.
    pub at: String,
    /// The figure.
    pub value: f64,
    /// The commit of the image it is about, when that is known and there is one image only.
    pub commit: Option<String>,
}

/// A point where the level changed.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// Which of the moments is the first of the new level.
    pub index: usize,
    /// When that was.
    pub at: String,
    /// The median before.
    pub before: f64,
    /// The median after.
    pub after: f64,
    /// `better` or `worse`.
    pub verdict: &'static str,
    /// How likely chance alone makes one like it.
    pub chance: f64,
}

/// All runs by kind of host; sizes of images, which do not depend on it, apart.
pub(super) fn trends(runs: &[Run]) -> Vec<Trends> {
    let mut hosts: BTreeMap<Option<HostKind>, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        if run.figures.iter().any(|figure| !figure.of_host) {
            hosts.entry(None).or_default().push(run);
        }
        if run.figures.iter().any(|figure| figure.of_host) {
            hosts.entry(Some(run.host.clone())).or_default().push(run);
        }
    }
    hosts
        .into_iter()
        .map(|(host, runs)| Trends {
            host_id: host.as_ref().map_or_else(|| "any".to_owned(), HostKind::id),
            host: host.as_ref().map_or_else(
                || "any host: these do not depend on it".to_owned(),
                HostKind::label,
            ),
            runs: runs.len(),
            series: all_series(&runs, host.is_some()),
        })
        .collect()
}

fn all_series(runs: &[&Run], of_host: bool) -> Vec<Series> {
    let mut rows: BTreeMap<(&str, &str), Vec<(&Run, &Figure)>> = BTreeMap::new();
    for run in runs {
        for figure in run
            .figures
            .iter()
            .filter(|figure| figure.of_host == of_host)
        {
            let key = (figure.series.as_str(), figure.unit.as_str());
            rows.entry(key).or_default().push((run, figure));
        }
    }
    let mut all: Vec<Series> = rows.into_values().filter_map(|row| series(&row)).collect();
    all.sort_by_key(|series| series.changes.is_empty());
    all
}

fn series(row: &[(&Run, &Figure)]) -> Option<Series> {
    let row = &row[row.len().saturating_sub(MOST)..];
    let (_, last) = row.last()?;
    let values: Vec<f64> = row.iter().map(|(_, figure)| figure.value).collect();
    let moments: Vec<Moment> = row
        .iter()
        .map(|(run, figure)| Moment {
            at: rfc3339(run.at_ms / 1000),
            value: figure.value,
            commit: match run.images.as_slice() {
                [image] => image.commit.clone(),
                _ => None,
            },
        })
        .collect();
    let changes = points(&values).into_iter().map(|point| Change {
        index: point.index,
        at: moments[point.index].at.clone(),
        before: point.before,
        after: point.after,
        verdict: match (point.after > point.before, last.better) {
            (true, Direction::Higher) | (false, Direction::Lower) => "better",
            _ => "worse",
        },
        chance: point.chance,
    });
    Some(Series {
        name: last.series.clone(),
        unit: last.unit.clone(),
        better: last.better,
        last: last.value,
        median: median(&values)?,
        changes: changes.collect(),
        moments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_stay_apart_and_a_step_is_judged() {
        let run = |at: u64, cores: usize, seconds: f64| Run {
            at_ms: at * 1000,
            what: "checks".into(),
            host: HostKind {
                cores,
                ..HostKind::default()
            },
            images: Vec::new(),
            outcomes: Vec::new(),
            figures: vec![
                Figure {
                    series: "minimal::quick::stress".into(),
                    unit: "s".into(),
                    better: Direction::Lower,
                    value: seconds,
                    of_host: true,
                },
                Figure {
                    series: "minimal: size of the disk".into(),
                    unit: "MiB".into(),
                    better: Direction::Lower,
                    value: 200.0,
                    of_host: false,
                },
            ],
        };
        // A fast host between runs of a slow one must not look like a change.
        let mut runs: Vec<Run> = (0..20).map(|n| run(n, 2, 10.0 + 0.01 * n as f64)).collect();
        runs.extend((20..40).map(|n| run(n, 64, 1.0)));
        let told = trends(&runs);
        assert_eq!(told.len(), 3);
        assert_eq!(told[0].host_id, "any");
        assert_eq!(told[0].series[0].moments.len(), 40);
        let of_host = |cores| {
            let label = HostKind {
                cores,
                ..HostKind::default()
            }
            .label();
            told.iter().find(|t| t.host == label).expect("a host")
        };
        assert!(of_host(64).series[0].changes.is_empty());
        runs.extend((40..60).map(|n| run(n, 64, 2.0)));
        let later = trends(&runs);
        let changed = &later
            .iter()
            .find(|t| t.runs == 40 && t.host_id != "any")
            .expect("64")
            .series[0];
        assert_eq!(changed.changes[0].verdict, "worse");
        assert_eq!(changed.changes[0].index, 20);
    }
}
