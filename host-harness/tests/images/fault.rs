//! The fault gallery: kernels, guests and agents that misbehave, each in one way, and what the harness
//! must make of it. Every case breaks a check that would pass, expects the right outcome with the right
//! title in time and a complete dossier, and then runs a check on a fresh fork, which must be unharmed.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host_harness::checks::{self, Check};
use host_harness::dossier::Policy;
use host_harness::lab::Break;
use host_harness::runner;
use image_builder::FaultsRequest;
use kernel_log::{Expected, Matcher};
use libtest_mimic::Failed;
use results::CaseResult;
use serde_json::{Value, json};

use super::gallery::{Gallery, Seconds};

#[path = "fault_table.rs"]
mod table;

pub use table::FAULTS;

/// One way to misbehave.
pub struct Fault {
    /// The case's name.
    pub name: &'static str,
    /// What goes wrong, for the table.
    pub about: &'static str,
    /// The check that must notice.
    check: &'static str,
    /// Where in its story, see `Lab::point`.
    point: &'static str,
    /// Modules and programs of `faults/src` that are put into the guest's `/run`.
    files: &'static [&'static str],
    /// What is done there.
    script: &'static str,
    /// The check's deadline, in seconds.
    deadline: u64,
    /// What the check declares.
    expects: &'static [Expected],
    /// The kind of failure, or `pass`.
    kind: &'static str,
    /// What its title must hold.
    title: &'static str,
}

/// What the check declares that expects the warning.
const A_WARNING: &[Expected] = &[Expected {
    what: Matcher::rule("warning"),
    must: true,
    why: "the gallery's module warns while it loads",
}];

/// How much longer than the deadline a verdict may take.
const GRACE: Duration = Duration::from_secs(2);

/// The check that runs after each fault.
const NEXT: &str = "mkfs_mount";

/// Its rows in the report, and its table in the README.
const REPORT: Gallery = Gallery {
    name: "gallery",
    rows: "faults",
    marks: ("<!-- table -->\n", "<!-- end of table -->\n"),
    source: "tests/images/fault_table.rs",
};

/// Runs the fault and what comes after it, writes its row, and judges.
pub fn shows(fault: &'static Fault) -> Result<(), Failed> {
    let check = checks::find(fault.check).ok_or("no such check")?;
    // One for the life of this process.
    let check: &'static Check = Box::leak(Box::new(Check {
        deadline: Duration::from_secs(fault.deadline),
        expects: fault.expects,
        ..*check
    }));
    let next = checks::find(NEXT).ok_or("no such check")?;
    let (seen, after) = super::block_on(async {
        let mut setup = super::setup(super::DEFAULT, Vec::new(), Policy::default()).await?;
        let made = image_builder::faults(
            &FaultsRequest {
                out_dir: setup.layout.out.clone(),
                cache_dir: setup.layout.cache.clone(),
                ..FaultsRequest::new(&setup.layout.workspace)
            },
            &setup.image.manifest,
            &(),
        )
        .await?;
        let unharmed = Arc::new(setup.clone());
        setup.breaks = vec![fault.as_break(&made)];
        let seen = runner::run_check(&Arc::new(setup), check).await;
        let after = runner::run_check(&unharmed, next).await;
        Ok::<_, Failed>((seen, after))
    })?;
    super::show(&seen);
    let complaints = fault.complaints(&seen, &after);
    let row = fault.row(&seen, &after, &complaints);
    println!("{}", serde_json::to_string_pretty(&row)?);
    REPORT.add(fault.name, &row, FAULTS.iter().map(|fault| fault.name))?;
    if complaints.is_empty() {
        // It was whole; nobody will look into it.
        if let Some(dir) = &seen.dossier {
            fs::remove_dir_all(dir)?;
        }
        return Ok(());
    }
    let (_, _, detail) = seen.outcome.failure();
    Err(format!("{}\n{detail}", complaints.join("\n")).into())
}

