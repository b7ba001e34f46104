//! Writing a dossier: machines first, while they live, then the texts, then the facts, then the name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use image::Image;
use kernel_log::{Finding, symbolize};
use machine::Machine;
use results::dossier::{Broken, FORMAT, ImageFacts, Told, files, page};
use results::{CaseId, Layout, Outcome, Subject};

use super::{DossierError, Facts, Policy, machines, store};

/// What is known about a check that has its verdict.
#[derive(Debug)]
pub struct Case<'a> {
    /// Which.
    pub case: &'a CaseId,
    /// What had to hold.
    pub about: &'a str,
    /// How long it may take.
    pub deadline: Duration,
    /// How long it took.
    pub took: Duration,
    /// The verdict.
    pub outcome: &'a Outcome,
    /// What the kernel logs show.
    pub findings: &'a [Finding],
    /// What was collected when the deadline had passed.
    pub last_words: Option<&'a str>,
    /// Whether the guest is known not to answer.
    pub deaf: bool,
    /// The seed of its randomness.
    pub seed: u64,
    /// What a test broke.
    pub breaks: Vec<Broken>,
    /// What ties it to machines.
    pub properties: &'a [(String, String)],
    /// What the agents were asked.
    pub transcript: &'a str,
    /// What the kernels said.
    pub kernel_log: &'a str,
    /// The image.
    pub image: &'a Image,
    /// The module that was in the place of the image's own.
    pub subject: Option<&'a Subject>,
    /// The disk with the test tools.
    pub tools: &'a Path,
    /// Further files to take along, by name.
    pub exhibits: &'a [(String, PathBuf)],
    /// From power-on to the agent's answer, at most.
    pub boot_deadline: Duration,
}

/// Writes the dossier of a check and returns its folder. Its machines are dead afterwards.
///
/// # Errors
/// When the host cannot store it.
pub async fn write(
    policy: &Policy,
    layout: &Layout,
    case: &Case<'_>,
    machines: &mut [Arc<Machine>],
) -> Result<PathBuf, DossierError> {
    let home = layout.dossiers();
    let cannot = |what: &str| DossierError::io(format!("cannot {what} in {}", home.display()));
    let mut draft = store::begin(&home).map_err(cannot("begin a dossier"))?;
    draft.keep().await.map_err(cannot("keep a dossier"))?;
    let dir = draft.dir().to_owned();
    let image = &case.image.manifest.disk.sha256;
    let mut consoles = String::new();
    let mut left = Vec::new();
    for (number, machine) in (1..).zip(machines.iter_mut()) {
        left.push(machines::take(machine, number, &dir, image, policy, case.deaf).await?);
        let log = std::fs::read(machine.console().path()).unwrap_or_default();
        if left.len() > 1 {
            consoles.push_str(&format!("\n=== machine-{number} ===\n"));
        }
        consoles.push_str(&String::from_utf8_lossy(&log));
    }
    for (name, file) in case.exhibits {
        let to = dir.join(name);
        let (file, to) = (file.clone(), to.clone());
        tokio::task::spawn_blocking(move || machine::snapshot::copy_file(&file, &to))
            .await
            .map_err(std::io::Error::other)
            .and_then(|copied| copied)
            .map_err(cannot("keep an exhibit"))?;
    }
    let unique = match machines.first() {
        Some(machine) => machine.id().to_owned(),
        None => format!("{:x}-{}", now().as_millis(), std::process::id()),
    };
    let name = format!("{}-{}-{unique}", case.case.variant, case.case.check);
    let oops = explain(case, &consoles);
    let last_words = case.last_words.map(|text| {
        let (module, debug) = under_test(case);
        symbolize::annotate(text, module, debug.as_deref())
    });
    let subject = case.subject.map(|subject| keep(subject, &dir)).transpose();
    let subject = subject.map_err(cannot("keep the module"))?;
    let facts = Facts {
        format: FORMAT,
        case: case.case.to_string(),
        variant: case.case.variant.clone(),
        check: case.case.check.clone(),
        about: case.about.to_owned(),
        outcome: Told::from(case.outcome),
        first_finding: first_finding(case.findings),
        oops: oops.is_some(),
        overran: case.last_words.is_some(),
        written: now().as_secs(),
        took_s: case.took.as_secs_f64(),
        deadline_s: case.deadline.as_secs_f64(),
        seed: case.seed,
        breaks: case.breaks.clone(),
        properties: case.properties.to_vec(),
        image: ImageFacts {
            dir: case.image.dir.clone(),
            sha256: image.clone(),
        },
        subject,
        tools: case.tools.to_owned(),
        out: layout.out.clone(),
        boot_deadline_s: case.boot_deadline.as_secs_f64(),
        machines: left,
    };
    let place = home.join(&name);
    // As short as one would type it: relative to the checkout, which `cargo images` runs in.
    let shown = place.strip_prefix(&layout.workspace).unwrap_or(&place);
    let page = page(&facts, &shown.display().to_string());
    let manifest = json(&case.image.manifest)?;
    let json = json(&facts)?;
    let texts = [
        (files::CONSOLE, Some(consoles.as_str())),
        (files::KERNEL_LOG, Some(case.kernel_log)),
        (files::TRANSCRIPT, Some(case.transcript)),
        (files::OOPS, oops.as_deref()),
        (files::LAST_WORDS, last_words.as_deref()),
        (files::IMAGE, Some(&manifest)),
        (files::README, Some(&page)),
        (files::FACTS, Some(&json)),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            std::fs::write(dir.join(name), text).map_err(cannot("write a dossier"))?;
        }
    }
    draft.publish(&name).map_err(cannot("publish a dossier"))?;
    store::evict(&home, policy.cap, &place).map_err(cannot("remove old dossiers"))?;
    Ok(place)
}

fn first_finding(findings: &[Finding]) -> Option<String> {
    let first = findings.iter().find(|finding| finding.counts());
    first.map(|finding| finding.title.clone())
}

/// The kernel's report with source lines, from the kernel log, or from the console of a guest that
/// could not hand its log over.
fn explain(case: &Case<'_>, consoles: &str) -> Option<String> {
    let (module, debug) = under_test(case);
    [case.kernel_log, consoles]
        .into_iter()
        .find_map(|log| symbolize::explain(log, module, debug.as_deref()))
}

/// The module's name, and where it is with its debug information.
fn under_test<'a>(case: &Case<'a>) -> (&'a str, Option<PathBuf>) {
    if let Some(subject) = case.subject {
        return (&subject.name, Some(subject.debug.clone()));
    }
    let debug = case.image.manifest.module.debug.as_ref();
    let debug = debug.map(|debug| case.image.dir.join(&debug.name));
    (&case.image.manifest.source.config.module, debug)
}

/// Copies a tried module into the dossier; where it was built, the next one is built soon. The files
/// of the result are relative to the dossier.
fn keep(subject: &Subject, dir: &Path) -> std::io::Result<Subject> {
    let mut kept = Subject {
        file: files::MODULE.into(),
        debug: files::MODULE_DEBUG.into(),
        ..subject.clone()
    };
    std::fs::copy(&subject.file, dir.join(&kept.file))?;
    std::fs::copy(&subject.debug, dir.join(&kept.debug))?;
    for (n, (from, ..)) in kept.files.iter_mut().enumerate() {
        let name = PathBuf::from(format!("module-file-{n}"));
        std::fs::copy(&*from, dir.join(&name))?;
        *from = name;
    }
    Ok(kept)
}

fn json(value: &impl serde::Serialize) -> Result<String, DossierError> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|error| DossierError::io("cannot write facts down")(error.into()))? + "\n")
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
