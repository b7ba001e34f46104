//! Reads what a report speaks of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use results::dossier::{Facts, files};
use results::stored::{self, Verdict};
use results::{CaseResult, Layout, Outcome};

use super::checks::{Kept, Known, cell, of_dossier, of_verdict, rows};
use super::logs::{self, levels};
use super::{Fact, Failure, Log, Model, SCHEMA, Tally, boots, images, rfc3339, speed, trends};
use crate::history::{History, HistoryError, Run};

/// Everything under `out/` that a report in the folder `from` tells, of these checks first. What is missing
/// is a note in it.
///
/// # Errors
/// When the history cannot be used.
pub async fn gather(layout: &Layout, from: &Path, checks: &[Known]) -> Result<Model, HistoryError> {
    let mut notes = Vec::new();
    let measured = speed::read(&layout.reports().join("perf"), &mut notes);
    let history = History::open(&layout.history())?;
    for run in measured
        .iter()
        .filter_map(|(name, file)| Run::of_record(name, file))
    {
        if !history.has(run.at_ms, &run.what)? {
            history.add(&run)?;
        }
    }
    let runs = history.runs()?;
    let mut told = Told {
        from: from.to_owned(),
        checks,
        ..Told::default()
    };
    let mut images = Vec::new();
    for (dir, manifest) in images::manifests(layout) {
        let size = match history.sizes(&manifest.disk.sha256)? {
            Some(sizes) => Some(sizes),
            None => match images::by_package(&dir.join(&manifest.disk.name)).await {
                Ok(sizes) => {
                    history.keep_sizes(&manifest.disk.sha256, &sizes)?;
                    Some(sizes)
                }
                Err(why) => {
                    let variant = &manifest.variant;
                    notes.push(format!(
                        "what takes the room in {variant} is not known: {why}"
                    ));
                    None
                }
            },
        };
        let size = size.map(|now| images::size(&now, images::before(&history, &runs, &manifest)));
        images.push(images::image(from, &dir, &manifest, size));
        match stored::verdict(&dir) {
            Ok(verdict) if verdict.image == manifest.disk.sha256 => {
                told.verdict(&manifest.variant, &manifest.vexfs_version, verdict, &runs);
            }
            Ok(_) => notes.push(format!(
                "the verdict beside {} is of an earlier image and is left out: run `cargo images \
                 validate {}`",
                manifest.disk.name, manifest.variant
            )),
            Err(why) => notes.push(format!("{} was not checked: {why}", manifest.disk.name)),
        }
    }
    drop(history);
    if images.is_empty() {
        notes.push("there is no image: run `cargo images build`".into());
    }
    told.dossiers(layout);
    let mut all_boots: Vec<super::Boot> = Vec::new();
    for (_, file) in measured.iter().rev() {
        for boot in boots::of_measured(file) {
            let known = |b: &super::Boot| {
                (&b.image, &b.firmware, &b.host) == (&boot.image, &boot.firmware, &boot.host)
            };
            if !all_boots.iter().any(known) {
                all_boots.push(boot);
            }
        }
    }
    for boot in told.boots {
        if !all_boots.iter().any(|known| known.image == boot.image) {
            all_boots.push(boot);
        }
    }
    notes.extend(logs::cap(&mut told.logs));
    let tally = told.tally;
    Ok(Model {
        schema: SCHEMA,
        made: rfc3339(super::now()),
        verdict: match (tally.checks, tally.failed + tally.infrastructure) {
            (0, _) => "nothing",
            (_, 0) => "passed",
            _ => "failed",
        },
        tally,
        host: told.host.1,
        images,
        checks: rows(told.cells, checks),
        failures: told.failures,
        boots: all_boots,
        speed: speed::speeds(&measured),
        history: trends::trends(&runs),
        logs: told.logs,
        notes,
    })
}

/// What verdicts and dossiers tell.
#[derive(Default)]
struct Told<'a> {
    from: PathBuf,
    /// The checks there are.
    checks: &'a [Known],
    tally: Tally,
    /// The latest, with its time.
    host: (u64, Vec<Fact>),
    cells: Vec<(results::Tier, String, super::Cell)>,
    failures: Vec<Failure>,
    boots: Vec<super::Boot>,
    logs: Vec<Log>,
    /// Dossiers that verdicts speak of.
    known: BTreeSet<PathBuf>,
}

