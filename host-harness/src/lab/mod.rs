//! What a check works with: guests of the image under test, their disks and mounts, and the
//! evidence they leave whether or not the check passes.
//!
//! A story asks the [`Lab`] for a [`Guest`] and talks to it; QEMU, overlays, sockets and secrets
//! stay below. Everything a guest was asked, and everything its kernel said, is kept for the
//! report. The lab does not judge.

mod boot;
mod disks;
mod evidence;
mod exhibits;
mod failure;
mod guest;
mod last_words;
mod ledger;
mod live;
mod power;
mod seed_disk;
mod settled;
mod setup;
mod subject;
mod uninvited;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clock::{Clock, Whose};
use image::{Manifest, SourceConfig};
use machine::snapshot::Stage;
use machine::{Accelerator, Machine};
use results::figures::Fingerprint;
use results::{Outcome, Part, Subject};

use crate::checks::Check;
use crate::checks::counts::Scale;

pub use boot::Boot;
pub use disks::{Mount, SCRATCH};
pub use evidence::{End, Evidence, Remains};
pub use exhibits::Exhibits;
pub use failure::Failure;
pub use guest::{FIRST_ANSWER, Guest};
pub use last_words::{LastWords, Pace};
pub use ledger::{Leak, Ledger};
pub use live::Listener;
pub use power::CutDisk;
pub use seed_disk::seed_disk;
pub use setup::{BOOT_DEADLINE, Break, Setup};
pub use subject::place;
pub use uninvited::Uninvited;

/// One check's view of the world.
pub struct Lab {
    setup: Arc<Setup>,
    check: &'static Check,
    id: String,
    settled: Option<(Guest, Ledger)>,
    leaks: Vec<Leak>,
    seen: Vec<Guest>,
    machines: Machines,
    /// Machines that are no more in it.
    gone: usize,
    exhibits: Exhibits,
    parts: Vec<Part>,
    facts: Vec<(String, String)>,
    last_words: Option<LastWords>,
    seed: u64,
    instead: Instead,
    listener: Option<Listener>,
    live: Option<live::Live>,
    steps: Vec<(&'static str, Instant)>,
    pub(crate) spent: Spent,
}

/// Which module a settled guest has.
#[derive(Debug, Clone, Default)]
enum Instead {
    /// The image's own.
    #[default]
    Own,
    /// None: the image's own was taken out, and the story will load what it is about.
    Nothing,
    /// This one, in the image's place.
    Loaded(Arc<Subject>),
    /// None, until the story loads this one.
    Pending(Arc<Subject>),
}

/// The machines of a check so far, for the one who watches over its story.
#[derive(Clone, Default)]
pub struct Machines(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    machines: Vec<Arc<Machine>>,
    /// Of those too that are no more.
    clocks: Vec<Clock>,
}

impl Machines {
    /// All of them, in the order of their start.
    pub fn all(&self) -> Vec<Arc<Machine>> {
        self.lock().machines.clone()
    }

    /// What any of them lost from `from` to now.
    pub fn lost_since(&self, from: tokio::time::Instant) -> Duration {
        let clocks = self.lock().clocks.clone();
        clock::lost_by_any(&clocks, from)
    }

    fn add(&self, machine: Arc<Machine>) {
        let mut known = self.lock();
        known.clocks.push(machine.clock().clone());
        known.machines.push(machine);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a check's time went, besides the harness' own work.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// On the fork the check's row asks for, until its agent was ready.
    pub(crate) machine: Duration,
    /// On the story.
    pub(crate) story: Duration,
}

impl Lab {
    /// A lab without any machine yet. `id` names the check's run in file names.
    pub fn new(setup: Arc<Setup>, check: &'static Check, id: String) -> Lab {
        Lab {
            seed: setup.seed.unwrap_or_else(draw),
            setup,
            check,
            id,
            settled: None,
            leaks: Vec::new(),
            seen: Vec::new(),
            machines: Machines::default(),
            gone: 0,
            exhibits: Exhibits::default(),
            parts: Vec::new(),
            facts: Vec::new(),
            instead: Instead::default(),
            listener: None,
            live: None,
            steps: Vec::new(),
            spent: Spent::default(),
            last_words: None,
        }
    }

    /// The settled guest is to have this module in the place of the image's own.
    pub fn with_subject(mut self, subject: Arc<Subject>) -> Lab {
        self.instead = Instead::Loaded(subject);
        self
    }

    /// The settled guest is to have no module: the story loads what [`Lab::give`] brings.
    pub fn without_module(mut self) -> Lab {
        self.instead = Instead::Nothing;
        self
    }

