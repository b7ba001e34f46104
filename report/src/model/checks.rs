//! The matrix of checks and images, and the story of every failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use results::dossier::{Facts, Left, files};
use results::{CaseResult, Outcome, Part, Tier};
use serde::Serialize;

use super::{Fact, Link, rfc3339, word};
use crate::history::Run;

/// How many earlier outcomes of a check are shown.
const RECENT: usize = 20;

/// What the names of properties begin with that say something to a reader; the others tie a result to
/// machines.
const TELLING: &[&str] = &[
    // What the host did to earlier tries.
    "host-trouble",
    "exposure-",
    "settled-",
    "cost-beside-peer-",
    "module-signing",
    "kernel-lockdown",
    "pjdfstest",
];

/// A check there is, for who asks for a report to say.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its name.
    pub check: &'static str,
    /// What must hold.
    pub about: &'static str,
}

/// A check, and what became of it on each image.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub check: String,
    /// Its tier.
    pub tier: String,
    /// What must hold.
    pub about: String,
    /// One for each image it ran on.
    pub cells: Vec<Cell>,
}

/// What became of a check on an image.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The image's variant.
    pub variant: String,
    /// The image's version.
    pub version: String,
    /// The name reports use: `minimal::quick::stress`.
    pub case: String,
    /// `pass`, `fail`, `skip` or `infrastructure`.
    pub outcome: String,
    /// Whether it passed only after it had not.
    pub flaky: bool,
    /// The reason, for anything but a pass; one line.
    pub title: String,
    /// Seconds it took.
    pub seconds: f64,
    /// When its verdict was kept, in RFC 3339.
    pub at: String,
    /// What a tool in it reported one by one: how many passed, and how many there are.
    pub parts: Option<(usize, usize)>,
    /// What it counted or measured, or was told by a public tool.
    pub figures: Vec<Fact>,
    /// What became of it in earlier runs, oldest first.
    pub recent: Vec<String>,
}

/// A check that did not pass, or one whose dossier was kept.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Its name in links.
    pub id: String,
    /// The name reports use.
    pub case: String,
    /// `verdict`: it counts in this report's verdict; `dossier`: left by another run.
    pub from: &'static str,
    /// `fail`, `infrastructure`, `pass`, `skip`.
    pub outcome: String,
    /// What sort of failure.
    pub kind: String,
    /// One line.
    pub title: String,
    /// What had to hold.
    pub about: String,
    /// All that is known.
    pub detail: String,
    /// The first thing the kernel log shows that it should not.
    pub first_finding: Option<String>,
    /// When, in RFC 3339.
    pub at: String,
    /// Seconds it took.
    pub seconds: f64,
    /// Parts that did not pass: name and reason.
    pub parts: Vec<Fact>,
    /// What ties it to machines.
    pub properties: Vec<Fact>,
    /// Whether a test broke it on purpose.
    pub on_purpose: bool,
    /// The dossier's folder name.
    pub dossier: Option<String>,
    /// Files of the dossier.
    pub links: Vec<Link>,
    /// Commands to go on with.
    pub commands: Vec<Fact>,
}

/// A kept result, and when it was kept.
pub(super) type Kept = (u64, CaseResult);

pub(super) fn cell(version: &str, (at, result): &Kept, runs: &[Run]) -> Cell {
    let name = result.case.to_string();
    let earlier = runs.iter().flat_map(|run| &run.outcomes);
    let mut recent: Vec<String> = earlier
        .filter(|(case, _)| *case == name)
        .map(|(_, outcome)| outcome.clone())
        .collect();
    recent.drain(..recent.len().saturating_sub(RECENT));
    let passed = |part: &&Part| part.outcome == Outcome::Pass;
    let parts = result.parts.len();
    let figures = result.properties.iter().filter_map(|(name, value)| {
        let counted = name.strip_prefix("count-");
        let telling = TELLING.iter().any(|start| name.starts_with(start));
        let name = counted.or(telling.then_some(name.as_str()))?;
        Some(Fact::new(name, one_line(value)))
    });
    Cell {
        variant: result.case.variant.clone(),
        version: version.to_owned(),
        case: name,
        outcome: word(&result.outcome).into(),
        flaky: result.is_flaky(),
        title: one_line(result.outcome.failure().1),
        seconds: result.took.as_secs_f64(),
        at: rfc3339(*at),
        parts: (parts > 0).then(|| (result.parts.iter().filter(passed).count(), parts)),
        figures: figures.collect(),
        recent,
    }
}

