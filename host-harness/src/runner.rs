//! Runs checks: gives each its lab, keeps its deadline, lets both judges speak, and tells the
//! reporters.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::checks::{Check, Start};
use crate::event::{CaseId, CaseResult, Event, Reporter, Reporters};
use crate::lab::{Failure, Lab, Setup};
use crate::verdict::Outcome;

/// Reporters that several checks talk to at the same time.
#[derive(Clone, Default)]
pub struct SharedReporters(Arc<Mutex<Reporters>>);

impl SharedReporters {
    /// Reporters that will all see every event.
    pub fn new(subscribers: Vec<Box<dyn Reporter>>) -> SharedReporters {
        SharedReporters(Arc::new(Mutex::new(Reporters::new(subscribers))))
    }

    /// Tells everybody.
    pub fn emit(&self, event: &Event) {
        self.lock().emit(event);
    }

    /// One more from now on.
    pub fn subscribe(&self, reporter: Box<dyn Reporter>) {
        self.lock().subscribe(reporter);
    }

    /// Tells only the last subscriber, what the others have heard already.
    pub fn catch_up(&self, event: &Event) {
        self.lock().catch_up(event);
    }

    /// What could not be reported, each thing once.
    pub fn failures(&self) -> Vec<String> {
        self.lock().failures().to_vec()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reporters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many checks came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped, each with a reason in the report.
    pub skipped: usize,
    /// The host could not do its part.
    pub infrastructure: usize,
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Pass => self.passed += 1,
            Outcome::Fail { .. } => self.failed += 1,
            Outcome::Skip { .. } => self.skipped += 1,
            Outcome::Infrastructure { .. } => self.infrastructure += 1,
        }
    }

    /// 0 when nothing went wrong, 1 when a check failed, 75 when only the host did.
    pub fn exit_code(&self) -> u8 {
        match (self.failed, self.infrastructure) {
            (0, 0) => 0,
            (0, _) => Outcome::EXIT_INFRASTRUCTURE,
            _ => 1,
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.infrastructure += other.infrastructure;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )?;
        match self.infrastructure {
            0 => Ok(()),
            n => write!(f, ", {n} could not run (infrastructure)"),
        }
    }
}

/// How many checks to run at once: emulation keeps about one host processor busy per machine.
pub fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs the checks on one image, `jobs` at a time, and reports each as it ends.
pub async fn run(
    setup: &Arc<Setup>,
    checks: &[&'static Check],
    jobs: usize,
    reporters: &SharedReporters,
) -> Tally {
    let results = futures_util::stream::iter(checks.iter().map(|check| async move {
        reporters.emit(&Event::CaseStarted {
            case: case_id(setup, check),
        });
        let result = run_check(setup, check).await;
        let outcome = result.outcome.clone();
        reporters.emit(&Event::CaseFinished(Box::new(result)));
        outcome
    }))
    .buffer_unordered(jobs)
    .collect::<Vec<Outcome>>()
    .await;
    let mut tally = Tally::default();
    for outcome in &results {
        tally.count(outcome);
    }
    tally
}

fn case_id(setup: &Setup, check: &Check) -> CaseId {
    CaseId {
        variant: setup.image.manifest.variant.clone(),
        tier: check.tier,
        check: check.name.to_owned(),
    }
}

/// One check from machine to verdict. Never fails: whatever happens is an outcome.
pub async fn run_check(setup: &Arc<Setup>, check: &'static Check) -> CaseResult {
    let begin = Instant::now();
    let case = case_id(setup, check);
    // Two runs of one check at the same time must not share a log folder.
    let id = format!("{}-{}-{}", case.variant, check.name, std::process::id());
    let mut lab = Lab::new(setup.clone(), check, id);
    let story = tell(&mut lab, check).await;
    let evidence = lab.finish().await;
    let outcome = evidence.judge(story);
    CaseResult {
        case,
        outcome,
        took: begin.elapsed(),
        properties: evidence.properties,
        transcript: evidence.transcript,
        kernel_log: evidence.kernel_log,
    }
}

/// Prepares and tells the story, within the deadline of its row.
async fn tell(lab: &mut Lab, check: &'static Check) -> Result<(), Failure> {
    lab.prepare().await?;
    let deadline = check.deadline;
    match tokio::time::timeout(deadline, (check.story)(lab)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::check(
            "deadline",
            overrun(check.start, deadline),
            String::new(),
        )),
    }
}

fn overrun(start: Start, deadline: Duration) -> String {
    let boot = if start == Start::PowerOn {
        ", boots included"
    } else {
        ""
    };
    format!("not done within {} s{boot}", deadline.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_apart_failure_and_infrastructure() {
        let tally = |failed, infrastructure| Tally {
            failed,
            infrastructure,
            ..Tally::default()
        };
        assert_eq!(tally(0, 0).exit_code(), 0);
        assert_eq!(tally(0, 2).exit_code(), 75);
        assert_eq!(tally(1, 2).exit_code(), 1);
        assert_eq!(
            tally(0, 1).to_string(),
            "0 passed, 0 failed, 0 skipped, 1 could not run (infrastructure)"
        );
    }
}
