//! Runs checks: gives each its lab, keeps its deadline, lets both judges speak, and tells the
//! reporters.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::checks::{Check, SMOKE, Start};
use crate::dossier::{self, Broken};
use crate::event::{Attempt, CaseId, CaseResult, Event, Part, Reporter, Reporters};
use crate::lab::{Break, Evidence, Failure, Lab, LastWords, Remains, Setup, Spent, Subject};
use crate::verdict::{Finding, Outcome};

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
    /// Of those that passed: only after they had not.
    pub flaky: usize,
}

impl<'a> FromIterator<&'a CaseResult> for Tally {
    fn from_iter<I: IntoIterator<Item = &'a CaseResult>>(results: I) -> Tally {
        let mut tally = Tally::default();
        for result in results {
            tally.count(result);
        }
        tally
    }
}

impl Tally {
    fn count(&mut self, result: &CaseResult) {
        self.flaky += usize::from(result.is_flaky());
        match &result.outcome {
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
        self.flaky += other.flaky;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )?;
        if self.flaky > 0 {
            write!(f, ", {} FLAKY: passed only when tried again", self.flaky)?;
        }
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

fn case_id(setup: &Setup, check: &Check) -> CaseId {
    CaseId {
        variant: setup.image.manifest.variant.clone(),
        tier: check.tier,
        check: check.name.to_owned(),
    }
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
    let mut earlier = Vec::new();
    loop {
        let result = attempt().await;
        if result.outcome.is_ok() || earlier.len() >= retries as usize {
            return CaseResult { earlier, ..result };
        }
        earlier.push(Attempt {
            outcome: result.outcome,
            transcript: result.transcript,
            kernel_log: result.kernel_log,
            dossier: result.dossier,
        });
    }
}

/// One check from machine to verdict. Never fails: whatever happens is an outcome.
pub async fn run_check(setup: &Arc<Setup>, check: &'static Check) -> CaseResult {
    judge(Lab::new(setup.clone(), check, lab_id(setup, check)))
        .await
        .close()
        .await
}

/// As [`run_check`], with a module in the place of the image's own.
pub async fn run_check_of(
    setup: &Arc<Setup>,
    check: &'static Check,
    subject: &Arc<Subject>,
) -> CaseResult {
    judge(lab_of(setup, check, subject)).await.close().await
}

/// A lab for a check with a module in the place of the image's own.
pub fn lab_of(setup: &Arc<Setup>, check: &'static Check, subject: &Arc<Subject>) -> Lab {
    let lab = Lab::new(setup.clone(), check, lab_id(setup, check));
    if check.name == SMOKE.name {
        let mut lab = lab.without_module();
        lab.give(subject.clone());
        lab
    } else {
        lab.with_subject(subject.clone())
    }
}

/// Names a run of a check: two at the same time must not share a log folder.
fn lab_id(setup: &Setup, check: &Check) -> String {
    let variant = &setup.image.manifest.variant;
    format!("{variant}-{}-{}", check.name, std::process::id())
}

/// Tells the story of a lab's check, prepared or not, and lets both judges speak.
pub async fn judge(mut lab: Lab) -> Judged {
    let begin = Instant::now();
    let (setup, check) = (lab.setup().clone(), lab.check());
    let case = case_id(&setup, check);
    let story = tell(&mut lab, check).await;
    let steps = lab.steps();
    let mut parts = lab.take_parts();
    let story = Failure::with_parts(story, &parts);
    parts.extend(parts_of(&steps, &story));
    let (seed, spent, subject) = (lab.seed(), lab.spent, lab.subject().cloned());
    let remains = lab.finish().await;
    let evidence = remains.evidence();
    let outcome = evidence.judge(&story);
    Judged {
        outcome,
        steps,
        took: begin.elapsed(),
        begin,
        setup,
        check,
        case,
        story,
        parts,
        seed,
        spent,
        subject,
        remains,
        evidence,
    }
}

/// The steps of a story as parts of its result.
fn parts_of(steps: &[(&'static str, Duration)], story: &Result<(), Failure>) -> Vec<Part> {
    let last = steps.len().saturating_sub(1);
    let part = |(n, (name, _)): (usize, &(&'static str, Duration))| Part {
        name: (*name).to_owned(),
        outcome: match story {
            Err(failure) if n == last => Outcome::fail("check", failure.to_string(), ""),
            _ => Outcome::Pass,
        },
    };
    steps.iter().enumerate().map(part).collect()
}

/// A check that has its verdict, and machines that are still there.
pub struct Judged {
    /// The verdict. What reaches the consoles while the machines are ended can still turn it.
    pub outcome: Outcome,
    /// The steps of the story that were begun, with what each took.
    pub steps: Vec<(&'static str, Duration)>,
    /// How long it took so far.
    pub took: Duration,
    begin: Instant,
    setup: Arc<Setup>,
    check: &'static Check,
    case: CaseId,
    story: Result<(), Failure>,
    parts: Vec<Part>,
    seed: u64,
    spent: Spent,
    subject: Option<Arc<Subject>>,
    remains: Remains,
    evidence: Evidence,
}

impl Judged {
    /// What the kernel logs show.
    pub fn findings(&self) -> &[Finding] {
        &self.evidence.findings
    }

    /// Writes the dossier if there is to be one, and ends the machines.
    pub async fn close(self) -> CaseResult {
        let Judged {
            outcome,
            steps,
            took,
            begin,
            setup,
            check,
            case,
            story,
            parts,
            seed,
            spent,
            subject,
            mut remains,
            evidence,
        } = self;
        let dossier = match setup.dossiers.wants(&outcome) {
            true => {
                let last_words = remains.last_words();
                let exhibits = remains.exhibits.files().to_vec();
                let found = dossier::Case {
                    case: &case,
                    about: check.about,
                    deadline: setup.stretched(check.deadline()),
                    took,
                    outcome: &outcome,
                    findings: &evidence.findings,
                    last_words: last_words.as_deref(),
                    deaf: remains.deaf(),
                    seed,
                    breaks: setup.breaks.iter().map(Broken::from).collect(),
                    properties: &evidence.properties,
                    transcript: &evidence.transcript,
                    kernel_log: &evidence.kernel_log,
                    image: &setup.image,
                    subject: subject.as_deref(),
                    tools: &setup.tools,
                    exhibits: &exhibits,
                    boot_deadline: setup.stretched(setup.boot_deadline),
                };
                let machines = &mut remains.machines;
                Some(dossier::write(&setup.dossiers, &setup.layout, &found, machines).await)
            }
            false => None,
        };
        // What reached the consoles meanwhile counts too.
        let mut evidence = remains.end().await;
        let outcome = evidence.judge(&story);
        let dossier = match dossier {
            Some(Ok(dir)) => Some(dir),
            Some(Err(error)) => {
                let why = ("dossier".to_owned(), format!("not written: {error}"));
                evidence.properties.push(why);
                None
            }
            None => None,
        };
        let seconds =
            |name: &str, time: Duration| (name.into(), format!("{:.3}", time.as_secs_f64()));
        let own = begin.elapsed().saturating_sub(spent.machine + spent.story);
        evidence.properties.extend([
            seconds("seconds-machine", spent.machine),
            seconds("seconds-story", spent.story),
            seconds("seconds-harness", own),
        ]);
        let steps = steps.iter();
        evidence
            .properties
            .extend(steps.map(|(name, time)| seconds(&format!("seconds-step-{name}"), *time)));
        if let Some(subject) = &subject {
            let module = ("module-sha256".to_owned(), subject.sha256.clone());
            evidence.properties.push(module);
        }
        CaseResult {
            case,
            outcome,
            took,
            properties: evidence.properties,
            transcript: evidence.transcript,
            kernel_log: evidence.kernel_log,
            parts,
            earlier: Vec::new(),
            dossier,
        }
    }
}

/// Prepares and tells the story, within the deadline of its row, and draws up the balance. When time
/// is up, the machines' last words are collected before anything is given up.
async fn tell(lab: &mut Lab, check: &'static Check) -> Result<(), Failure> {
    let machines = lab.machines();
    let prepared = lab.prepare().await;
    let pace = lab.pace();
    let deadline = lab.deadline();
    let told = match prepared {
        Ok(()) => {
            let begin = Instant::now();
            let fatal = lab.fatal();
            let mut story = (check.story)(lab);
            let told = tokio::select! {
                told = tokio::time::timeout(deadline, &mut story) => told,
                finding = fatal => Ok(Err(Failure::check(
                    "kernel",
                    format!("broken off, for the kernel is not to be trusted after this: {finding}"),
                    "",
                ))),
            };
            match told {
                Ok(told) => {
                    drop(story);
                    lab.spent.story = begin.elapsed();
                    told
                }
                Err(_) => {
                    // The story's requests are still under way: what hangs is seen hanging.
                    let words = LastWords::collect(&machines, pace).await;
                    drop(story);
                    let title = overrun(check.start, deadline);
                    return Err(lab.overran(title, words));
                }
            }
        }
        unprepared => unprepared,
    };
    let told = match told {
        Ok(()) => lab.balance().await,
        failed => failed,
    };
    match told {
        // A request had a deadline of its own.
        Err(failure) if failure.is_overrun() => {
            let words = LastWords::collect(&machines, pace).await;
            Err(lab.overran(failure.to_string(), words))
        }
        told => told,
    }
}

impl From<&Break> for Broken {
    fn from(broken: &Break) -> Broken {
        let files = broken.files.iter();
        Broken {
            point: broken.point.to_owned(),
            script: broken.script.to_owned(),
            files: files
                .map(|(from, to)| (from.clone(), to.to_string()))
                .collect(),
        }
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
        let flaky = Tally {
            passed: 3,
            flaky: 1,
            ..Tally::default()
        };
        assert_eq!(
            flaky.to_string(),
            "3 passed, 0 failed, 0 skipped, 1 FLAKY: passed only when tried again"
        );
    }

    fn result(outcome: Outcome) -> CaseResult {
        CaseResult::new(
            CaseId {
                variant: "minimal".into(),
                tier: crate::checks::Tier::Quick,
                check: "x".into(),
            },
            outcome,
        )
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
        assert!(!tried(0, &[Outcome::Pass]).await.is_flaky());
        assert!(tried(0, &[fail]).await.earlier.is_empty());
    }
}
