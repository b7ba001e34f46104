//! Runs checks, several at a time and again if need be, and tells the reporters. How one comes from its
//! lab to its verdict is in `one`; the one file that judges is [`verdict`].

mod one;
pub mod reuse;
pub mod verdict;

pub use one::{Judged, judge, lab_of, run_check, run_check_of};

use std::sync::Arc;

use futures_util::StreamExt;
use results::{Attempt, CaseResult, Event, Outcome, SharedReporters, Subject};

use self::one::case_id;
use crate::checks::Check;
use crate::lab::Setup;

/// How many checks to run at once: emulation keeps about one host processor busy per machine.
pub fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How a run goes about its checks.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Checks at the same time.
    pub jobs: usize,
    /// How often a check that is not green is tried again.
    pub retries: u32,
}

/// Runs the checks on one image and reports each as it ends. Checks about other variants are left
/// out; what is known not to be there to check is skipped, with the reason. The results are
/// in the order in which they ended.
pub async fn run(
    setup: &Arc<Setup>,
    checks: &[&'static Check],
    manner: Manner,
    reporters: &SharedReporters,
) -> Vec<CaseResult> {
    run_of(setup, checks, manner, reporters, None).await
}

/// As [`run`], with a module in the place of the image's own if one is given.
pub async fn run_of(
    setup: &Arc<Setup>,
    checks: &[&'static Check],
    manner: Manner,
    reporters: &SharedReporters,
    subject: Option<&Arc<Subject>>,
) -> Vec<CaseResult> {
    let variant = &setup.image.manifest.variant;
    let checks = checks.iter().filter(|check| check.is_about(variant));
    futures_util::stream::iter(checks.map(|check| async move {
        reporters.emit(&Event::CaseStarted {
            case: case_id(setup, check),
        });
        let result = run_or_skip(setup, check, manner.retries, subject).await;
        reporters.emit(&Event::CaseFinished(Box::new(result.clone())));
        result
    }))
    .buffer_unordered(manner.jobs.max(1))
    .collect()
    .await
}

async fn run_or_skip(
    setup: &Arc<Setup>,
    check: &'static Check,
    retries: u32,
    subject: Option<&Arc<Subject>>,
) -> CaseResult {
    let once = async || match subject {
        None => run_check(setup, check).await,
        Some(subject) => run_check_of(setup, check, subject).await,
    };
    let manifest = &setup.image.manifest;
    match check.skip_reason(&manifest.source.config, &manifest.signing) {
        None => again(retries, once).await,
        Some(reason) => CaseResult::new(case_id(setup, check), Outcome::Skip { reason }),
    }
}

/// Tries until it is green, at most `retries` times more, and keeps what the earlier tries said.
async fn again(retries: u32, mut attempt: impl AsyncFnMut() -> CaseResult) -> CaseResult {
    let (mut earlier, mut left) = (Vec::new(), retries);
    loop {
        let mut result = attempt().await;
        earlier.append(&mut result.earlier);
        if result.outcome.is_ok() || left == 0 {
            return CaseResult { earlier, ..result };
        }
        left -= 1;
        earlier.push(Attempt::from(result));
    }
}

#[cfg(test)]
mod tests {
    use results::{CaseId, Tier};

    use super::*;

    fn result(outcome: Outcome) -> CaseResult {
        CaseResult::new(CaseId::new("minimal", Tier::Quick, "x"), outcome)
    }

    /// Runs `again` on these outcomes, one a try.
    async fn tried(retries: u32, outcomes: &[Outcome]) -> CaseResult {
        let mut outcomes = outcomes.iter().cloned();
        again(retries, async || {
            result(outcomes.next().expect("no more tries than these"))
        })
        .await
    }

    #[tokio::test]
    async fn a_pass_after_a_failure_is_flaky_and_says_what_failed() {
        let fail = Outcome::fail("content", "differs", "");
        let flaky = tried(2, &[fail.clone(), Outcome::Pass]).await;
        assert!(flaky.is_flaky());
        assert_eq!(flaky.earlier[0].outcome, fail);
        let broken = tried(1, &[fail.clone(), fail.clone()]).await;
        assert!(!broken.is_flaky() && broken.earlier.len() == 1);
        let trouble = Outcome::Infrastructure {
            what: "QEMU was killed".into(),
        };
        let disturbed = tried(1, &[trouble.clone(), Outcome::Pass]).await;
        assert!(!disturbed.is_flaky() && disturbed.earlier.len() == 1);
        assert!(
            tried(2, &[trouble, fail.clone(), Outcome::Pass])
                .await
                .is_flaky()
        );
        assert!(!tried(0, &[Outcome::Pass]).await.is_flaky());
        assert!(tried(0, &[fail]).await.earlier.is_empty());
    }
}
