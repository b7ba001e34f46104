//! Adds what a run found to the history.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use results::figures::{Direction, HostKind};
use results::{BuildEvent, CaseResult, Event, Layout, Outcome, Reporter};

use super::model;
use crate::history::{Figure, History, ImageMark, Run};

/// Listens to a run, and adds it to the history when it ends. A run in which nothing ran adds nothing:
/// its results are those of an earlier one.
#[derive(Debug)]
pub struct Recorder {
    layout: Layout,
    host: HostKind,
    variants: Vec<String>,
    outcomes: Vec<(String, String)>,
    figures: Vec<Figure>,
}

impl Recorder {
    /// For a run on a host of this kind.
    pub fn new(layout: &Layout, host: HostKind) -> Recorder {
        Recorder {
            layout: layout.clone(),
            host,
            variants: Vec::new(),
            outcomes: Vec::new(),
            figures: Vec::new(),
        }
    }

    fn seconds(&mut self, series: String, seconds: f64) {
        self.figures.push(Figure {
            series,
            unit: "s".into(),
            better: Direction::Lower,
            value: seconds,
            of_host: true,
        });
    }

    fn finished(&mut self, result: &CaseResult) {
        let name = result.case.to_string();
        self.outcomes
            .push((name.clone(), model::word(&result.outcome).into()));
        // How long a check took says something only when it did what it does.
        if result.outcome == Outcome::Pass {
            self.seconds(name, result.took.as_secs_f64());
        }
    }

    fn run(&mut self) -> Run {
        let mut images = Vec::new();
        for manifest in model::manifests(&self.layout).into_iter().map(|(_, m)| m) {
            if !self.variants.contains(&manifest.variant) {
                continue;
            }
            for (what, bytes) in [
                ("disk", manifest.disk.bytes),
                ("download", manifest.compressed.bytes),
            ] {
                self.figures.push(Figure {
                    series: format!("{}: size of the {what}", manifest.variant),
                    unit: "MiB".into(),
                    better: Direction::Lower,
                    value: bytes as f64 / f64::from(1 << 20),
                    of_host: false,
                });
            }
            images.push(ImageMark {
                variant: manifest.variant,
                version: manifest.vexfs_version,
                sha256: manifest.disk.sha256,
                commit: manifest.source.commit,
            });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Run {
            at_ms: now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
            what: "checks".into(),
            host: self.host.clone(),
            images,
            outcomes: std::mem::take(&mut self.outcomes),
            figures: std::mem::take(&mut self.figures),
        }
    }
}

impl Reporter for Recorder {
    fn on(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Build {
                variant,
                step: BuildEvent::StageDone { stage, seconds },
            } => {
                self.variants.push(variant.clone());
                self.seconds(format!("{variant}: build stage {stage}"), *seconds);
            }
            Event::Validating { variant, .. } => self.variants.push(variant.clone()),
            Event::CaseFinished(result) => self.finished(result),
            Event::RunFinished { .. } => {
                let run = self.run();
                if run.outcomes.is_empty() && !run.figures.iter().any(|figure| figure.of_host) {
                    return Ok(());
                }
                return History::open(&self.layout.history())
                    .and_then(|history| history.add(&run))
                    .map_err(io::Error::other);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use results::{CaseId, Tier};

    use super::*;

    fn result(check: &str, outcome: Outcome) -> Event {
        Event::CaseFinished(Box::new(CaseResult {
            took: Duration::from_millis(1500),
            ..CaseResult::new(CaseId::new("minimal", Tier::Quick, check), outcome)
        }))
    }

    #[test]
    fn a_run_is_kept_and_one_that_did_nothing_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::at(dir.path(), None);
        let run = |events: &[Event]| {
            let mut recorder = Recorder::new(&layout, HostKind::default());
            for event in events {
                Reporter::on(&mut recorder, event).expect("listens");
            }
            let history = History::open(&layout.history()).expect("a history");
            history.runs().expect("its runs")
        };
        let end = || Event::RunFinished { seconds: 1.0 };
        let stored = Event::VerdictStored {
            variant: "minimal".into(),
            at: 1,
            results: Vec::new(),
        };
        assert_eq!(run(&[stored, end()]), []);
        let runs = run(&[
            Event::Build {
                variant: "minimal".into(),
                step: BuildEvent::StageDone {
                    stage: "module".into(),
                    seconds: 17.5,
                },
            },
            result("stress", Outcome::Pass),
            result("service", Outcome::fail("check", "no", "")),
            end(),
        ]);
        assert_eq!(runs.len(), 1);
        let outcomes: Vec<&str> = runs[0].outcomes.iter().map(|(_, o)| o.as_str()).collect();
        assert_eq!(outcomes, ["pass", "fail"]);
        // A check that failed half way was not quick.
        let figures: Vec<(&str, f64)> = runs[0]
            .figures
            .iter()
            .map(|figure| (figure.series.as_str(), figure.value))
            .collect();
        let expected = [
            ("minimal: build stage module", 17.5),
            ("minimal::quick::stress", 1.5),
        ];
        assert_eq!(figures, expected);
    }
}
