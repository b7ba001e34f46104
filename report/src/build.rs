//! The build report: what was built from what, how large it is, what its checks said and where it went.
//! Short, for a job's summary and a message; the whole story is told elsewhere.
//!
//! It collects from the run's events ([`BuildLog`] is a reporter), is plain data, and is told twice from
//! the same tables: as Markdown and as a page.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use image::Image;
use results::{BuildEvent, CaseResult, Event, Outcome, Reporter, Tally};
use serde::Serialize;

/// The most a variant's download should weigh, in megabytes.
pub const DOWNLOAD_MB: &[(&str, u64)] = &[
    ("minimal", 64),
    ("production", 90),
    ("testing", 120),
    ("development", 300),
];

/// Version of `build.json`.
pub const SCHEMA: u32 = 1;

/// Everything it tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BuildReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name and value of what the host is like.
    pub host: Vec<(String, String)>,
    /// The images.
    pub images: Vec<ImageRow>,
    /// Variants that were asked for and not built, and why.
    pub not_built: BTreeMap<String, String>,
    /// What was published, a line for each image and place.
    pub published: Vec<String>,
    /// What did not work of bundling, publishing and telling.
    pub problems: Vec<String>,
    /// Seconds of the whole run.
    pub seconds: f64,
}

impl Default for BuildReport {
    fn default() -> BuildReport {
        BuildReport {
            schema: SCHEMA,
            host: Vec::new(),
            images: Vec::new(),
            not_built: BTreeMap::new(),
            published: Vec::new(),
            problems: Vec::new(),
            seconds: 0.0,
        }
    }
}

/// One image.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ImageRow {
    /// Its variant.
    pub variant: String,
    /// The version it is labelled with.
    pub version: String,
    /// What `uname -r` says in it.
    pub kernel: String,
    /// The tree its module is of: the commit, else the digest.
    pub source: String,
    /// SHA-256 of the disk.
    pub sha256: String,
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
    /// Size of the download in bytes.
    pub download_bytes: u64,
    /// Stages that ran, and their seconds.
    pub stages: Vec<(String, f64)>,
    /// Stages that did not have to.
    pub unchanged: usize,
    /// Checks that passed.
    pub passed: usize,
    /// Checks that were skipped, with a reason.
    pub skipped: usize,
    /// Checks that passed only when tried again.
    pub flaky: usize,
    /// Names of the checks that failed or could not be judged, and what they said.
    pub not_passed: Vec<(String, String)>,
    /// Whether every check that is required has passed.
    pub good: bool,
}

/// What happened, by variant.
#[derive(Debug, Clone, Default)]
pub struct BuildLog(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    stages: BTreeMap<String, Vec<(String, f64)>>,
    unchanged: BTreeMap<String, usize>,
    results: BTreeMap<String, Vec<CaseResult>>,
}

impl BuildLog {
    /// What came of the checks of a variant.
    pub fn results(&self, variant: &str) -> Vec<CaseResult> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.results.get(variant).cloned().unwrap_or_default()
    }

    /// The row of an image; `required` are the checks without which it is not good.
    pub fn row(&self, image: &Image, required: &[&str]) -> ImageRow {
        let results = self.results(&image.manifest.variant);
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let m = &image.manifest;
        let tally: Tally = results.iter().collect();
        let bad = results.iter().filter(|result| !result.outcome.is_ok());
        ImageRow {
            variant: m.variant.clone(),
            version: m.vexfs_version.clone(),
            kernel: m.kernel.release.clone(),
            source: match &m.source.commit {
                Some(commit) => format!("commit {commit}"),
                None => format!("tree sha256:{}", m.source.sha256),
            },
            sha256: m.disk.sha256.clone(),
            disk_bytes: m.disk.bytes,
            download_bytes: m.compressed.bytes,
            stages: seen.stages.get(&m.variant).cloned().unwrap_or_default(),
            unchanged: seen.unchanged.get(&m.variant).copied().unwrap_or(0),
            passed: tally.passed,
            skipped: tally.skipped,
            flaky: tally.flaky,
            not_passed: bad
                .map(|result| (result.case.check.clone(), said(&result.outcome)))
                .collect(),
            good: good(required, &results),
        }
    }
}

/// What a failure says in a line.
fn said(outcome: &Outcome) -> String {
    let (kind, title, _) = outcome.failure();
    format!("{kind}: {title}")
}

/// Whether every required check has passed at once, or was skipped for a reason known beforehand. A run of
/// some checks alone makes nothing good.
pub fn good(required: &[&str], results: &[CaseResult]) -> bool {
    let passed = |name: &str| {
        let of_check = |result: &&CaseResult| result.case.check == name;
        let result = results.iter().find(of_check);
        result.is_some_and(|result| result.outcome.is_ok() && !result.is_flaky())
    };
    let none_failed = results.iter().all(|result| result.outcome.is_ok());
    none_failed && required.iter().all(|check| passed(check))
}