    /// What the story of a lab without module is about.
    pub fn give(&mut self, subject: Arc<Subject>) {
        self.instead = Instead::Pending(subject);
    }

    /// Who is told of findings in the kernel log as they come.
    pub fn listen(mut self, listener: Listener) -> Lab {
        self.listener = Some(listener);
        self
    }

    /// The module that takes the place of the image's, if one does.
    pub fn subject(&self) -> Option<&Arc<Subject>> {
        match &self.instead {
            Instead::Own | Instead::Nothing => None,
            Instead::Loaded(subject) | Instead::Pending(subject) => Some(subject),
        }
    }

    /// Loads what the story is about.
    ///
    /// # Errors
    /// When the kernel refuses it, or nobody brought any.
    pub async fn load_subject(&self, guest: &Guest) -> Result<(), Failure> {
        match &self.instead {
            Instead::Pending(subject) => subject::load(subject, guest).await,
            other => Err(Failure::Ours(format!(
                "check `{}` has no module to load ({other:?}): run it by `vexfs-images try`",
                self.check.name
            ))),
        }
    }

    /// Resolves when somebody listens and the kernel has said that nothing later can be trusted, with
    /// what it said; never for a lab nobody listens to.
    pub fn fatal(&self) -> impl Future<Output = String> + Send + 'static {
        let fatal = self.live.as_ref().map(live::Live::fatal);
        async move {
            match fatal {
                Some(fatal) => fatal.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Another step of the story begins; the one before has come to its end.
    pub fn step(&mut self, name: &'static str) {
        self.steps.push((name, Instant::now()));
    }

    /// The steps so far, with what each took; the last one ends now.
    pub fn steps(&self) -> Vec<(&'static str, Duration)> {
        let ends = self.steps.iter().skip(1).map(|(_, at)| *at);
        let steps = self.steps.iter().zip(ends.chain([Instant::now()]));
        steps
            .map(|((name, from), to)| (*name, to.saturating_duration_since(*from)))
            .collect()
    }

    /// The check.
    pub fn check(&self) -> &'static Check {
        self.check
    }

    /// What is the same for all checks of this run.
    pub fn setup(&self) -> &Arc<Setup> {
        &self.setup
    }

    /// The seed of all randomness in this check's story: fits 32 bits, because fio and stress-ng take
    /// no more. It is in the report, and a rerun gets the same.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The machines so far, also those to come.
    pub fn machines(&self) -> Machines {
        self.machines.clone()
    }

    /// Keeps what was collected when a deadline had passed, and says what hangs; `waited` ends the title.
    pub fn overran(&mut self, title: String, waited: &str, words: LastWords) -> Failure {
        let failure = Failure::Deadline {
            title: match words.culprit() {
                Some(culprit) => format!("{title}: {culprit}{waited}"),
                None => title + waited,
            },
            detail: words.summary(),
        };
        let took = format!("{:.1}", words.took().as_secs_f64());
        self.facts.push(("last-words-s".to_owned(), took));
        self.last_words = Some(words);
        failure
    }

    /// One of many results that a tool in the guest reports; each is a case of its own in the
    /// report, and one that failed fails the check.
    pub fn part(&mut self, name: impl Into<String>, outcome: Outcome) {
        let name = name.into();
        self.parts.push(Part { name, outcome });
    }

    /// How often a check does what it does in this run, by the table in `checks/counts.toml`; the
    /// report says it.
    ///
    /// # Errors
    /// When the table has no such row, or the environment asks for nonsense.
    pub fn count(&mut self, name: &str) -> Result<u64, Failure> {
        let scale = Scale::of_environment().map_err(Failure::Ours)?;
        let count = scale
            .count(name)
            .ok_or_else(|| Failure::Ours(format!("checks/counts.toml has no row `{name}`")))?;
        self.facts
            .push((format!("count-{name}"), count.to_string()));
        Ok(count.times)
    }

    /// Something the report says of this run beside how it ended.
    pub fn fact(&mut self, name: &str, value: impl ToString) {
        self.facts.push((name.to_owned(), value.to_string()));
    }

    /// What figures of this run depend on.
    pub fn fingerprint(&self) -> Fingerprint {
        crate::perf::fingerprint(&self.setup.host, &self.setup.image)
    }

    /// What executes guests here.
    pub fn accelerator(&self) -> Accelerator {
        self.setup.host.accel.chosen
    }

    /// Where what outlives a run is kept.
    pub fn cache(&self) -> &Path {
        &self.setup.layout.cache
    }

    /// What the image says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.setup.image.manifest
    }

    /// The parts so far.
    pub fn take_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    /// How long the check may take on this image's kernel.
    pub(crate) fn deadline(&self) -> Duration {
        self.setup.stretched(self.check.deadline())
    }

