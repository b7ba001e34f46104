//! What machines leave behind, gathered when a story is over, and turned into what the second
//! judge reads.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::message::KmsgRecord;
use clock::{Clock, Whose};
use kernel_log::{Expectations, Finding, Kind, MachineEvent, Record, excuse, judge, show};
use machine::{Console, Death, Machine, Mark};

use super::{Exhibits, Guest, LastWords, Leak, Setup};

/// How the guest's part ended. QEMU's exit code says nothing here: a kernel can die in silence and QEMU
/// still ends with 0 (architecture, "Hearing a broken guest").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest was alive and answered when the check said it was done: its end mark.
    Marked,
    /// The guest was gone before; how, in words.
    Undeclared(String),
    /// The host took the machine away under it; how, in words.
    HostFailed(String),
    /// No guest was ever reached.
    NeverStarted,
}

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
    pub findings: Vec<Finding>,
    /// What was not given back.
    pub leaks: Vec<Leak>,
    /// How the guest's part ended.
    pub end: End,
}

/// A check's machines, alive or dead, with what they told when the story was over.
pub struct Remains {
    facts: Vec<(String, String)>,
    expected: Expectations,
    leaks: Vec<Leak>,
    sheets: Vec<Sheet>,
    end: End,
    last_words: Option<LastWords>,
    /// What the dossier takes along.
    pub exhibits: Exhibits,
    /// The machines, until [`Remains::end`]; nobody else holds them.
    pub machines: Vec<Arc<Machine>>,
}

/// What one machine told.
struct Sheet {
    id: String,
    boot_id: Option<String>,
    transcript: String,
    kernel_log: Vec<KmsgRecord>,
    /// What QEMU said of it.
    events: Vec<MachineEvent>,
    console: Console,
    clock: Clock,
    /// Where its console counts no more: what follows is our own doing.
    until: Option<Mark>,
}

impl Remains {
    pub(super) fn new(
        setup: &Setup,
        expected: Expectations,
        leaks: Vec<Leak>,
        last_words: Option<LastWords>,
    ) -> Remains {
        Remains {
            facts: facts(setup),
            expected,
            leaks,
            sheets: Vec::new(),
            end: End::NeverStarted,
            last_words,
            exhibits: Exhibits::default(),
            machines: Vec::new(),
        }
    }

    pub(super) fn add_facts(&mut self, facts: impl IntoIterator<Item = (String, String)>) {
        self.facts.extend(facts);
    }

    /// Asks each machine's guest for what only a living one can tell.
    pub(super) async fn collect(&mut self, mut guests: Vec<Guest>, machines: Vec<Arc<Machine>>) {
        if !machines.is_empty() {
            self.end = End::Marked;
        }
        for machine in machines {
            let guest = guests
                .iter()
                .position(|guest| guest.machine().id() == machine.id());
            let guest = guest.map(|at| guests.swap_remove(at));
            self.add(machine, guest).await;
        }
    }

    async fn add(&mut self, machine: Arc<Machine>, guest: Option<Guest>) {
        let words = self
            .last_words
            .as_ref()
            .and_then(|words| words.of(&machine));
        // A panic that we brought about to see a trace is not the guest's.
        let death = match words {
            Some(words) => words.died_before.clone(),
            None => machine.death(),
        };
        let mut sheet = Sheet {
            id: machine.id().to_owned(),
            boot_id: None,
            transcript: String::new(),
            kernel_log: Vec::new(),
            events: death.as_ref().and_then(death_event).into_iter().collect(),
            console: machine.console().clone(),
            clock: machine.clock().clone(),
            until: words.map(|words| words.from),
        };
        let mut declared = false;
        if let Some(guest) = guest {
            declared = guest.powered_off();
            sheet
                .events
                .extend(guest.has_reset().then_some(MachineEvent::GuestReset));
            sheet.boot_id = Some(guest.boot_id().to_owned()).filter(|id| !id.is_empty());
            match words {
                Some(words) => {
                    let mark = guest.marked();
                    let since = |record: &&KmsgRecord| record.sequence >= mark;
                    sheet.kernel_log = words.kernel_log.iter().filter(since).cloned().collect();
                }
                None => {
                    // A guest that cannot even show its log any more has not come to the end of the
                    // check.
                    if death.is_none()
                        && let Err(failure) = guest.fetch_kernel_log().await
                    {
                        self.ended(match failure.whose() {
                            Whose::Guest => End::Undeclared(failure.to_string()),
                            Whose::Host | Whose::Ours => End::HostFailed(failure.to_string()),
                        });
                    }
                    sheet.kernel_log = guest.kernel_log().await;
                }
            }
            sheet.transcript = guest.transcript().await;
        }
        if let Some(death) = death
            && !(declared && death.is_orderly())
        {
            self.ended(match death.whose() {
                Whose::Guest => End::Undeclared(death.to_string()),
                Whose::Host | Whose::Ours => End::HostFailed(death.to_string()),
            });
        }
        self.sheets.push(sheet);
        self.machines.push(machine);
    }

