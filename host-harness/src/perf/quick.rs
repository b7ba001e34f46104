//! How much of a quick run's time is the harness' own: what is neither the machine coming up nor the
//! check at work in it? And how many checks a minute is that?
//!
//! Once of the quick tier as `validate` runs it, and once of its checks that work in a fork alone, the
//! short ones, where the harness has the least to hide behind.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use report::JunitReporter;
use results::figures::{Direction, Metric};
use results::{CaseResult, Event, Outcome, Reporter, SharedReporters, Tier};

use crate::checks::{self, Check, Start};
use crate::lab::{Failure, Setup};
use crate::runner::{self, Manner};

/// Checks in one run, at least: a short list is repeated.
const CHECKS: usize = 20;

/// Which checks are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The quick tier.
    Tier,
    /// Those of it that work in a fork.
    Forks,
}

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

/// The quick tier's checks, reported to a JUnit file as ever.
///
/// # Errors
/// When a check does not pass: the time of a run that went wrong says nothing.
pub async fn run(setup: &Arc<Setup>, extent: Extent) -> Result<Run, Failure> {
    let variant = &setup.image.manifest.variant;
    let in_extent = |check: &Check| extent == Extent::Tier || check.start == Start::Settled;
    let selected: Vec<&'static Check> = checks::selected(Tier::Quick, "")
        .filter(|check| in_extent(check) && check.is_about(variant))
        .collect();
    let selected: Vec<_> = selected
        .iter()
        .copied()
        .cycle()
        .take(CHECKS.max(selected.len()))
        .collect();
    let reports =
        tempfile::tempdir().map_err(|e| Failure::Host(format!("no folder for the report: {e}")))?;
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
    run(setup, Extent::Forks).await?;
    let subject = setup.image.manifest.variant.as_str();
    let share = |name| Metric::new(name, subject, "%", Direction::Lower);
    let mut tier = share("harness/own_share");
    let mut forks = share("harness/own_share_of_forks");
    let mut rate = Metric::new("harness/checks", subject, "/min", Direction::Higher);
    for _ in 0..rounds {
        tier.samples
            .push(run(setup, Extent::Tier).await?.own_share());
        let run = run(setup, Extent::Forks).await?;
        forks.samples.push(run.own_share());
        rate.samples.push(run.per_minute());
    }
    Ok(vec![tier, forks, rate])
}