    pub(super) fn boot_deadline(&self) -> Duration {
        self.setup.stretched(self.setup.boot_deadline)
    }

    /// How this host keeps up, by what the fork took.
    pub fn pace(&self) -> Pace {
        Pace::of(self.spent.machine)
    }

    /// The log folder of the next machine.
    fn logs(&self) -> PathBuf {
        let number = self.gone + self.machines.lock().machines.len() + 1;
        self.setup
            .layout
            .machine_logs()
            .join(format!("{}-{number}", self.id))
    }

    /// A named moment of a story. Nothing happens here unless a test breaks something.
    ///
    /// # Errors
    /// When the breaking itself fails: the test would prove nothing.
    pub async fn point(&self, name: &str, guest: &Guest) -> Result<(), Failure> {
        self.setup.watch.tell(Stage::Point(name), guest.machine());
        for broken in self.setup.breaks.iter().filter(|b| b.point == name) {
            let could_not = |failure: Failure| match failure {
                Failure::Died(death) => Failure::Died(death),
                // What hangs, hangs as it was meant to.
                overrun if overrun.is_overrun() => overrun,
                // So does what cuts us off from the guest.
                Failure::Agent { doing, source } if source.is_disconnect() => {
                    Failure::Agent { doing, source }
                }
                host if host.whose() == Whose::Host => host,
                other => Failure::Ours(format!("the test could not break anything: {other}")),
            };
            for (from, to) in &broken.files {
                guest.put(from, to).await.map_err(could_not)?;
            }
            guest.sh(broken.script).await.map_err(could_not)?;
        }
        Ok(())
    }

    /// Whether a test breaks something here that no script in the guest can: who is invited, and
    /// which secret is the wrong one.
    pub(crate) fn breaks(&self, point: &str) -> bool {
        self.setup.breaks.iter().any(|broken| broken.point == point)
    }

    /// What is said about the module under test.
    pub fn source(&self) -> &SourceConfig {
        &self.setup.image.manifest.source.config
    }

    /// The version the image claims.
    pub fn vexfs_version(&self) -> &str {
        &self.setup.image.manifest.vexfs_version
    }

    /// SHA-256 of the image's disk as it is now, without any shortcut.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn image_digest(&self) -> Result<String, Failure> {
        let path = self.setup.image.disk.clone();
        let unreadable = |e: &dyn std::fmt::Display| {
            Failure::Host(format!("cannot read the image {}: {e}", path.display()))
        };
        let file = path.clone();
        tokio::task::spawn_blocking(move || keeper::digest::file(&file))
            .await
            .map_err(|e| unreadable(&e))?
            .map_err(|e| unreadable(&e))
    }

    /// Lines of the build's logs that look like a secret, with file and line.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub fn build_log_secrets(&self) -> Result<String, Failure> {
        crate::secret_scan::logs(&self.setup.layout.logs())
            .map_err(|e| Failure::Host(format!("cannot scan the build's logs: {e}")))
    }

    /// Collects what the machines can tell while they live. Nothing of the story is left.
    pub async fn finish(self) -> Remains {
        let Lab {
            setup,
            check,
            settled,
            leaks,
            seen,
            machines,
            exhibits,
            facts,
            last_words,
            seed,
            live,
            ..
        } = self;
        drop((settled, live));
        let machines = std::mem::take(&mut machines.lock().machines);
        let mut remains = Remains::new(&setup, check.expectations(), leaks, last_words);
        remains.exhibits = exhibits;
        remains.add_facts(facts);
        remains.add_facts([("seed".to_owned(), seed.to_string())]);
        remains.collect(seen, machines).await;
        remains
    }
}

/// A seed; what the system cannot draw, the clock can.
fn draw() -> u64 {
    let clock = || {
        std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .subsec_nanos()
    };
    u64::from(getrandom::u32().unwrap_or_else(|_| clock()) >> 1)
}

/// The lines that only one of two texts has, `-` for the first and `+` for the second.
pub fn line_difference(first: &str, second: &str) -> String {
    let only = |sign: char, a: &str, b: &str| -> String {
        let theirs: std::collections::HashSet<&str> = b.lines().collect();
        a.lines()
            .filter(|line| !theirs.contains(line))
            .map(|line| format!("{sign} {line}\n"))
            .collect()
    };
    only('-', first, second) + &only('+', second, first)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_difference_names_what_only_one_has() {
        assert_eq!(super::line_difference("a\nb\nc", "a\nx\nc"), "- b\n+ x\n");
        assert_eq!(super::line_difference("a\n", "a\n"), "");
    }
}
