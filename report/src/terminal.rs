//! The run as a person follows it: bars that move on a terminal, plain lines anywhere else.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use results::clock::utc;
use results::{BuildEvent, CaseResult, Event, Outcome, Reporter};

/// How many lines of a failure's detail the terminal shows; the report has all.
const DETAIL: usize = 20;

/// Prints to standard error, so that standard output stays free for results.
#[derive(Debug)]
pub struct TerminalReporter {
    verbose: bool,
    explain: bool,
    bar: Option<ProgressBar>,
    /// What is under way; several things with builds or checks side by side.
    running: Vec<String>,
    plain: bool,
}

impl TerminalReporter {
    /// A reporter that also shows the output of programs when `verbose`, and why stages ran when
    /// `explain`.
    pub fn new(verbose: bool, explain: bool) -> TerminalReporter {
        TerminalReporter {
            verbose,
            explain,
            bar: None,
            running: Vec::new(),
            plain: !io::stderr().is_terminal(),
        }
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => {
                bar.suspend(|| eprintln!("{line}"));
                Ok(())
            }
            None => writeln!(io::stderr(), "{line}"),
        }
    }

    fn start(&mut self, what: String) -> io::Result<()> {
        if self.plain {
            return self.say(&format!("  …    {what}"));
        }
        self.running.push(what);
        self.show()
    }

    /// A bar with all that is under way.
    fn show(&mut self) -> io::Result<()> {
        self.hide();
        if self.plain || self.running.is_empty() {
            return Ok(());
        }
        let bar = ProgressBar::new_spinner().with_message(self.running.join(", "));
        let style = ProgressStyle::with_template("  {spinner} {msg} {elapsed}");
        bar.set_style(style.map_err(io::Error::other)?);
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bar = Some(bar);
        Ok(())
    }

    /// What begins with these words has ended.
    fn stop(&mut self, what: &str) -> io::Result<()> {
        let is_it = |running: &String| {
            let rest = running.strip_prefix(what);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        self.running.retain(|running| !is_it(running));
        self.show()
    }

    fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn case(&mut self, result: &CaseResult) -> io::Result<()> {
        self.stop(&result.case.to_string())?;
        let seconds = result.took.as_secs_f64();
        let word = match &result.outcome {
            Outcome::Pass if result.is_flaky() => "FLAKY",
            Outcome::Pass => "pass",
            Outcome::Skip { .. } => "skip",
            Outcome::Infrastructure { .. } => "INFRA",
            _ => "FAIL",
        };
        self.say(&format!("  {word:<5} {} ({seconds:.1} s)", result.case))?;
        for attempt in &result.earlier {
            let (_, title, _) = attempt.outcome.failure();
            self.say(&format!("        an earlier try: {title}"))?;
        }
        match &result.outcome {
            Outcome::Pass => Ok(()),
            Outcome::Skip { reason } => self.say(&format!("        {reason}")),
            failed => {
                let (_, title, detail) = failed.failure();
                self.say(&format!("        {title}"))?;
                let lines: Vec<&str> = detail.lines().collect();
                for line in &lines[lines.len().saturating_sub(DETAIL)..] {
                    self.say(&format!("        | {line}"))?;
                }
                if let Some(dossier) = &result.dossier {
                    self.say(&format!("        dossier: {}", dossier.display()))?;
                }
                for (name, value) in &result.properties {
                    if name == "console" || name == "dossier" {
                        self.say(&format!("        {name}: {value}"))?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl Reporter for TerminalReporter {
    fn on(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::RunStarted { facts } => {
                for (name, value) in facts {
                    self.say(&format!("{name}: {value}"))?;
                }
                Ok(())
            }
            Event::Build { variant, step } => match step {
                BuildEvent::StageStarted { stage, why } => {
                    let why = if self.verbose || self.explain {
                        format!(" ({why})")
                    } else {
                        String::new()
                    };
                    self.start(format!("{variant}: {stage}{why}"))
                }
                BuildEvent::StageDone { stage, seconds } => {
                    self.stop(&format!("{variant}: {stage}"))?;
                    self.say(&format!("  done  {variant}: {stage} ({seconds:.1} s)"))
                }
                BuildEvent::StageCached { stage } if self.verbose || self.explain => {
                    self.say(&format!("  same  {variant}: {stage}"))
                }
                BuildEvent::StageDetail { stage, text } if self.verbose || self.explain => {
                    self.say(&format!("        {variant}: {stage}: {text}"))
                }
                BuildEvent::Note { text } => self.say(&format!("  note  {variant}: {text}")),
                BuildEvent::Line { stage, line } if self.verbose => {
                    self.say(&format!("        {variant}: {stage}: {line}"))
                }
                _ => Ok(()),
            },
            Event::Validating { variant, why } if self.verbose || self.explain => {
                self.say(&format!("  check {variant}: {why}"))
            }
            Event::Validating { .. } => Ok(()),
            Event::VerdictStored {
                variant,
                at,
                results,
            } => self.say(&format!(
                "  same  {variant}: {} checks, verdict of {}",
                results.len(),
                utc(*at)
            )),
            Event::CaseStarted { case } => self.start(case.to_string()),
            Event::CaseFinished(result) => self.case(result),
            Event::RunFinished { .. } => {
                self.running.clear();
                self.hide();
                Ok(())
            }
        }
    }
}

impl Drop for TerminalReporter {
    fn drop(&mut self) {
        self.hide();
    }
}