impl Told<'_> {
    fn verdict(&mut self, variant: &str, version: &str, verdict: Verdict, runs: &[Run]) {
        for (at, result) in &verdict.results {
            if *at >= self.host.0 {
                let facts = verdict.host.iter();
                self.host = (*at, facts.map(|(n, v)| Fact::new(n, v)).collect());
            }
            self.count(result);
            let kept: Kept = (*at, result.clone());
            let cell = cell(version, &kept, runs);
            let case = &result.case;
            self.cells.push((case.tier, case.check.clone(), cell));
            let dossiers = result.dossier.iter();
            let earlier = result
                .earlier
                .iter()
                .filter_map(|try_| try_.dossier.as_ref());
            self.known.extend(dossiers.chain(earlier).cloned());
            if !result.outcome.is_ok() {
                let id = format!("failure-{}", self.failures.len() + 1);
                self.failures
                    .push(of_verdict(id, &kept, &self.from, self.checks));
            }
            self.logs_of(result);
            if case.check == boots::CHECK && result.outcome == Outcome::Pass {
                let host = fact(&verdict.host, "accelerator");
                let console = console(result).and_then(|file| std::fs::read(file).ok());
                let console = console.unwrap_or_default();
                let console = String::from_utf8_lossy(&console);
                self.boots
                    .extend(boots::of_console(variant, &host, &console));
            }
        }
    }

    fn count(&mut self, result: &CaseResult) {
        let tally = &mut self.tally;
        tally.checks += 1;
        tally.flaky += usize::from(result.is_flaky());
        *match result.outcome {
            Outcome::Pass => &mut tally.passed,
            Outcome::Fail { .. } => &mut tally.failed,
            Outcome::Skip { .. } => &mut tally.skipped,
            Outcome::Infrastructure { .. } => &mut tally.infrastructure,
        } += 1;
    }

    fn logs_of(&mut self, result: &CaseResult) {
        let case = result.case.to_string();
        let passed = result.outcome.is_ok();
        let known = levels(&result.kernel_log);
        self.logs
            .extend(Log::new(&case, "kernel log", passed, &result.kernel_log));
        if let Some(dir) = &result.dossier {
            let whole = [
                (files::CONSOLE, "console"),
                (files::OOPS, "kernel report"),
                (files::LAST_WORDS, "last words"),
            ];
            for (file, what) in whole {
                let about = (case.as_str(), what, passed);
                let log = Log::of_file(about, &dir.join(file), &self.from, &known);
                self.logs.extend(log);
            }
        } else {
            for (number, file) in (1..).zip(consoles(result)) {
                let what = match number {
                    1 => "console".to_owned(),
                    n => format!("console of machine {n}"),
                };
                let about = (case.as_str(), what.as_str(), passed);
                self.logs
                    .extend(Log::of_file(about, Path::new(file), &self.from, &known));
            }
        }
        self.logs
            .extend(Log::new(&case, "transcript", passed, &result.transcript));
    }

    /// Dossiers of runs that leave no verdict beside an image, such as those of nextest.
    fn dossiers(&mut self, layout: &Layout) {
        let Ok(entries) = std::fs::read_dir(layout.dossiers()) else {
            return;
        };
        let mut found = Vec::new();
        for dir in entries.flatten().map(|entry| entry.path()) {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || self.known.contains(&dir) {
                continue;
            }
            // One that another version wrote, or that is being removed, is none of ours.
            if let Ok(facts) = Facts::read(&dir) {
                found.push((facts.written, dir, facts));
            }
        }
        found.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        for (_, dir, facts) in found {
            let id = format!("failure-{}", self.failures.len() + 1);
            self.failures.push(of_dossier(id, &dir, &facts, &self.from));
            let passed = facts.outcome.kind == "pass";
            let kernel_log = std::fs::read(dir.join(files::KERNEL_LOG)).unwrap_or_default();
            let known = levels(&String::from_utf8_lossy(&kernel_log));
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            let case = format!("{} (dossier {name})", facts.case);
            let all = [
                (files::KERNEL_LOG, "kernel log"),
                (files::CONSOLE, "console"),
                (files::OOPS, "kernel report"),
                (files::LAST_WORDS, "last words"),
                (files::TRANSCRIPT, "transcript"),
            ];
            for (file, what) in all {
                let about = (case.as_str(), what, passed);
                let log = Log::of_file(about, &dir.join(file), &self.from, &known);
                self.logs.extend(log);
            }
        }
    }
}

fn consoles(result: &CaseResult) -> impl Iterator<Item = &str> {
    let properties = result.properties.iter();
    properties
        .filter(|(name, _)| name == "console")
        .map(|(_, value)| value.as_str())
}

fn console(result: &CaseResult) -> Option<&str> {
    consoles(result).next()
}

fn fact(facts: &[(String, String)], name: &str) -> String {
    let found = facts.iter().find(|(known, _)| known == name);
    found.map_or_else(String::new, |(_, value)| value.clone())
}
