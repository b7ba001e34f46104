//! What machines leave behind, gathered when a story is over, and turned into what the second
//! judge reads.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::message::KmsgRecord;

use super::{Failure, Guest, Setup};
use crate::checks::Check;
use crate::machine::{Death, Machine, Mark};
use crate::verdict::ledger::Leak;
use crate::verdict::outcome::{End, Own, combine};
use crate::verdict::{Expectations, Finding, Kind, MachineEvent, Outcome, Record, judge};

/// What is known about a check besides its own word.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Name and value: machine ids, boot ids, console digests, versions.
    pub properties: Vec<(String, String)>,
    /// What the guests were asked and answered.
    pub transcript: String,
    /// Their kernel logs, as text.
    pub kernel_log: String,
    /// What each machine's log says, judged apart: one machine's kernel log proves nothing about
    /// another's console.
    findings: Vec<Finding>,
    leaks: Vec<Leak>,
    end: End,
}

/// Ends all machines and reads what they left.
pub(super) async fn collect(
    setup: &Setup,
    check: &Check,
    leaks: Vec<Leak>,
    mut guests: Vec<Guest>,
    machines: Vec<Arc<Machine>>,
) -> Evidence {
    let mut evidence = Evidence {
        properties: facts(setup),
        transcript: String::new(),
        kernel_log: String::new(),
        findings: Vec::new(),
        leaks,
        end: if machines.is_empty() {
            End::NeverStarted
        } else {
            End::Marked
        },
    };
    let mut records = Vec::new();
    for machine in machines {
        let guest = guests
            .iter()
            .position(|guest| guest.machine().id() == machine.id());
        let guest = guest.map(|at| guests.swap_remove(at));
        records.push(evidence.add(machine, guest).await);
    }
    evidence.findings = judge_all(&records, &check.expectations());
    evidence
}

impl Evidence {
    /// Ends one machine and takes what it and its guest leave; returns what the second judge is to
    /// read.
    async fn add(&mut self, machine: Arc<Machine>, guest: Option<Guest>) -> Vec<Record> {
        let mut records = Vec::new();
        let mut property = |name: &str, value: String| self.properties.push((name.into(), value));
        property("machine-id", machine.id().to_owned());
        let mut events = Vec::new();
        let mut declared = false;
        if let Some(guest) = guest {
            declared = guest.powered_off();
            events.extend(guest.has_reset().then_some(MachineEvent::GuestReset));
            property("boot-id", guest.boot_id().to_owned());
            // A guest that cannot even show its log any more has not come to the end of the check.
            if machine.death().is_none()
                && let Err(failure) = guest.fetch_kernel_log().await
            {
                self.end = End::Undeclared(failure.to_string());
            }
            self.transcript.push_str(&guest.transcript().await);
            for record in guest.kernel_log().await {
                self.kernel_log.push_str(&show(&record));
                let at = Duration::from_micros(record.time_us);
                let (sequence, facility) = (record.sequence, record.facility);
                records.push(Record::kmsg(
                    sequence,
                    facility,
                    record.level,
                    at,
                    &record.text,
                ));
            }
        }
        if let Some(death) = machine.death() {
            events.extend(death_event(&death));
            if !(declared && death.is_orderly()) {
                self.end = End::Undeclared(death.to_string());
            }
        }
        let console = machine.console().clone();
        // The story is over and its guest is dropped: this is the last hold on the machine.
        match Arc::try_unwrap(machine).map(Machine::kill) {
            Ok(end) => {
                if let Err(error) = end.await {
                    self.end = End::Undeclared(error.to_string());
                }
            }
            Err(shared) => drop(shared),
        }
        let lines = console.since(Mark::START).0;
        if records.is_empty() {
            self.kernel_log
                .extend(lines.iter().map(|line| format!("{}\n", line.text)));
        }
        records.extend(lines.iter().map(|line| Record::console(&line.text)));
        records.extend(events.into_iter().map(Record::event));
        self.properties
            .push(("console".into(), console.path().display().to_string()));
        self.properties
            .push(("console-sha256".into(), console.digest()));
        records
    }
}

