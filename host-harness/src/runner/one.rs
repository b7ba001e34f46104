//! One check: gives it its lab, keeps its deadline, and lets both judges speak.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::{HOST_TROUBLE, Tries, Whose, timeout_by, waited};
use kernel_log::Finding;
use results::Subject;
use results::dossier::Broken;
use results::{Attempt, CaseId, CaseResult, Outcome, Part};

use super::verdict;
use crate::checks::{Check, SMOKE, Start};
use crate::dossier::{self, DossierError};
use crate::lab::{Break, Evidence, Failure, Lab, LastWords, Remains, Setup, Spent};

/// What a check on an image is called in reports.
pub(super) fn case_id(setup: &Setup, check: &Check) -> CaseId {
    CaseId::new(&setup.image.manifest.variant, check.tier, check.name)
}

/// One check from machine to verdict, begun again on new machines where the host has ended it. Never
/// fails: whatever happens is an outcome.
pub async fn run_check(setup: &Arc<Setup>, check: &'static Check) -> CaseResult {
    until_told(|id| Lab::new(setup.clone(), check, id), setup, check).await
}

/// As [`run_check`], with a module in the place of the image's own.
pub async fn run_check_of(
    setup: &Arc<Setup>,
    check: &'static Check,
    subject: &Arc<Subject>,
) -> CaseResult {
    until_told(|id| lab_with(setup, check, subject, id), setup, check).await
}

/// Gives a check a lab of its own, and another one as long as the host is why there is no verdict.
async fn until_told(lab: impl Fn(String) -> Lab, setup: &Setup, check: &Check) -> CaseResult {
    let mut tries = Tries::default();
    let mut earlier: Vec<Attempt> = Vec::new();
    loop {
        let id = match earlier.len() {
            0 => lab_id(setup, check),
            before => format!("{}-try{}", lab_id(setup, check), before + 1),
        };
        let judged = judge(lab(id)).await;
        let again = judged.begin_again(&mut tries);
        let mut result = judged.close().await;
        match &result.outcome {
            Outcome::Infrastructure { .. } if again => earlier.push(Attempt::from(result)),
            Outcome::Infrastructure { what } if !tries.troubles.is_empty() => {
                let before = tries.troubles.iter();
                let before: String = before.map(|told| format!("\n  before: {told}")).collect();
                let what = format!("tried {} times: {what}{before}", earlier.len() + 1);
                result.outcome = Outcome::Infrastructure { what };
                return begun_before(result, earlier);
            }
            _ => return begun_before(result, earlier),
        }
    }
}

/// The result with what earlier tries came to, which the report says too when it is a pass.
fn begun_before(mut result: CaseResult, earlier: Vec<Attempt>) -> CaseResult {
    let told = earlier.iter().map(|attempt| {
        let (_, title, _) = attempt.outcome.failure();
        (HOST_TROUBLE.to_owned(), title.to_owned())
    });
    result.properties.extend(told);
    CaseResult { earlier, ..result }
}

/// A lab for a check with a module in the place of the image's own.
pub fn lab_of(setup: &Arc<Setup>, check: &'static Check, subject: &Arc<Subject>) -> Lab {
    lab_with(setup, check, subject, lab_id(setup, check))
}

fn lab_with(setup: &Arc<Setup>, check: &'static Check, subject: &Arc<Subject>, id: String) -> Lab {
    let lab = Lab::new(setup.clone(), check, id);
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
    let outcome = verdict::of(&evidence, &story);
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
    /// Whether the host is why there is no verdict, and another try on new machines is due.
    pub fn begin_again(&self, tries: &mut Tries) -> bool {
        let Outcome::Infrastructure { what } = &self.outcome else {
            return false;
        };
        let whose = match &self.story {
            Err(Failure::HostPersists(_)) => return false,
            Err(failure) if failure.whose() == Whose::Ours => Whose::Ours,
            // What the story met after the host had taken a machine away only follows from that.
            _ => Whose::Host,
        };
        tries.again(whose, what)
    }

    /// What the kernel logs show.
    pub fn findings(&self) -> &[Finding] {
        &self.evidence.findings
    }

    /// Writes the dossier if there is to be one, and ends the machines.
    pub async fn close(mut self) -> CaseResult {
        let dossier = match self.setup.dossiers.wants(&self.outcome) {
            true => Some(self.write_dossier().await),
            false => None,
        };
        // What reached the consoles meanwhile counts too.
        let mut evidence = self.remains.end().await;
        let outcome = verdict::of(&evidence, &self.story);
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
        let spent = self.spent;
        let own = self
            .begin
            .elapsed()
            .saturating_sub(spent.machine + spent.story);
        evidence.properties.extend([
            seconds("seconds-machine", spent.machine),
            seconds("seconds-story", spent.story),
            seconds("seconds-harness", own),
        ]);
        let steps = self.steps.iter();
        evidence
            .properties
            .extend(steps.map(|(name, time)| seconds(&format!("seconds-step-{name}"), *time)));
        if let Some(subject) = &self.subject {
            let module = ("module-sha256".to_owned(), subject.sha256.clone());
            evidence.properties.push(module);
        }
        CaseResult {
            took: self.took,
            properties: evidence.properties,
            transcript: evidence.transcript,
            kernel_log: evidence.kernel_log,
            parts: self.parts,
            dossier,
            ..CaseResult::new(self.case, outcome)
        }
    }

    async fn write_dossier(&mut self) -> Result<PathBuf, DossierError> {
        let (setup, check) = (&self.setup, self.check);
        let last_words = self.remains.last_words();
        let exhibits = self.remains.exhibits.files().to_vec();
        let found = dossier::Case {
            case: &self.case,
            about: check.about,
            deadline: setup.stretched(check.deadline()),
            took: self.took,
            outcome: &self.outcome,
            findings: &self.evidence.findings,
            last_words: last_words.as_deref(),
            deaf: self.remains.deaf(),
            seed: self.seed,
            breaks: setup.breaks.iter().map(Broken::from).collect(),
            properties: &self.evidence.properties,
            transcript: &self.evidence.transcript,
            kernel_log: &self.evidence.kernel_log,
            image: &setup.image,
            subject: self.subject.as_deref(),
            tools: &setup.tools,
            exhibits: &exhibits,
            boot_deadline: setup.stretched(setup.boot_deadline),
        };
        let machines = &mut self.remains.machines;
        dossier::write(&setup.dossiers, &setup.layout, &found, machines).await
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
            let lost = |from| machines.lost_since(from);
            let told = tokio::select! {
                told = timeout_by(begin.into(), deadline, lost, &mut story) => told,
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
                Err(late) if late.whose() == Whose::Host => {
                    let title = overrun(check.start, late.within);
                    return Err(Failure::Host(title + &waited(late.lost)));
                }
                Err(late) => {
                    // The story's requests are still under way: what hangs is seen hanging.
                    let words = LastWords::collect(&machines, pace).await;
                    drop(story);
                    let title = overrun(check.start, late.within);
                    return Err(lab.overran(title, &waited(late.lost), words));
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
        Err(failure) if failure.is_overrun() && failure.whose() == Whose::Guest => {
            let words = LastWords::collect(&machines, pace).await;
            Err(lab.overran(failure.to_string(), "", words))
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
