//! Ten lines that say what was built, on what, what was checked, how long it took, and where it is.

use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use image::Image;
use machine::Host;
use results::clock::utc;
use results::{BuildEvent, CaseResult, Event, Layout, Outcome, Reporter};

use crate::validate::Which;

/// Collects what the summary needs from the run's events.
#[derive(Debug, Clone, Default)]
pub struct Summary(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    stages: Vec<(String, f64)>,
    same: usize,
    /// What ran now.
    cases: Vec<CaseResult>,
    /// What ran before and holds still, and when.
    stored: Vec<CaseResult>,
    stored_at: u64,
}

impl Summary {
    /// The reporter that feeds it.
    pub fn listener(&self) -> impl Reporter + 'static {
        self.clone()
    }

    /// The lines.
    pub fn text(
        &self,
        layout: &Layout,
        host: &Host,
        images: &[Image],
        which: &Which,
        built: Duration,
        all: Duration,
    ) -> String {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |pick: fn(&Outcome) -> bool| {
            let all = seen.cases.iter().chain(&seen.stored);
            all.filter(|case| pick(&case.outcome)).count()
        };
        let passed = count(|o| matches!(o, Outcome::Pass));
        let skipped = count(|o| matches!(o, Outcome::Skip { .. }));
        let failed: Vec<String> = seen
            .cases
            .iter()
            .filter(|case| !matches!(case.outcome, Outcome::Pass | Outcome::Skip { .. }))
            .map(|case| case.case.to_string())
            .collect();
        let slowest = seen.cases.iter().max_by_key(|case| case.took);
        let stages: Vec<String> = seen
            .stages
            .iter()
            .map(|(name, seconds)| format!("{name} {seconds:.0} s"))
            .collect();
        let junit = which.junit_file(layout);
        let mut lines = Vec::new();
        let mut line = |name: &str, text: String| lines.push(format!("{name:<12} {text}"));
        for image in images {
            let m = &image.manifest;
            line(
                "built",
                format!(
                    "vexfs-{} {} with kernel {}",
                    m.variant, m.vexfs_version, m.kernel.release
                ),
            );
            if let Some(second) = &m.second_kernel {
                line("", format!("and beside it kernel {}", second.release));
            }
            line(
                "signing",
                format!("of modules {}: {}", m.signing.state, m.signing.reason),
            );
            line(
                "size",
                format!(
                    "{} MiB, compressed {} MiB",
                    mib(m.disk.bytes),
                    mib(m.compressed.bytes)
                ),
            );
            line("image", image.disk.display().to_string());
        }
        line(
            "accelerator",
            format!("{} ({})", host.accel.chosen, host.accel.why),
        );
        line(
            "vsock",
            format!("{} ({})", host.vsock.chosen, host.vsock.why),
        );
        line(
            "stages",
            if stages.is_empty() {
                format!("all {} unchanged", seen.same)
            } else {
                format!("{}; {} unchanged", stages.join(", "), seen.same)
            },
        );
        line(
            "checked",
            format!(
                "{passed} of {} checks passed{}{}{}",
                seen.cases.len() + seen.stored.len(),
                match skipped {
                    0 => String::new(),
                    n => format!(", {n} skipped"),
                },
                match failed.len() {
                    0 => String::new(),
                    _ => format!("; not: {}", failed.join(", ")),
                },
                match seen.stored.len() {
                    0 => String::new(),
                    n => format!(
                        "; {n} of them on {}, and nothing has changed since",
                        utc(seen.stored_at)
                    ),
                },
            ),
        );
        line(
            "took",
            format!(
                "build {:.0} s, checks {:.0} s{}",
                built.as_secs_f64(),
                (all - built).as_secs_f64(),
                slowest.map_or(String::new(), |s| format!(
                    " (slowest {}: {:.0} s)",
                    s.case.check,
                    s.took.as_secs_f64()
                )),
            ),
        );
        line(
            "report",
            layout.reports().join("index.html").display().to_string(),
        );
        line("junit", junit.display().to_string());
        line("logs", layout.logs().display().to_string());
        let mut text = String::new();
        for line in lines {
            // Writing to a String cannot fail.
            writeln!(text, "{line}").unwrap_or_default();
        }
        text
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl Reporter for Summary {
    fn on(&mut self, event: &Event) -> io::Result<()> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Build {
                step: BuildEvent::StageDone { stage, seconds },
                ..
            } => {
                seen.stages.push((stage.clone(), *seconds));
            }
            Event::Build {
                step: BuildEvent::StageCached { .. },
                ..
            } => seen.same += 1,
            Event::CaseFinished(result) => seen.cases.push((**result).clone()),
            Event::VerdictStored { results, at, .. } => {
                seen.stored.extend_from_slice(results);
                seen.stored_at = seen.stored_at.max(*at);
            }
            _ => {}
        }
        Ok(())
    }
}