impl Fault {
    /// The fault of this name.
    pub fn find(name: &str) -> Option<&'static Fault> {
        FAULTS.iter().find(|fault| fault.name == name)
    }

    pub fn as_break(&self, made: &Path) -> Break {
        let file = |name: &&'static str| {
            let name = name.trim_start_matches("/run/");
            made.join(name)
        };
        Break {
            point: self.point,
            script: self.script,
            files: self.files.iter().map(|name| (file(name), *name)).collect(),
        }
    }

    /// What is not as it must be.
    fn complaints(&self, seen: &CaseResult, after: &CaseResult) -> Vec<String> {
        let mut out = Vec::new();
        let (kind, title, _) = seen.outcome.failure();
        if kind != self.kind || !title.contains(self.title) {
            out.push(format!(
                "expected {} `{}`, saw {kind} `{title}`",
                self.kind, self.title
            ));
        }
        let (seconds, limit) = (judged_after(seen), self.limit(seen));
        if seconds > limit {
            out.push(format!(
                "the verdict took {seconds:.1} s, more than {limit:.0} s"
            ));
        }
        if !seen.outcome.is_ok()
            && let Err(lack) = super::dossier::whole(seen)
        {
            out.push(lack.message().unwrap_or("no dossier").to_owned());
        }
        if !after.outcome.is_ok() {
            out.push(format!("the next check was harmed: {:?}", after.outcome));
        }
        out
    }

    fn limit(&self, seen: &CaseResult) -> f64 {
        let grace = super::dossier::pace(seen).stretch(GRACE);
        (Duration::from_secs(self.deadline) + grace).as_secs_f64() + waited(seen)
    }

    fn row(&self, seen: &CaseResult, after: &CaseResult, complaints: &[String]) -> Value {
        let (kind, title, _) = seen.outcome.failure();
        let (next, _, _) = after.outcome.failure();
        json!({
            "fault": self.name,
            "about": self.about,
            "check": self.check,
            "expected": {"outcome": self.kind, "title": self.title},
            "seen": {"outcome": kind, "title": title},
            "seconds": (judged_after(seen) * 10.0).round() / 10.0,
            "deadline": self.deadline,
            "dossier": seen.dossier.as_ref().map(|_| super::dossier::whole(seen).is_ok()),
            "next_check": next,
            "complaints": complaints,
        })
    }
}

/// Seconds from the moment the machine was ready to the verdict.
fn judged_after(result: &CaseResult) -> f64 {
    let ready = result
        .properties
        .iter()
        .find(|(name, _)| name == "ready-seconds");
    let ready = ready.and_then(|(_, value)| value.parse().ok());
    result.took.as_secs_f64() - ready.unwrap_or(0.0)
}

/// Seconds for which the host kept the check's machines waiting: no deadline counts them.
fn waited(result: &CaseResult) -> f64 {
    let waits = result.properties.iter();
    let waits = waits.filter(|(name, _)| name == "seconds-waited");
    waits
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

/// The README's table says what the data say.
pub fn the_readme_is_true() -> Result<(), Failed> {
    REPORT.holds(lines)
}

/// The table, in Markdown.
fn lines(seconds: &Seconds<'_>) -> String {
    let mut out = String::from(
        "| fault | what goes wrong | in check | outcome | title | deadline, s | seconds |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for fault in FAULTS {
        out.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            fault.name,
            fault.about,
            fault.check,
            fault.kind,
            fault.title,
            fault.deadline,
            seconds(fault.name)
        ));
    }
    out
}

/// A case of every fault the gallery's sources hold, and no name twice.
pub fn every_source_is_used() -> Result<(), Failed> {
    let source = super::layout()?.workspace.join("faults/src");
    let mut unused = Vec::new();
    for file in fs::read_dir(source)? {
        let path = file?.path();
        if path.extension().is_none_or(|e| e != "c") {
            continue;
        }
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let (module, program) = (format!("/run/{stem}.ko"), format!("/run/{stem}"));
        let used = |f: &Fault| {
            f.files
                .iter()
                .any(|name| *name == module || *name == program)
        };
        if !FAULTS.iter().any(used) {
            unused.push(stem);
        }
    }
    let mut names: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
    names.sort_unstable();
    names.dedup();
    if unused.is_empty() && names.len() == FAULTS.len() {
        return Ok(());
    }
    Err(format!("no case for {unused:?}, or a name twice").into())
}
