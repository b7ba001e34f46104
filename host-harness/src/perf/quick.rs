//! How much of a quick run's time is the harness' own: what is neither the fork coming up nor the
//! check at work in it? And how many checks a minute is that?

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Direction, Metric};
use crate::checks::{self, Check, Start, Tier};
use crate::event::{CaseResult, Event, Reporter};
use crate::lab::{Failure, Setup};
use crate::report::JunitReporter;
use crate::runner::{self, Manner, SharedReporters};
use crate::verdict::Outcome;

/// Checks in one run, at least: a short list is repeated.
const CHECKS: usize = 20;

/// What became of a run.
pub struct Run {
    wall: Duration,
    results: Vec<CaseResult>,
}

impl Run {
    /// The harness' share of the time, in percent.
    pub fn own_share(&self) -> f64 {
        let sum = |name: &str| -> f64 {
            let values = self.results.iter().flat_map(|result| &result.properties);
            values
                .filter(|(key, _)| key == name)
                .filter_map(|(_, value)| value.parse::<f64>().ok())
                .sum()
        };
        let own = sum("seconds-harness");
        100.0 * own / (own + sum("seconds-machine") + sum("seconds-story"))
    }

    /// Checks a minute.
    pub fn per_minute(&self) -> f64 {
        self.results.len() as f64 * 60.0 / self.wall.as_secs_f64()
    }
}

/// Keeps the results.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<CaseResult>>>);

impl Reporter for Collector {
    fn on(&mut self, event: &Event) -> std::io::Result<()> {
        if let Event::CaseFinished(result) = event {
            let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            results.push((**result).clone());
        }
        Ok(())
    }
}

/// The quick tier's checks on forks, reported to a JUnit file as ever.
///
/// # Errors
/// When a check does not pass: the time of a run that went wrong says nothing.
pub async fn run(setup: &Arc<Setup>) -> Result<Run, Failure> {
    let variant = &setup.image.manifest.variant;
    let selected: Vec<&'static Check> = checks::selected(Tier::Quick, "")
        .filter(|check| check.start == Start::Settled && check.is_about(variant))
        .collect();
    let selected: Vec<_> = selected
        .iter()
        .copied()
        .cycle()
        .take(CHECKS.max(selected.len()))
        .collect();
    let reports = tempfile::tempdir()
        .map_err(|e| Failure::Infrastructure(format!("no folder for the report: {e}")))?;
    let collector = Collector::default();
    let junit = JunitReporter::new(reports.path().join("junit.xml"));
    let reporters = SharedReporters::new(vec![Box::new(collector.clone()), Box::new(junit)]);
    let manner = Manner {
        jobs: runner::jobs(),
        retries: 0,
    };
    let begin = Instant::now();
    runner::run(setup, &selected, manner, &reporters).await;
    let wall = begin.elapsed();
    let results = std::mem::take(&mut *collector.0.lock().unwrap_or_else(PoisonError::into_inner));
    let good = |outcome: &Outcome| matches!(outcome, Outcome::Pass | Outcome::Skip { .. });
    match results.iter().find(|result| !good(&result.outcome)) {
        None => Ok(Run { wall, results }),
        Some(result) => {
            let (_, title, detail) = result.outcome.failure();
            let title = format!("{} did not pass: {title}", result.case);
            Err(Failure::check("performance", title, detail.to_owned()))
        }
    }
}

/// Measures `rounds` times, after a run that does not count.
///
/// # Errors
/// As [`run`].
pub async fn measure(setup: &Arc<Setup>, rounds: usize) -> Result<Vec<Metric>, Failure> {
    run(setup).await?;
    let subject = setup.image.manifest.variant.as_str();
    let mut share = Metric::new("harness/own_share", subject, "%", Direction::Lower);
    let mut rate = Metric::new("harness/checks", subject, "/min", Direction::Higher);
    for _ in 0..rounds {
        let run = run(setup).await?;
        share.samples.push(run.own_share());
        rate.samples.push(run.per_minute());
    }
    Ok(vec![share, rate])
}
