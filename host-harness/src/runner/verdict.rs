//! One outcome from two judges: what the check says of itself, and what log, machine and ledger say.

use kernel_log::taint::Taint;
use kernel_log::{Finding, Severity};
use results::Outcome;

use crate::lab::{End, Evidence, Failure, Leak};
use clock::Whose;

/// What a check says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// It did all it wanted and was content.
    Passed,
    /// It was not content: title, then detail.
    Failed(String, String),
    /// The guest ended under it: how it met that, in words.
    CutOff(String),
    /// Its deadline, or that of one of its requests, passed: title, then detail.
    Overran(String, String),
    /// It could not be asked here, and said why.
    Skipped(String),
    /// The harness could not ask.
    Infrastructure(String),
}

/// One outcome of the check's own word and everything that is known besides.
pub fn of(evidence: &Evidence, story: &Result<(), Failure>) -> Outcome {
    let own = match story {
        Ok(()) => Own::Passed,
        Err(Failure::Check { title, detail, .. }) => Own::Failed(title.clone(), detail.clone()),
        Err(Failure::Deadline { title, detail }) => Own::Overran(title.clone(), detail.clone()),
        Err(Failure::Died(death)) if death.whose() == Whose::Guest => {
            Own::CutOff(death.to_string())
        }
        Err(failure @ (Failure::Agent { .. } | Failure::UndeclaredSkip(_)))
            if failure.whose() == Whose::Guest =>
        {
            Own::Failed(failure.to_string(), String::new())
        }
        Err(failure) => Own::Infrastructure(failure.to_string()),
    };
    combine(own, &evidence.end, &evidence.findings, &evidence.leaks)
}

/// Makes one outcome of everything, in this order:
///
/// 1. a finding that the check did not declare and that is at least a [`Severity::Bug`]: the guest's kernel
///    explains a lost connection better than the check can;
/// 2. that the host took a machine away: what else went wrong, the check's own failure among it, may be no
///    more than what followed from that, and is asked again;
/// 3. the check's own failure, or that it overran its deadline;
/// 4. a finding that is the host's doing: what its kernel and the guest's end make of that says nothing;
/// 5. that the guest ended under it;
/// 6. a lesser finding;
/// 7. a guest that ended before the check's end mark, or was never reached though the check passed;
/// 8. trouble of the host with the check itself;
/// 9. something not given back;
/// 10. the check's own skip or pass.
pub fn combine(own: Own, end: &End, findings: &[Finding], leaks: &[Leak]) -> Outcome {
    let detail = |first: &str| detail(first, &own, end, findings, leaks);
    let undeclared = || findings.iter().filter(|finding| finding.counts());
    if let Some(root) = undeclared().find(|finding| finding.severity >= Severity::Bug) {
        return Outcome::fail(root.kind.name(), root.title.clone(), detail(""));
    }
    if let End::HostFailed(what) = end {
        return Outcome::Infrastructure { what: what.clone() };
    }
    match &own {
        Own::Failed(title, text) => {
            return Outcome::fail("check", title.clone(), detail(text));
        }
        Own::Overran(title, text) => {
            return Outcome::fail("deadline", title.clone(), detail(text));
        }
        _ => {}
    }
    let explained = |finding: &Finding| {
        let why = finding
            .excused
            .as_ref()
            .filter(|_| finding.allowed.is_none());
        why.map(|why| format!("{}: {why}", finding.title))
    };
    if let Some(what) = findings.iter().find_map(explained) {
        return Outcome::Infrastructure { what };
    }
    // A device that goes away under the kernel is a consequence.
    if let Own::CutOff(how) = &own {
        let title = format!("the guest ended without the check's end mark: {how}");
        return Outcome::fail("ended", title, detail(""));
    }
    if let Some(root) = undeclared().next() {
        return Outcome::fail(root.kind.name(), root.title.clone(), detail(""));
    }
    match (end, &own) {
        (End::Undeclared(how), _) => {
            let title = format!("the guest ended without the check's end mark: {how}");
            return Outcome::fail("ended", title, detail(""));
        }
        (End::NeverStarted, Own::Passed) => {
            let what = "the check passed without ever reaching a guest";
            return Outcome::Infrastructure { what: what.into() };
        }
        (_, Own::Infrastructure(what)) => return Outcome::Infrastructure { what: what.clone() },
        _ => {}
    }
    // A taint is only the memory of a finding that the check has declared.
    let excused = |leak: &Leak| {
        let mut declared = findings.iter().filter(|finding| finding.allowed.is_some());
        leak.taint != Taint::default()
            && declared.any(|finding| Taint::left_by(finding.kind).0 & leak.taint.0 != 0)
    };
    if let Some(leak) = leaks.iter().find(|leak| !excused(leak)) {
        return Outcome::fail("leak", leak.sentence.clone(), detail(""));
    }
    match own {
        Own::Skipped(reason) if reason.trim().is_empty() => {
            Outcome::fail("check", "skipped without a reason", "")
        }
        Own::Skipped(reason) => Outcome::Skip { reason },
        _ => Outcome::Pass,
    }
}