impl Reporter for BuildLog {
    fn on(&mut self, event: &Event) -> io::Result<()> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Build { variant, step } => match step {
                BuildEvent::StageDone { stage, seconds } => {
                    let stages = seen.stages.entry(variant.clone()).or_default();
                    stages.push((stage.clone(), *seconds));
                }
                BuildEvent::StageCached { .. } => {
                    *seen.unchanged.entry(variant.clone()).or_default() += 1;
                }
                _ => {}
            },
            Event::CaseFinished(result) => {
                let results = seen.results.entry(result.case.variant.clone()).or_default();
                results.push((**result).clone());
            }
            Event::VerdictStored {
                variant, results, ..
            } => {
                let all = seen.results.entry(variant.clone()).or_default();
                all.extend_from_slice(results);
            }
            _ => {}
        }
        Ok(())
    }
}

/// A heading and a table below it.
struct Table {
    title: &'static str,
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl BuildReport {
    /// In a word: whether all is well.
    pub fn is_good(&self) -> bool {
        self.not_built.is_empty()
            && self.problems.is_empty()
            && !self.images.is_empty()
            && self.images.iter().all(|image| image.good)
    }

    /// One line, for the head of a message.
    pub fn headline(&self) -> String {
        let names = |pick: &dyn Fn(&ImageRow) -> bool| {
            let names = self.images.iter().filter(|image| pick(image));
            let names = names.map(|image| format!("{} {}", image.variant, image.version));
            names.collect::<Vec<_>>().join(", ")
        };
        let mut parts = Vec::new();
        for (what, names) in [
            ("good", names(&|image| image.good)),
            ("not good", names(&|image| !image.good)),
            (
                "not built",
                self.not_built
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
        ] {
            if !names.is_empty() {
                parts.push(format!("{what}: {names}"));
            }
        }
        if !self.problems.is_empty() {
            parts.push(format!("{} problems", self.problems.len()));
        }
        format!("VexFS images {}", parts.join("; "))
    }

    fn tables(&self) -> Vec<Table> {
        let images = self.images.iter();
        let limit = |variant: &str| {
            let row = DOWNLOAD_MB.iter().find(|(name, _)| *name == variant);
            row.map_or("none".into(), |(_, mb)| format!("{mb} MB"))
        };
        let mut tables = vec![Table {
            title: "Images",
            head: &[
                "image", "kernel", "source", "disk", "download", "limit", "checks", "took",
            ],
            rows: images
                .clone()
                .map(|image| {
                    vec![
                        format!("{} {}", image.variant, image.version),
                        image.kernel.clone(),
                        image.source.chars().take(24).collect(),
                        megabytes(image.disk_bytes),
                        megabytes(image.download_bytes),
                        limit(&image.variant),
                        checks_text(image),
                        stages_text(image),
                    ]
                })
                .collect(),
        }];
        let failures = images.flat_map(|image| {
            let row = |(check, said): &(String, String)| {
                vec![image.variant.clone(), check.clone(), said.clone()]
            };
            image.not_passed.iter().map(row).collect::<Vec<_>>()
        });
        let missing = self.not_built.iter();
        let missing = missing.map(|(variant, why)| vec![variant.clone(), why.clone()]);
        let lines = |lines: &[String]| lines.iter().map(|line| vec![line.clone()]).collect();
        let host = self.host.iter().map(|(a, b)| vec![a.clone(), b.clone()]);
        tables.push(Table {
            title: "Not passed",
            head: &["image", "check", "what it said"],
            rows: failures.collect(),
        });
        tables.push(Table {
            title: "Not built",
            head: &["variant", "why"],
            rows: missing.collect(),
        });
        tables.push(Table {
            title: "Published",
            head: &["what came of it"],
            rows: lines(&self.published),
        });
        tables.push(Table {
            title: "Problems",
            head: &["what did not work"],
            rows: lines(&self.problems),
        });
        tables.push(Table {
            title: "Host",
            head: &["", ""],
            rows: host.collect(),
        });
        tables.retain(|table| !table.rows.is_empty());
        tables
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", markdown_cell(&self.headline()));
        for table in self.tables() {
            let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
            text += &format!("\n## {}\n\n", table.title);
            text += &row(table.head.iter().map(|cell| (*cell).to_owned()).collect());
            text += &row(vec!["---".to_owned(); table.head.len()]);
            for cells in table.rows {
                text += &row(cells.iter().map(|cell| markdown_cell(cell)).collect());
            }
        }
        text + &format!("\n{:.0} s in all.\n", self.seconds)
    }

    /// As a page.
    pub fn html(&self) -> String {
        let head = html_text(&self.headline());
        let mut text = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{head}</title>\n\
             <style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:80rem}}\
             table{{border-collapse:collapse}}td,th{{padding:.2rem .8rem .2rem 0;text-align:left;\
             vertical-align:top;border-bottom:1px solid #8884}}</style></head><body>\n<h1>{head}</h1>\n"
        );
        for table in self.tables() {
            let row = |tag: &str, cells: Vec<String>| {
                let cells = cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>"));
                format!("<tr>{}</tr>\n", cells.collect::<String>())
            };
            text += &format!("<h2>{}</h2>\n<table>\n", table.title);
            text += &row(
                "th",
                table.head.iter().map(|cell| (*cell).to_owned()).collect(),
            );
            for cells in table.rows {
                text += &row("td", cells.iter().map(|cell| html_text(cell)).collect());
            }
            text += "</table>\n";
        }
        text + &format!("<p>{:.0} s in all.</p>\n</body></html>\n", self.seconds)
    }
}

fn checks_text(image: &ImageRow) -> String {
    let mut parts = vec![format!("{} passed", image.passed)];
    for (n, word) in [
        (image.not_passed.len(), "NOT PASSED"),
        (image.skipped, "skipped"),
        (image.flaky, "FLAKY"),
    ] {
        if n > 0 {
            parts.push(format!("{n} {word}"));
        }
    }
    if !image.good && image.not_passed.is_empty() && image.flaky == 0 {
        parts.push("not all that are required ran".into());
    }
    parts.join(", ")
}

fn stages_text(image: &ImageRow) -> String {
    let ran = image.stages.iter();
    let mut parts: Vec<String> = ran.map(|(name, s)| format!("{name} {s:.0} s")).collect();
    if image.unchanged > 0 {
        parts.push(format!("{} unchanged", image.unchanged));
    }
    parts.join(", ")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Text that stays in its cell and is nothing but text, whatever a machine said.
fn markdown_cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => out.push(' '),
            c if c.is_control() => out.push('\u{FFFD}'),
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '!' => {
                out.extend(['\\', letter])
            }
            c => out.push(c),
        }
    }
    out
}

