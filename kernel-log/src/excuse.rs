//! Findings that are the host's doing: a guest that was not run says that its processors hang.
//!
//! The kernel's watchdogs measure by the guest's clock, which goes on while the host runs other things
//! (kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/hung_task.c, kernel/workqueue.c). What they report is
//! nobody's fault in the guest when the machine was without its processors for much of that time, and without
//! it would not have been reported.

use std::time::Duration;

use super::finding::{Finding, Kind};

/// Between what happens in a guest and our seeing it on its console.
const SLACK: Duration = Duration::from_secs(2);

/// What a watchdog says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    /// For so long nothing moved, by the guest's clock.
    stuck: Duration,
    /// From this long on it is reported.
    threshold: Duration,
    /// It happened so long before it was reported, at the most.
    window: Duration,
}

impl Claim {
    /// What a header line of this kind of finding claims; `None` for kinds that go by no clock.
    fn of(kind: Kind, line: &str) -> Option<Claim> {
        let seconds = |after: &str| -> Option<Duration> {
            let number = line.split(after).nth(1)?;
            let digits = number.find(|c: char| !c.is_ascii_digit());
            let number = number.get(..digits?)?.parse().ok()?;
            Some(Duration::from_secs(number))
        };
        // The kernel's defaults: 2 * watchdog_thresh, its own for hard lockups, 30 s for workqueues
        // (`watchdog_thresh`), CONFIG_RCU_CPU_STALL_TIMEOUT.
        let threshold = Duration::from_secs(match kind {
            Kind::Lockup if line.contains("workqueue") => 30,
            Kind::Lockup if line.contains("hard LOCKUP") => 10,
            Kind::Lockup => 20,
            Kind::RcuStall => 21,
            Kind::HungTask => 120,
            _ => return None,
        });
        if let Some(stuck) = seconds("for more than ") {
            // khungtaskd looks as often as that: what it finds can have lasted for twice as long.
            let (threshold, window) = (stuck, 2 * stuck);
            return Some(Claim {
                stuck,
                threshold,
                window,
            });
        }
        let stuck = seconds("stuck for ").unwrap_or(threshold);
        Some(Claim {
            stuck,
            threshold,
            window: stuck,
        })
    }

    /// Why this is not the guest's doing, when so much was lost before it was said: half of the time, and
    /// without it there would have been no report.
    fn excuse(self, lost: Duration) -> Option<String> {
        let lost = lost.min(self.stuck);
        let given = self.stuck.saturating_sub(lost);
        (2 * lost >= self.stuck && given < self.threshold).then(|| {
            format!(
                "the host gave this machine no processor for {:.1} s of those {} s",
                lost.as_secs_f64(),
                self.stuck.as_secs()
            )
        })
    }
}

/// Marks those findings on one machine's log that the host explains. `said` is its console, without the
/// kernel's stamps, with the machine's age at each line: the guest's own clock says little of the host's.
/// `lost` says what the machine lost between two ages. A finding that is not on the console, or that was
/// reported again when nothing was lost, stays the guest's.
pub fn excuse<'a>(
    findings: &mut [Finding],
    said: impl Iterator<Item = (Duration, &'a str)> + Clone,
    lost: impl Fn(Duration, Duration) -> Duration,
) {
    for finding in findings {
        let Some(header) = finding.excerpt.first().map(|line| shape(line)) else {
            continue;
        };
        let reports = said.clone().filter_map(|(at, line)| {
            let claim = Claim::of(finding.kind, line)?;
            (shape(line) == header).then_some((at, claim))
        });
        let excuses: Option<Vec<String>> = reports
            .map(|(at, claim)| {
                let from = at.saturating_sub(claim.window + SLACK);
                claim.excuse(lost(from, at))
            })
            .collect();
        finding.excused = excuses.and_then(|excuses| excuses.into_iter().next());
    }
}

/// A line without its numbers: which processor, process and how many seconds differs from report to report.
fn shape(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Expectations, Record, judge};
    use super::*;

    const SOFT: &str = "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [insmod:702]";
    const HUNG: &str = "INFO: task sync:1420 blocked for more than 30 seconds.";

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The excuse of the first finding of a log whose lines came at these ages, on a machine that lost all
    /// from the first to the second.
    fn excused(lines: &[(u64, &str)], lost: (u64, u64)) -> Option<String> {
        let records: Vec<Record> = lines
            .iter()
            .map(|(at, line)| Record::kmsg(*at, 0, 0, s(1000 + at), line))
            .collect();
        let mut findings = judge(&records, &Expectations::none());
        let said = lines.iter().map(|(at, line)| (s(*at), *line));
        excuse(&mut findings, said, |from, to| {
            to.min(s(lost.1)).saturating_sub(from.max(s(lost.0)))
        });
        findings.first().expect("a finding").excused.clone()
    }

    #[test]
    fn a_lockup_of_a_machine_that_was_not_run_is_the_hosts() {
        assert_eq!(
            excused(&[(60, SOFT)], (38, 58)).as_deref(),
            Some("the host gave this machine no processor for 20.0 s of those 22 s")
        );
        // Nothing was lost, little was, or it was lost long before.
        assert_eq!(excused(&[(60, SOFT)], (0, 0)), None);
        assert_eq!(excused(&[(60, SOFT)], (50, 59)), None);
        assert_eq!(excused(&[(90, SOFT)], (38, 58)), None);
    }

    #[test]
    fn what_would_have_been_reported_anyway_is_the_guests() {
        let long = "watchdog: BUG: soft lockup - CPU#1 stuck for 45s! [insmod:702]";
        assert_eq!(excused(&[(60, long)], (30, 54)), None);
        // It goes on with the machine running.
        let again = [
            (60, SOFT),
            (
                84,
                "watchdog: BUG: soft lockup - CPU#1 stuck for 44s! [insmod:702]",
            ),
        ];
        assert!(excused(&again[..1], (38, 60)).is_some());
        assert_eq!(excused(&again, (38, 60)), None);
    }

    #[test]
    fn other_watchdogs_have_other_clocks() {
        assert!(excused(&[(90, HUNG)], (35, 60)).is_some());
        assert!(excused(&[(90, HUNG)], (0, 25)).is_none());
        let stall = "rcu: INFO: rcu_preempt self-detected stall on CPU";
        assert!(excused(&[(90, stall)], (70, 89)).is_some());
        assert!(excused(&[(90, stall)], (85, 89)).is_none());
        let queue = "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 38s!";
        assert!(excused(&[(90, queue)], (60, 89)).is_some());
        let oops = "BUG: kernel NULL pointer dereference, address: 0000000000000008";
        assert!(excused(&[(90, oops)], (0, 90)).is_none());
    }

    #[test]
    fn a_report_nobody_saw_when_is_the_guests() {
        let record = Record::kmsg(1, 0, 0, s(60), SOFT);
        let mut findings = judge(&[record], &Expectations::none());
        excuse(&mut findings, std::iter::empty(), |from, to| to - from);
        assert_eq!(findings[0].excused, None);
    }
}