/// Everything that is known, in paragraphs.
fn detail(first: &str, own: &Own, end: &End, findings: &[Finding], leaks: &[Leak]) -> String {
    let mut out = Vec::new();
    match own {
        Own::Passed => out.push("The check itself was content.".to_owned()),
        Own::Failed(title, text) | Own::Overran(title, text) => {
            out.push(format!("The check itself says: {title}"));
            out.extend((!text.is_empty() && text != first).then(|| text.clone()));
        }
        Own::CutOff(how) => out.push(format!("The check itself was cut off: {how}")),
        Own::Skipped(reason) => out.push(format!("The check itself was skipped: {reason}")),
        Own::Infrastructure(what) => out.push(format!("The check itself could not go on: {what}")),
    }
    out.extend((!first.is_empty()).then(|| first.to_owned()));
    match end {
        End::Undeclared(how) => out.push(format!(
            "The guest ended without the check's end mark: {how}"
        )),
        End::HostFailed(what) => out.push(format!("The host took a machine away: {what}")),
        End::Marked | End::NeverStarted => {}
    }
    for finding in findings {
        out.push(finding.paragraph());
    }
    out.extend(
        leaks
            .iter()
            .map(|leak| format!("Not given back: {}", leak.sentence)),
    );
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use kernel_log::Kind;

    use super::*;

    fn finding(severity: Severity, allowed: bool) -> Finding {
        Finding {
            rule: "x",
            title: format!("a {severity:?} finding"),
            kind: Kind::Oops,
            severity,
            excerpt: vec!["line".into()],
            source: "kmsg",
            at: None,
            times: 1,
            followed_by: Vec::new(),
            allowed: allowed.then(|| "known".into()),
            excused: None,
        }
    }

    fn said(outcome: &Outcome) -> (&str, &str) {
        let (kind, title, _) = outcome.failure();
        (kind, title)
    }

    #[test]
    fn a_clean_pass_passes() {
        assert_eq!(combine(Own::Passed, &End::Marked, &[], &[]), Outcome::Pass);
        let known = [finding(Severity::Fatal, true)];
        assert_eq!(
            combine(Own::Passed, &End::Marked, &known, &[]),
            Outcome::Pass
        );
        let skip = combine(Own::Skipped("no fio".into()), &End::NeverStarted, &[], &[]);
        assert_eq!(
            skip,
            Outcome::Skip {
                reason: "no fio".into()
            }
        );
    }

    #[test]
    fn the_kernel_log_turns_a_pass_into_a_fail() {
        for severity in [Severity::Trouble, Severity::Bug, Severity::Fatal] {
            let outcome = combine(Own::Passed, &End::Marked, &[finding(severity, false)], &[]);
            assert_eq!(
                said(&outcome),
                ("oops", &*format!("a {severity:?} finding"))
            );
        }
    }

    #[test]
    fn the_kernel_explains_what_the_check_could_not() {
        let oops = [finding(Severity::Fatal, false)];
        for own in [
            Own::Failed("connection lost".into(), "read: EOF".into()),
            Own::Infrastructure("connection lost".into()),
            Own::Skipped("connection lost".into()),
        ] {
            let outcome = combine(
                own,
                &End::Undeclared("QEMU exited with 0".into()),
                &oops,
                &[],
            );
            assert_eq!(said(&outcome), ("oops", "a Fatal finding"));
            assert!(outcome.failure().2.contains("connection lost"));
        }
        let trouble = [finding(Severity::Trouble, false)];
        let cut = Own::CutOff("power-off".into());
        let outcome = combine(cut, &End::Marked, &trouble, &[]);
        assert_eq!(said(&outcome).0, "ended");
        let own = Own::Failed("content differs".into(), String::new());
        assert_eq!(
            said(&combine(own, &End::Marked, &trouble, &[])),
            ("check", "content differs")
        );
    }

    #[test]
    fn what_the_host_did_is_no_failure_of_the_guest() {
        let end = End::HostFailed("QEMU was killed".into());
        let infrastructure = Outcome::Infrastructure {
            what: "QEMU was killed".into(),
        };
        for own in [
            Own::Passed,
            Own::Failed("content differs".into(), String::new()),
            Own::CutOff("QEMU was killed".into()),
            Own::Overran("not done within 60 s".into(), String::new()),
            Own::Infrastructure("QEMU was killed".into()),
        ] {
            let trouble = [finding(Severity::Trouble, false)];
            assert_eq!(
                combine(own.clone(), &end, &[], &[]),
                infrastructure,
                "{own:?}"
            );
            assert_eq!(combine(own, &end, &trouble, &[]), infrastructure);
        }
        // A kernel that has oopsed before has done so on its own.
        let oops = [finding(Severity::Bug, false)];
        let outcome = combine(Own::Passed, &end, &oops, &[]);
        assert_eq!(said(&outcome).0, "oops");
        assert!(outcome.failure().2.contains("QEMU was killed"));
    }

    #[test]
    fn what_is_the_hosts_doing_is_neither_pass_nor_fail() {
        let mut lockup = finding(Severity::Fatal, false);
        lockup.excused = Some("the host gave this machine no processor".into());
        let lockup = [lockup];
        let what = "a Fatal finding: the host gave this machine no processor";
        for own in [
            Own::Passed,
            Own::CutOff("the guest's kernel panicked".into()),
        ] {
            let end = End::Undeclared("the guest's kernel panicked".into());
            let outcome = combine(own, &end, &lockup, &[]);
            assert_eq!(outcome, Outcome::Infrastructure { what: what.into() });
        }
        // What the check found, and what another finding says, stands for itself.
        let own = Own::Failed("content differs".into(), String::new());
        let outcome = combine(own, &End::Marked, &lockup, &[]);
        assert_eq!(said(&outcome), ("check", "content differs"));
        assert!(
            outcome
                .failure()
                .2
                .contains("the host's doing: the host gave")
        );
        let both = [lockup[0].clone(), finding(Severity::Bug, false)];
        let outcome = combine(Own::Passed, &End::Marked, &both, &[]);
        assert_eq!(said(&outcome), ("oops", "a Bug finding"));
        // One the check declares is what it wants to see.
        let mut declared = lockup;
        declared[0].allowed = Some("known".into());
        assert_eq!(
            combine(Own::Passed, &End::Marked, &declared, &[]),
            Outcome::Pass
        );
    }

    #[test]
    fn a_deadline_is_told_apart_from_a_failure() {
        let own = || Own::Overran("not done within 60 s".into(), "traces".into());
        let end = End::Undeclared("it does not answer".into());
        let outcome = combine(own(), &end, &[], &[]);
        assert_eq!(said(&outcome), ("deadline", "not done within 60 s"));
        assert!(outcome.failure().2.contains("traces"));
        let oops = [finding(Severity::Fatal, false)];
        assert_eq!(said(&combine(own(), &end, &oops, &[])).0, "oops");
    }

    #[test]
    fn an_undeclared_end_fails_whatever_else() {
        for own in [
            Own::Passed,
            Own::CutOff("QEMU exited with 0".into()),
            Own::Skipped("x".into()),
            Own::Infrastructure("x".into()),
        ] {
            let outcome = combine(own, &End::Undeclared("QEMU exited with 0".into()), &[], &[]);
            let title = "the guest ended without the check's end mark: QEMU exited with 0";
            assert_eq!(said(&outcome), ("ended", title));
        }
        let outcome = combine(Own::Passed, &End::NeverStarted, &[], &[]);
        assert!(matches!(outcome, Outcome::Infrastructure { .. }));
        assert!(!combine(Own::Skipped(" ".into()), &End::Marked, &[], &[]).is_ok());
    }

    #[test]
    fn a_leak_fails_a_pass_but_not_a_broken_host() {
        let leaks = [Leak {
            sentence: "14 objects".into(),
            taint: Taint::default(),
        }];
        assert_eq!(
            said(&combine(Own::Passed, &End::Marked, &[], &leaks)),
            ("leak", "14 objects")
        );
        let taint = [Leak {
            sentence: "tainted".into(),
            taint: Taint::left_by(Kind::Warning),
        }];
        let after = |findings: &[Finding]| combine(Own::Passed, &End::Marked, findings, &taint);
        assert_eq!(said(&after(&[])), ("leak", "tainted"));
        assert_eq!(after(&[finding(Severity::Bug, true)]), Outcome::Pass);
        let broken = combine(
            Own::Infrastructure("no memory".into()),
            &End::Marked,
            &[],
            &leaks,
        );
        assert_eq!(
            broken,
            Outcome::Infrastructure {
                what: "no memory".into()
            }
        );
    }
}
