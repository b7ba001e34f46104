//! What a check declares about the log: findings it knows of, and findings that must appear.

use std::borrow::Cow;

use super::finding::{Finding, Kind, Severity};
use super::rule::RULES;

/// Which findings are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    /// The one with exactly this title.
    Title(Cow<'static, str>),
    /// Those whose title begins like this.
    TitleStart(Cow<'static, str>),
    /// Those of this kind.
    Kind(Kind),
    /// Those found by this rule.
    Rule(Cow<'static, str>),
}

/// One line of what a check declares, as it stands in the check's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Which findings.
    pub what: Matcher,
    /// Whether the check has failed without them; otherwise they are only allowed.
    pub must: bool,
    /// Why that is all right, for the report.
    pub why: &'static str,
}

/// A declaration that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undeclared {
    /// No reason was given.
    #[error("an expected finding ({0}) has no reason: say why it is all right")]
    NoReason(String),
    /// There is no such rule.
    #[error("an expected finding names the rule `{0}`, which is not in kernel-log/rules")]
    UnknownRule(Cow<'static, str>),
}

/// What a check declared. Nothing, by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectations {
    allowed: Vec<(Matcher, String)>,
    required: Vec<(Matcher, String)>,
}

impl Expectations {
    /// Nothing is expected; every finding counts.
    pub fn none() -> Expectations {
        Expectations::default()
    }

    /// Such a finding may appear, for this reason.
    #[must_use]
    pub fn allow(mut self, what: Matcher, reason: &str) -> Expectations {
        self.allowed.push((what, reason.into()));
        self
    }

    /// Such a finding must appear, for this reason: its absence is a finding.
    #[must_use]
    pub fn require(mut self, what: Matcher, reason: &str) -> Expectations {
        self.required.push((what, reason.into()));
        self
    }

    /// What a row declares.
    pub fn declared(rows: &[Expected]) -> Expectations {
        rows.iter().fold(Expectations::none(), |all, row| {
            let what = row.what.clone();
            if row.must {
                all.require(what, row.why)
            } else {
                all.allow(what, row.why)
            }
        })
    }

    /// Whether the declarations make sense; for a registry of checks to ask at start.
    ///
    /// # Errors
    /// On a blank reason or a rule that does not exist.
    pub fn verify(&self) -> Result<(), Undeclared> {
        for (what, reason) in self.allowed.iter().chain(&self.required) {
            if reason.trim().is_empty() {
                return Err(Undeclared::NoReason(what.to_string()));
            }
            match what {
                Matcher::Rule(name) if RULES.find(name).is_none() && name != "machine" => {
                    return Err(Undeclared::UnknownRule(name.clone()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Marks what is allowed and adds what is missing.
    pub(super) fn apply(&self, findings: &mut Vec<Finding>) {
        for finding in findings.iter_mut() {
            finding.allowed = self.reason(finding);
        }
        for (what, reason) in &self.required {
            let seen = |f: &Finding| {
                what.fits(f.rule, &f.title, f.kind)
                    || f.followed_by
                        .iter()
                        .any(|late| what.fits(late.rule, &late.title, late.kind))
            };
            if !findings.iter().any(seen) {
                findings.push(Finding {
                    rule: "missing",
                    title: format!("expected in the log, but absent: {what}"),
                    kind: Kind::Missing,
                    severity: Severity::Bug,
                    excerpt: vec![reason.clone()],
                    source: "expected",
                    at: None,
                    times: 1,
                    followed_by: Vec::new(),
                    allowed: None,
                    excused: None,
                });
            }
        }
    }

    /// Why a finding is all right. An allowed complaint that grew into something worse than itself is not,
    /// unless that was declared too: a WARN that is known does not excuse the panic it led to.
    fn reason(&self, finding: &Finding) -> Option<String> {
        let declared = |rule: &str, title: &str, kind| {
            let all = self.allowed.iter().chain(&self.required);
            all.filter(|(what, _)| what.fits(rule, title, kind))
                .map(|(_, why)| why)
                .next()
        };
        let reason = declared(finding.rule, &finding.title, finding.kind)?;
        let own = RULES
            .find(finding.rule)
            .map_or(finding.severity, |rule| rule.data.severity);
        let grew = finding.followed_by.iter().any(|late| {
            late.severity > own && declared(late.rule, &late.title, late.kind).is_none()
        });
        (!grew).then(|| reason.clone())
    }
}

impl Matcher {
    /// Those found by this rule of `kernel-log/rules`.
    pub const fn rule(name: &'static str) -> Matcher {
        Matcher::Rule(Cow::Borrowed(name))
    }

    /// Those whose title begins like this.
    pub const fn title_start(start: &'static str) -> Matcher {
        Matcher::TitleStart(Cow::Borrowed(start))
    }

    fn fits(&self, rule: &str, title: &str, kind: Kind) -> bool {
        match self {
            Matcher::Title(exact) => title == exact,
            Matcher::TitleStart(start) => title.starts_with(start.as_ref()),
            Matcher::Kind(wanted) => kind == *wanted,
            Matcher::Rule(name) => rule == name,
        }
    }
}

impl std::fmt::Display for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Matcher::Title(title) => write!(f, "`{title}`"),
            Matcher::TitleStart(start) => write!(f, "`{start}…`"),
            Matcher::Kind(kind) => write!(f, "any {}", kind.name()),
            Matcher::Rule(name) => write!(f, "rule `{name}`"),
        }
    }
}