fn html_text(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use results::{CaseId, Tier};

    use super::*;

    fn result(name: &str, outcome: Outcome) -> CaseResult {
        CaseResult::new(CaseId::new("minimal", Tier::Quick, name), outcome)
    }

    const REQUIRED: [&str; 3] = ["boots", "mkfs_mount", "stress"];

    #[test]
    fn its_data_say_in_which_form_they_are() {
        let value = serde_json::to_value(BuildReport::default()).expect("JSON");
        assert_eq!(value["schema"], SCHEMA);
    }

    #[test]
    fn good_is_what_passed_all_that_is_required() {
        let results = REQUIRED.map(|name| result(name, Outcome::Pass)).to_vec();
        assert!(good(&REQUIRED, &results));
        assert!(!good(&["boots", "soak"], &results), "one has not run");
        assert!(!good(&REQUIRED, &results[1..]), "one has not run");
        assert!(!good(&REQUIRED, &[]));
        let mut skipped = results.clone();
        skipped[2].outcome = Outcome::Skip {
            reason: "it says it lacks it".into(),
        };
        assert!(good(&REQUIRED, &skipped));
        let mut failed = results.clone();
        failed[2].outcome = Outcome::fail("check", "no", "");
        assert!(!good(&REQUIRED, &failed));
        let mut flaky = results.clone();
        flaky[2].earlier.push(results::Attempt {
            outcome: Outcome::fail("check", "no", ""),
            transcript: String::new(),
            kernel_log: String::new(),
            dossier: None,
        });
        assert!(!good(&REQUIRED, &flaky));
    }

    fn report() -> BuildReport {
        BuildReport {
            schema: SCHEMA,
            host: vec![("accelerator".into(), "tcg".into())],
            images: vec![ImageRow {
                variant: "minimal".into(),
                version: "1.0.0".into(),
                kernel: "6.1.0".into(),
                source: "commit 0123456789abcdef0123456789".into(),
                disk_bytes: 228_589_568,
                download_bytes: 63_246_439,
                stages: vec![("image".into(), 40.2)],
                unchanged: 5,
                passed: 13,
                not_passed: vec![("stress".into(), "check: <b>it | said</b>\nno".into())],
                ..ImageRow::default()
            }],
            not_built: [("testing".to_owned(), "no room".to_owned())].into(),
            published: vec!["minimal to /srv: sent".into()],
            problems: Vec::new(),
            seconds: 61.4,
        }
    }

    #[test]
    fn both_tellings_say_the_same() {
        let report = report();
        let (text, page) = (report.markdown(), report.html());
        for word in [
            "63.2 MB",
            "64 MB",
            "13 passed, 1 NOT PASSED",
            "image 40 s, 5 unchanged",
            "no room",
            "tcg",
        ] {
            assert!(text.contains(word), "{word}: {text}");
            assert!(page.contains(word), "{word}: {page}");
        }
        assert!(!report.is_good());
        assert_eq!(
            report.headline(),
            "VexFS images not good: minimal 1.0.0; not built: testing"
        );
        // What a check said is no markup, and stays in its cell.
        assert!(
            text.contains("| minimal | stress | check: \\<b\\>it \\| said\\</b\\> no |"),
            "{text}"
        );
        assert!(
            page.contains("check: &lt;b&gt;it | said&lt;/b&gt;"),
            "{page}"
        );
    }
}
