//! The engine: lines in, findings out.
//!
//! A line that fits a rule's header opens a report; the report runs to the rule's last line, to its
//! longest length, or to another rule's header. The first finding is the root: after one from which
//! things go on to fall over (a rule with `cascade`), whatever is found is attached to it, as is anything that
//! is always a consequence (`consequence`), such as the panic after an oops. The same title again only counts up.

use std::collections::BTreeMap;
use std::time::Duration;

use super::expect::Expectations;
use super::finding::{Finding, Follower, Kind, Severity};
use super::record::{MachineEvent, Record};
use super::rule::{RULES, Rule};
use super::timeline::{Line, timeline};
use super::title::title;

/// Most findings of one judgement, and most followers of one finding: a flood of different titles must
/// not fill a report.
const FINDINGS_MAX: usize = 50;

/// Most lines of a report that are kept for its excerpt.
const EXCERPT_LINES: usize = 60;

/// Longest line of an excerpt, in bytes.
const EXCERPT_WIDTH: usize = 300;

/// What the records say. An allowed finding is among the findings, with its reason; a required one that is
/// absent is there as [`Kind::Missing`]. No findings means that the log is clean.
///
/// `records` may hold kmsg records, console lines and machine events in any mixture, each kind in its own
/// order. Best judged are the records of one boot; of several, kmsg can no longer vouch for the console.
pub fn judge(records: &[Record], expected: &Expectations) -> Vec<Finding> {
    let (lines, events) = timeline(records);
    let mut found = Found::default();
    let mut open: Option<Report<'_>> = None;
    for line in &lines {
        let header = RULES.header(line.speaker, line.level, line.text.as_bytes());
        let part = open.as_ref().is_some_and(|report| match &header {
            Some((rule, _)) => report.rule.absorbs(rule),
            None => report.speaker_is(line),
        });
        if part {
            if open.as_mut().is_some_and(|report| report.push(line)) {
                found.place(open.take());
            }
        } else if let Some((rule, captures)) = header {
            found.place(open.take());
            open = Some(Report::new(rule, captures, line));
            if rule.lines <= 1 {
                found.place(open.take());
            }
        }
    }
    found.place(open);
    for event in events {
        found.event(event);
    }
    expected.apply(&mut found.findings);
    found.findings
}

/// A report that is being read.
struct Report<'a> {
    rule: &'static Rule,
    captures: BTreeMap<String, String>,
    first: Line<'a>,
    lines: Vec<&'a str>,
}

impl<'a> Report<'a> {
    fn new(
        rule: &'static Rule,
        captures: BTreeMap<String, String>,
        first: &Line<'a>,
    ) -> Report<'a> {
        Report {
            rule,
            captures,
            first: *first,
            lines: vec![first.text],
        }
    }

    /// Other speakers' lines in between are not part of it.
    fn speaker_is(&self, line: &Line<'_>) -> bool {
        self.first.speaker == line.speaker
    }

    /// Adds a line; true when it was the last.
    fn push(&mut self, line: &Line<'a>) -> bool {
        self.lines.push(line.text);
        let last = self
            .rule
            .until
            .as_ref()
            .is_some_and(|until| until.is_match(line.text.as_bytes()));
        last || self.lines.len() >= self.rule.lines
    }
}

#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    /// The finding that later ones are consequences of.
    root: Option<usize>,
}

impl Found {
    fn place(&mut self, report: Option<Report<'_>>) {
        let Some(report) = report else { return };
        let data = &report.rule.data;
        let title = title(report.rule, report.captures, &report.lines);
        let finding = Finding {
            rule: &data.name,
            title,
            kind: data.kind,
            severity: data.severity,
            excerpt: report
                .lines
                .iter()
                .take(EXCERPT_LINES)
                .map(|line| excerpt(line))
                .collect(),
            source: report.first.source,
            at: report.first.at,
            times: 1,
            followed_by: Vec::new(),
            allowed: None,
            excused: None,
        };
        self.add(finding, data.cascade, data.consequence);
    }

    fn add(&mut self, finding: Finding, cascade: bool, consequence: bool) {
        if let Some(same) = self.findings.iter_mut().find(|f| f.title == finding.title) {
            same.times = same.times.saturating_add(1);
            return;
        }
        let last = self.findings.len().checked_sub(1);
        let cause = self.root.or(if consequence { last } else { None });
        if let Some(cause) = cause {
            self.findings[cause].follow(&finding);
        } else if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
            if cascade {
                self.root = last.map_or(Some(0), |last| Some(last + 1));
            }
        } else if let Some(last) = self.findings.last_mut() {
            last.follow(&finding);
        }
    }

    fn event(&mut self, event: MachineEvent) {
        let (title, kind, severity) = match event {
            MachineEvent::GuestPanicked => ("guest panicked".into(), Kind::Panic, Severity::Fatal),
            MachineEvent::GuestReset => {
                ("guest reset itself".into(), Kind::Machine, Severity::Fatal)
            }
            MachineEvent::WatchdogFired => {
                ("watchdog fired".into(), Kind::Machine, Severity::Fatal)
            }
        };
        // pvpanic fires on an oops that panics, and on the panic itself: the log's own words are better.
        let finding = Finding {
            rule: "machine",
            title,
            kind,
            severity,
            excerpt: Vec::new(),
            source: "machine",
            at: None::<Duration>,
            times: 1,
            followed_by: Vec::new(),
            allowed: None,
            excused: None,
        };
        self.add(finding, false, true);
    }
}

impl Finding {
    fn follow(&mut self, late: &Finding) {
        self.severity = self.severity.max(late.severity);
        if let Some(same) = self.followed_by.iter_mut().find(|f| f.title == late.title) {
            same.times = same.times.saturating_add(1);
        } else if self.followed_by.len() < FINDINGS_MAX {
            let (rule, title, kind) = (late.rule, late.title.clone(), late.kind);
            let severity = late.severity;
            self.followed_by.push(Follower {
                rule,
                title,
                kind,
                severity,
                times: 1,
            });
        }
    }
}

fn excerpt(line: &str) -> String {
    let mut end = line.len().min(EXCERPT_WIDTH);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}