    /// What the host did to one machine counts for all: what the others show may follow from it.
    fn ended(&mut self, end: End) {
        if !matches!(self.end, End::HostFailed(_)) {
            self.end = end;
        }
    }

    /// Everything that is known so far.
    pub fn evidence(&self) -> Evidence {
        let mut evidence = Evidence {
            properties: self.facts.clone(),
            transcript: String::new(),
            kernel_log: String::new(),
            findings: Vec::new(),
            leaks: self.leaks.clone(),
            end: self.end.clone(),
        };
        let judged = self.sheets.iter().map(|sheet| {
            let mut found = judge(&sheet.add_to(&mut evidence), &self.expected);
            excuse_by(&mut found, &sheet.console, &sheet.clock);
            found
        });
        let judged = judged.collect();
        evidence.findings = of_all(judged);
        evidence
    }

    /// What was collected when the deadline had passed, as text.
    pub fn last_words(&self) -> Option<String> {
        self.last_words.as_ref().map(LastWords::text)
    }

    /// Whether a guest did not answer when the deadline had passed.
    pub fn deaf(&self) -> bool {
        self.last_words.as_ref().is_some_and(LastWords::deaf)
    }

    /// Ends all machines; their consoles are complete then.
    pub async fn end(mut self) -> Evidence {
        for machine in std::mem::take(&mut self.machines) {
            match Arc::try_unwrap(machine).map(Machine::kill) {
                Ok(end) => {
                    if let Err(error) = end.await {
                        self.ended(End::HostFailed(error.to_string()));
                    }
                }
                Err(shared) => drop(shared),
            }
        }
        self.evidence()
    }
}

impl Sheet {
    /// Adds what is for people, and returns what the second judge is to read.
    fn add_to(&self, evidence: &mut Evidence) -> Vec<Record> {
        let mut property = |name: &str, value: String| {
            evidence.properties.push((name.into(), value));
        };
        property("machine-id", self.id.clone());
        if let Some(boot_id) = &self.boot_id {
            property("boot-id", boot_id.clone());
        }
        property("console", self.console.path().display().to_string());
        property("console-sha256", self.console.digest());
        for (name, value) in self.clock.properties() {
            property(&name, value);
        }
        evidence.transcript.push_str(&self.transcript);
        let mut records = Vec::new();
        for record in &self.kernel_log {
            evidence.kernel_log.push_str(&show(record));
            records.push(Record::from(record));
        }
        let mut lines = self.console.since(Mark::START).0;
        if let Some(until) = self.until {
            let later = self.console.since(until).0.len();
            lines.truncate(lines.len() - later.min(lines.len()));
        }
        if records.is_empty() {
            let text = lines.iter().map(|line| format!("{}\n", line.text));
            evidence.kernel_log.extend(text);
        }
        records.extend(lines.iter().map(|line| Record::console(&line.text)));
        records.extend(self.events.iter().copied().map(Record::event));
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

/// What a death says to the second judge. All of them came before we ended the machine ourselves; what
/// the host did says nothing about the guest ([`End::HostFailed`]).
fn death_event(death: &Death) -> Option<MachineEvent> {
    match death {
        Death::GuestPanicked => Some(MachineEvent::GuestPanicked),
        Death::DiskError { .. } | Death::Exited { .. } | Death::VsockLost { .. } => None,
    }
}

/// Excuses what the host explains among one machine's findings.
pub(super) fn excuse_by(findings: &mut [Finding], console: &Console, clock: &Clock) {
    if findings.is_empty() {
        return;
    }
    let lines = console.since(Mark::START).0;
    let said: Vec<(Duration, String)> = lines
        .iter()
        .map(|line| (line.at, Record::console(&line.text).text))
        .collect();
    let said = said.iter().map(|(at, text)| (*at, text.as_str()));
    excuse(findings, said, |from, to| clock.lost_between(from, to));
}

/// What each machine was found to have done, judged by itself. What the check declared must come from one of
/// them.
fn of_all(all: Vec<Vec<Finding>>) -> Vec<Finding> {
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

#[cfg(test)]
mod tests {
    use kernel_log::{Expected, Matcher};

    use super::*;

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
            let each = machines.iter().map(|records| judge(records, &expected));
            let findings = of_all(each.collect());
            let mut counting = findings.iter().filter(|f| f.allowed.is_none());
            counting.by_ref().map(|f| f.title.clone()).collect()
        };
        assert_eq!(counts(&[warning()]), [""; 0]);
        assert_eq!(counts(&[Vec::new(), warning()]), [""; 0]);
        let absent = "expected in the log, but absent: rule `warning`";
        assert_eq!(counts(&[Vec::new(), Vec::new()]), [absent]);
        assert!(
            judge(&warning(), &Expectations::none())[0]
                .allowed
                .is_none()
        );
    }
}
