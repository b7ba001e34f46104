//! What machines leave behind, gathered when a story is over, and turned into what the second
//! judge reads.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::message::KmsgRecord;

use super::{Failure, Guest, Setup};
use crate::machine::{Death, Machine, Mark};
use crate::verdict::outcome::{End, Own, combine};
use crate::verdict::{Expectations, Finding, MachineEvent, Outcome, Record, judge};

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
    end: End,
}

/// Ends all machines and reads what they left.
pub(super) async fn collect(
    setup: &Setup,
    mut guests: Vec<Guest>,
    machines: Vec<Arc<Machine>>,
) -> Evidence {
    let mut evidence = Evidence {
        properties: facts(setup),
        transcript: String::new(),
        kernel_log: String::new(),
        findings: Vec::new(),
        end: if machines.is_empty() {
            End::NeverStarted
        } else {
            End::Marked
        },
    };
    for machine in machines {
        let guest = guests
            .iter()
            .position(|guest| guest.machine().id() == machine.id());
        let guest = guest.map(|at| guests.swap_remove(at));
        evidence.add(machine, guest).await;
    }
    evidence
}

impl Evidence {
    /// Ends one machine and takes what it and its guest leave.
    async fn add(&mut self, machine: Arc<Machine>, guest: Option<Guest>) {
        let mut records = Vec::new();
        let mut property = |name: &str, value: String| self.properties.push((name.into(), value));
        property("machine-id", machine.id().to_owned());
        if let Some(guest) = guest {
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
        match machine.death() {
            Some(death) if !death.is_orderly() => self.end = End::Undeclared(death.to_string()),
            _ => {}
        }
        let events = machine_records(&machine);
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
        records.extend(events);
        self.findings.extend(judge(&records, &Expectations::none()));
        self.properties
            .push(("console".into(), console.path().display().to_string()));
        self.properties
            .push(("console-sha256".into(), console.digest()));
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

fn machine_records(machine: &Machine) -> Option<Record> {
    let event = match machine.death()? {
        Death::GuestPanicked => MachineEvent::GuestPanicked,
        Death::DiskError { .. } => MachineEvent::DiskError,
        _ => return None,
    };
    Some(Record::event(event))
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
            // The death itself is in the records and in the end; this is how the check met it.
            Err(Failure::Died(death)) => Own::Failed(death.to_string(), String::new()),
            Err(failure @ Failure::Agent { .. }) => Own::Failed(failure.to_string(), String::new()),
            Err(failure @ Failure::UndeclaredSkip(_)) => {
                Own::Failed(failure.to_string(), String::new())
            }
            Err(Failure::Infrastructure(what)) => Own::Infrastructure(what),
        };
        combine(own, &self.end, &self.findings, &[])
    }
}
