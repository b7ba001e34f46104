//! What is collected from a machine whose time is up, before it is killed: what hangs, and where.
//!
//! First the guest is asked, on a fresh connection (the old one may be part of what hangs): sysrq `w`
//! shows the tasks in uninterruptible sleep, `l` what every CPU does (the kernel's
//! Documentation/admin-guide/sysrq.rst), `/proc/*/stack` the rest. A guest that does not answer gets a
//! non-maskable interrupt, on which an invited one panics with a trace (`unknown_nmi_panic`). Under
//! emulation there is no hard-lockup detector, so this is the only trace a spinning kernel leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_client::{Client, Deadline, ExecSpec};
use agent_protocol::message::KmsgRecord;
use kernel_log::blame::{culprit, posture_of};
use kernel_log::{Record, show};
use machine::{Death, Machine, Mark};

use super::Machines;

/// How long all of it may take on a host that has its processors to itself; see [`Pace`].
const BUDGET: Duration = Duration::from_secs(2);

/// How long the agent may take to take up a fresh connection and to show its log: milliseconds when
/// it lives, and a guest that spins on one CPU is slow on the other.
const AGENT: Duration = Duration::from_millis(1000);

/// A guest that got a non-maskable interrupt has this long for its trace; and the console is quiet
/// this long when it is over.
const NMI: (Duration, Duration) = (Duration::from_millis(800), Duration::from_millis(150));

/// How long QEMU may take to show registers.
const REGISTERS: Duration = Duration::from_millis(300);

/// How long a fork takes to be ready on such a host.
const READY: Duration = Duration::from_millis(800);

/// How much slower than alone this host is just now, as the fork's own start has shown: what would
/// answer in time there gets as much longer here, within bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace(f64);

impl Pace {
    /// The pace of a host on which a fork was ready after `ready`; zero when there was no fork.
    pub fn of(ready: Duration) -> Pace {
        Pace((ready.as_secs_f64() / READY.as_secs_f64()).clamp(1.0, 5.0))
    }

    /// As long as `time` is on a host that has its processors to itself.
    pub fn stretch(self, time: Duration) -> Duration {
        time.mul_f64(self.0)
    }
}

/// Registers that no kernel computes with.
const DULL: &[&str] = &["FPR", "XMM", "YMM", "ZMM"];

/// Lines of the console's end that are shown.
const TAIL: usize = 40;

/// What the sections with traces are called.
const TRACES: [&str; 2] = [
    "Blocked tasks and what every CPU does (sysrq w, l)",
    "After a non-maskable interrupt, the console",
];

/// The stacks of all tasks, each below its path; user space's are empty.
const STACKS: &str = "head -n 30 /proc/[0-9]*/stack /proc/[0-9]*/comm 2>/dev/null";

/// What the machines of an overdue check told.
#[derive(Debug, Clone, Default)]
pub struct LastWords {
    words: Vec<Words>,
    took: Duration,
}

/// What one machine told.
#[derive(Debug, Clone)]
pub(super) struct Words {
    machine: String,
    /// Where its console was when the time was up.
    pub(super) from: Mark,
    /// Its death, if it came before ours.
    pub(super) died_before: Option<Death>,
    /// Its kernel log up to then; empty when it did not answer.
    pub(super) kernel_log: Vec<KmsgRecord>,
    deaf: bool,
    sections: Vec<(&'static str, String)>,
    culprit: Option<String>,
}

impl LastWords {
    /// Collects from all machines side by side; takes about two seconds at the most.
    pub async fn collect(machines: &Machines, pace: Pace) -> LastWords {
        let machines = machines.all();
        let begin = Instant::now();
        LastWords {
            words: futures_util::future::join_all(
                machines.iter().map(|machine| words(machine, pace)),
            )
            .await,
            took: begin.elapsed(),
        }
    }

    /// How long collecting them took.
    pub fn took(&self) -> Duration {
        self.took
    }

    pub(super) fn of(&self, machine: &Machine) -> Option<&Words> {
        self.words
            .iter()
            .find(|words| words.machine == machine.id())
    }

    /// What hangs, in a few words, if the traces tell.
    pub fn culprit(&self) -> Option<&str> {
        self.words.iter().find_map(|words| words.culprit.as_deref())
    }

    /// Whether a machine that lived did not answer.
    pub fn deaf(&self) -> bool {
        self.words.iter().any(|words| words.deaf)
    }

    /// What hangs, with its trace.
    pub fn summary(&self) -> String {
        let traces = self.words.iter().filter_map(|words| {
            let (name, text) = words
                .sections
                .iter()
                .find(|(name, _)| TRACES.contains(name))?;
            Some(format!("{name}:\n{}", text.trim_end()))
        });
        traces.collect::<Vec<_>>().join("\n")
    }