/// Puts cells into rows: those of the known checks in their order, then others.
pub(super) fn rows(cells: Vec<(Tier, String, Cell)>, known: &[Known]) -> Vec<Row> {
    let order = |name: &str| {
        let mut all = known.iter();
        all.position(|known| known.check == name)
            .unwrap_or(usize::MAX)
    };
    let mut rows: BTreeMap<(usize, String), Row> = BTreeMap::new();
    for (tier, check, cell) in cells {
        let key = (order(&check), check.clone());
        let row = rows.entry(key).or_insert_with(|| Row {
            about: about(&check, known),
            check,
            tier: tier.to_string(),
            cells: Vec::new(),
        });
        row.cells.push(cell);
    }
    rows.into_values().collect()
}

fn about(check: &str, known: &[Known]) -> String {
    let found = known.iter().find(|known| known.check == check);
    found.map_or_else(String::new, |known| known.about.to_owned())
}

/// The story of a check that did not pass.
pub(super) fn of_verdict(id: String, (at, result): &Kept, from: &Path, known: &[Known]) -> Failure {
    let (kind, title, detail) = result.outcome.failure();
    let bad = |part: &&Part| !part.outcome.is_ok();
    let parts = result.parts.iter().filter(bad);
    let mut failure = Failure {
        id,
        case: result.case.to_string(),
        from: "verdict",
        outcome: word(&result.outcome).into(),
        kind: kind.to_owned(),
        title: one_line(title),
        about: about(&result.case.check, known),
        detail: detail.to_owned(),
        first_finding: None,
        at: rfc3339(*at),
        seconds: result.took.as_secs_f64(),
        parts: parts
            .map(|part| Fact::new(&part.name, one_line(part.outcome.failure().1)))
            .collect(),
        properties: properties(&result.properties),
        on_purpose: false,
        dossier: None,
        links: Vec::new(),
        commands: Vec::new(),
    };
    let facts = result.dossier.as_ref().map(|dir| (dir, Facts::read(dir)));
    if let Some((dir, Ok(facts))) = facts {
        failure.first_finding = facts.first_finding.clone();
        evidence(&mut failure, dir, &facts, from);
    }
    failure
}

/// The story of a dossier that no verdict speaks of.
pub(super) fn of_dossier(id: String, dir: &Path, facts: &Facts, from: &Path) -> Failure {
    let outcome = match facts.outcome.kind.as_str() {
        kind @ ("pass" | "skip" | "infrastructure") => kind,
        _ => "fail",
    };
    let mut failure = Failure {
        id,
        case: facts.case.clone(),
        from: "dossier",
        outcome: outcome.into(),
        kind: facts.outcome.kind.clone(),
        title: one_line(&facts.outcome.title),
        about: facts.about.clone(),
        detail: facts.outcome.detail.clone(),
        first_finding: facts.first_finding.clone(),
        at: rfc3339(facts.written),
        seconds: facts.took_s,
        parts: Vec::new(),
        properties: properties(&facts.properties),
        on_purpose: !facts.breaks.is_empty(),
        dossier: None,
        links: Vec::new(),
        commands: Vec::new(),
    };
    evidence(&mut failure, dir, facts, from);
    failure
}

fn evidence(failure: &mut Failure, dir: &Path, facts: &Facts, from: &Path) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let all = [
        (files::README, "The page of this failure"),
        (files::CONSOLE, "Console"),
        (files::KERNEL_LOG, "Kernel log"),
        (files::TRANSCRIPT, "Transcript"),
        (files::OOPS, "Kernel report with source lines"),
        (files::LAST_WORDS, "Last words"),
        (files::IMAGE, "Manifest of the image"),
        (files::FACTS, "All of this for programs"),
    ];
    let links = all.iter();
    failure.links = links
        .filter_map(|(file, what)| Link::to(from, &dir.join(file), what))
        .collect();
    for machine in &facts.machines {
        let arguments = PathBuf::from(&machine.folder).join(files::ARGUMENTS);
        let what = format!("QEMU's command line of {}", machine.folder);
        failure
            .links
            .extend(Link::to(from, &dir.join(arguments), &what));
    }
    let frozen = facts.machines.iter().any(|m| m.left == Left::Frozen);
    let place = format!("out/reports/dossiers/{name}");
    if !facts.machines.is_empty() {
        let what = match frozen {
            true => "back in the failed machine, as it was",
            false => "boot what the failed machine left on its disk",
        };
        let command = format!("cargo images reopen {place}");
        failure.commands.push(Fact::new(what, command));
    }
    let command = format!("cargo images rerun {place}");
    failure.commands.push(Fact::new(
        "the same check, image, machine and seed",
        command,
    ));
    failure.dossier = Some(name.into_owned());
}

/// Paths of the building host say nothing to a reader elsewhere.
fn properties(all: &[(String, String)]) -> Vec<Fact> {
    all.iter()
        .filter(|(name, _)| name != "console")
        .map(|(name, value)| Fact::new(name, one_line(value)))
        .collect()
}

/// Text without line ends.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