/// What ties a result to an image and a host.
fn facts(setup: &Setup) -> Vec<(String, String)> {
    let manifest = &setup.image.manifest;
    let mut facts = setup.host.facts();
    facts.push(("image-sha256".into(), manifest.disk.sha256.clone()));
    facts.push(("vexfs".into(), manifest.vexfs_version.clone()));
    facts.push(("kernel".into(), manifest.kernel.release.clone()));
    facts
}

/// What a death says to the second judge. All of them came before we ended the machine ourselves.
fn death_event(death: &Death) -> Option<MachineEvent> {
    match death {
        Death::GuestPanicked => Some(MachineEvent::GuestPanicked),
        Death::DiskError { .. } => Some(MachineEvent::DiskError),
        Death::Exited {
            status: Some(status),
            ..
        } => {
            let signal = status.signal().map(MachineEvent::QemuKilled);
            signal.or(status.code().map(MachineEvent::QemuExited))
        }
        Death::Exited { status: None, .. } | Death::VsockLost { .. } => None,
    }
}

/// Judges each machine by itself. What the check declared must come from one of them.
fn judge_all(machines: &[Vec<Record>], expected: &Expectations) -> Vec<Finding> {
    let all: Vec<Vec<Finding>> = machines
        .iter()
        .map(|records| judge(records, expected))
        .collect();
    let missing = |finding: &Finding| finding.kind == Kind::Missing;
    // Absent from one machine is no matter, absent from every one is.
    let absent = |finding: &Finding| {
        all.iter()
            .all(|found| found.iter().any(|f| f.title == finding.title))
    };
    let mut findings: Vec<Finding> = Vec::new();
    for finding in all.iter().flatten() {
        let told = |f: &Finding| missing(f) && f.title == finding.title;
        if !missing(finding) || (absent(finding) && !findings.iter().any(told)) {
            findings.push(finding.clone());
        }
    }
    findings
}

fn show(record: &KmsgRecord) -> String {
    let (seconds, micros) = (record.time_us / 1_000_000, record.time_us % 1_000_000);
    let speaker = if record.is_kernel() {
        ""
    } else {
        "user space: "
    };
    format!(
        "<{}>[{seconds:5}.{micros:06}] {speaker}{}\n",
        record.level, record.text
    )
}

impl Evidence {
    /// One outcome of the check's own word and everything here.
    pub fn judge(&self, story: Result<(), Failure>) -> Outcome {
        let own = match story {
            Ok(()) => Own::Passed,
            Err(Failure::Check { title, detail, .. }) => Own::Failed(title, detail),
            Err(Failure::Died(death)) => Own::CutOff(death.to_string()),
            Err(failure @ Failure::Agent { .. }) => Own::Failed(failure.to_string(), String::new()),
            Err(failure @ Failure::UndeclaredSkip(_)) => {
                Own::Failed(failure.to_string(), String::new())
            }
            Err(Failure::Infrastructure(what)) => Own::Infrastructure(what),
        };
        combine(own, &self.end, &self.findings, &self.leaks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Expected, Matcher};

    const ROW: &[Expected] = &[Expected {
        what: Matcher::rule("warning"),
        must: true,
        why: "the module says so",
    }];

    fn warning() -> Vec<Record> {
        let text = "WARNING: CPU: 0 PID: 1 at fs/x.c:1 f+0x1/0x2 [x]";
        vec![Record::kmsg(1, 0, 4, Duration::ZERO, text)]
    }

    #[test]
    fn what_a_row_declares_may_come_from_any_machine_and_must_from_one() {
        let expected = Expectations::declared(ROW);
        let counts = |machines: &[Vec<Record>]| -> Vec<String> {
            let findings = judge_all(machines, &expected);
            let mut counting = findings.iter().filter(|f| f.allowed.is_none());
            counting.by_ref().map(|f| f.title.clone()).collect()
        };
        assert_eq!(counts(&[warning()]), [""; 0]);
        assert_eq!(counts(&[Vec::new(), warning()]), [""; 0]);
        let absent = "expected in the log, but absent: rule `warning`";
        assert_eq!(counts(&[Vec::new(), Vec::new()]), [absent]);
        assert!(
            judge_all(&[warning()], &Expectations::none())[0]
                .allowed
                .is_none()
        );
    }
}