    /// All of it, for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for words in &self.words {
            let state = match (&words.died_before, words.deaf) {
                (Some(death), _) => format!("was dead already: {death}"),
                (None, true) => "did not answer any more".to_owned(),
                (None, false) => "still answered".to_owned(),
            };
            out.push_str(&format!("# Machine {} {state}\n", words.machine));
            if let Some(culprit) = &words.culprit {
                out.push_str(&format!("What hangs: {culprit}\n"));
            }
            for (name, text) in &words.sections {
                out.push_str(&format!("\n## {name}\n\n{}\n", text.trim_end()));
            }
            out.push('\n');
        }
        out
    }
}

async fn words(machine: &Arc<Machine>, pace: Pace) -> Words {
    let end = Deadline::within(pace.stretch(BUDGET - REGISTERS));
    let mut words = Words {
        machine: machine.id().to_owned(),
        from: machine.console().mark(),
        died_before: machine.death(),
        kernel_log: Vec::new(),
        deaf: false,
        sections: Vec::new(),
        culprit: None,
    };
    if words.died_before.is_none() {
        let asked = hello(machine, pace.stretch(AGENT));
        match machine.clock().timeout(pace.stretch(AGENT), asked).await {
            Ok(Some((client, log, next))) => {
                words.kernel_log = log;
                words.ask(machine, &client, next, end).await;
            }
            _ => words.deaf = machine.secret().is_some(),
        }
        let limit = pace.stretch(REGISTERS);
        let registers = machine.clock().timeout(limit, machine.registers());
        let mut posture = None;
        if let Ok(Ok(text)) = registers.await {
            posture = posture_of(&text);
            let lines = text.lines();
            let telling = lines.filter(|line| !DULL.iter().any(|dull| line.starts_with(dull)));
            let text = telling.collect::<Vec<_>>().join("\n");
            words.sections.push(("Registers of all CPUs", text));
        }
        if words.deaf {
            words.strike(machine, pace).await;
            // A kernel that shows no trace has still left its CPUs in some state.
            words.culprit = words.culprit.or(posture.map(str::to_owned));
        }
    }
    let tail = machine.console().tail(TAIL);
    words.sections.push(("The console ends with", tail));
    words
}

/// A fresh connection, the kernel log so far, and where it ends.
async fn hello(machine: &Machine, within: Duration) -> Option<(Client, Vec<KmsgRecord>, u64)> {
    let client = machine.agent(within).await.ok()?;
    let log = client.kmsg_since(0, within).await.ok()?.records;
    let next = log.last().map_or(0, |record| record.sequence + 1);
    Some((client, log, next))
}

impl Words {
    /// Has the guest show what hangs. What does not come is missing; there is no time for more.
    async fn ask(&mut self, machine: &Machine, client: &Client, next: u64, end: Deadline) {
        // What is blocked in both looks at it is not just passing by.
        for key in *b"wlw" {
            client.sysrq(key, end).await.unwrap_or_default();
        }
        if let Ok(log) = client.kmsg_since(next, end).await {
            let kernel = log.records.iter().filter(|record| record.is_kernel());
            let lines: Vec<&str> = kernel.flat_map(|record| record.text.lines()).collect();
            self.culprit = culprit(&lines);
            let text = log.records.iter().map(show).collect();
            self.sections.push((TRACES[0], text));
        }
        let stacks = ExecSpec::new(["/bin/sh", "-c", STACKS]);
        // The agent would take its time to end a program that is late.
        let said = machine
            .clock()
            .timeout(end.remaining(), client.exec(stacks, end))
            .await;
        if let Ok(Ok(output)) = said {
            let text = output.stdout_text();
            self.sections
                .push(("Kernel stacks of all tasks", text.to_string()));
        }
    }

    /// Has a guest that does not answer panic, and reads what it says.
    async fn strike(&mut self, machine: &Machine, pace: Pace) {
        let console = machine.console();
        let before = console.mark();
        let (limit, quiet) = (pace.stretch(NMI.0), pace.stretch(NMI.1));
        let struck = async {
            if machine.inject_nmi().await.is_err() {
                return;
            }
            // From the interrupt to the first line may take longer than the lines are apart.
            while console.since(before).0.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            console.settled(quiet, limit).await;
        };
        // A guest that says nothing even now has said nothing.
        let clock = machine.clock();
        clock.timeout(limit, struck).await.unwrap_or_default();
        let lines: Vec<String> = console
            .since(before)
            .0
            .iter()
            .map(|line| Record::console(&line.text).text)
            .collect();
        self.culprit = culprit(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        self.sections.push((TRACES[1], lines.join("\n")));
    }
}
