//! Restoring a snapshot into a machine of its own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_client::Client;
use clock::Tries;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast;

use super::manifest::files;
use super::ram::{self, Zeros};
use super::{Snapshot, SnapshotError, Stage, persists};
use crate::arguments::{Ram, files as places, scratch_file};
use crate::{
    DiskFormat, ExtraDisk, Launch, Machine, MachineError, MachineEvent, MachineSpec, RunDir,
    VsockBackend, admission, overlay, room,
};

/// How long a fork may take until its agent answers, at least; a third of a second on an idle host.
/// Where the boot of what is forked took long (emulation inside emulation, sanitisers), half of that.
const COMING_TO_LIFE: Duration = Duration::from_secs(30);

/// Bytes of fresh randomness for each fork: without them, all would draw the same numbers.
const ENTROPY: usize = 64;

/// A machine restored from a snapshot, with an agent that answers.
pub struct Fork {
    /// The machine; its id names the fork in results.
    pub machine: Machine,
    /// A connection to its agent.
    pub agent: Client,
    /// How long its parts took.
    pub timing: Timing,
    /// What the host did to earlier tries of making it, or what it is a fork of.
    pub troubles: Vec<String>,
}

impl std::fmt::Debug for Fork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fork")
            .field("id", &self.machine.id())
            .finish_non_exhaustive()
    }
}

/// When a fork had got how far, since it was asked for and admitted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// QEMU was up and waited for its state.
    pub qemu: Duration,
    /// Guest memory was copied (zero when it is shared with the snapshot).
    pub memory: Duration,
    /// The guest ran.
    pub running: Duration,
    /// The vsock device was plugged in.
    pub plugged: Duration,
    /// The agent had answered.
    pub answered: Duration,
    /// Clock and random pool were set: the fork was ready.
    pub ready: Duration,
}

impl Snapshot {
    /// Makes a fork called `name`, which leaves its logs in `log_dir`, as soon as this host has room
    /// for it.
    ///
    /// # Errors
    /// [`SnapshotError::State`] when QEMU does not take the state, [`SnapshotError::Machine`] when
    /// it does not start or nobody answers, [`SnapshotError::Fork`] when the agent refuses.
    pub async fn fork(&self, name: &str, log_dir: &Path) -> Result<Fork, SnapshotError> {
        self.fork_on(name, log_dir, None).await
    }

    /// As [`Snapshot::fork`], with another disk in place of the one of the same serial. The guest
    /// must not have looked into that before it was frozen, and they must be of the same size.
    ///
    /// # Errors
    /// Those of [`Snapshot::fork`].
    pub async fn fork_on(
        &self,
        name: &str,
        log_dir: &Path,
        disk: Option<ExtraDisk>,
    ) -> Result<Fork, SnapshotError> {
        let mut spec = MachineSpec {
            name: name.into(),
            log_dir: log_dir.into(),
            ..self.manifest.spec.clone()
        };
        for own in &mut spec.disks {
            if let Some(other) = disk.as_ref().filter(|disk| disk.serial == own.serial) {
                *own = other.clone();
            }
        }
        std::fs::create_dir_all(log_dir).map_err(SnapshotError::io(format!(
            "cannot make {}",
            log_dir.display()
        )))?;
        let ticket = admission::enter(&spec)
            .await
            .map_err(SnapshotError::io("cannot wait for room on this host"))?;
        // Nothing has been asked of the guest yet.
        let mut tries = Tries::default();
        let (mut fork, troubles) = loop {
            match self.fork_once(spec.clone()).await {
                Err(error) if tries.again(error.whose(), &error) => {}
                result => break persists(result, tries)?,
            }
        };
        let troubles = troubles.into_iter().map(|told| format!("forking: {told}"));
        fork.troubles = self.troubles.iter().cloned().chain(troubles).collect();
        fork.machine.hold((ticket, self.lease.clone()));
        Ok(fork)
    }

    async fn fork_once(&self, spec: MachineSpec) -> Result<Fork, SnapshotError> {
        let begin = Instant::now();
        let patience = COMING_TO_LIFE.max(Duration::from_secs_f64(self.manifest.took / 2.0));
        let mut timing = Timing::default();
        // Only a daemon's device needs memory that another process can see; else forks share the snapshot's.
        room::ask_for(&spec, spec.vsock == Some(VsockBackend::User)).await?;
        let run = Arc::new(RunDir::create().await?);
        self.disks(&run)
            .map_err(SnapshotError::io("cannot make the disks of a fork"))?;
        let (ram, copying) = self.memory(&spec, &run)?;
        let (state, feed) =
            io::pipe().map_err(SnapshotError::io("cannot make a pipe for the state"))?;
        let launch = Launch {
            spec,
            run,
            ram,
            secret: self.manifest.spec.invite.then(|| self.secret.clone()),
            incoming: Some(OwnedFd::from(state)),
        };
        let machine = launch.start().await?;
        timing.qemu = begin.elapsed();
        self.watch.tell(Stage::Fork, &machine);

        if let Err(error) = machine.begin_restoring().await {
            return Err(machine.explained(error).await.into());
        }
        // QEMU reads the state only now, when memory is complete: devices look into it.
        let mut events = machine.events();
        timing.memory = match copying {
            Some(copying) => copying.await.map_err(|error| SnapshotError::Io {
                what: "cannot copy guest memory".into(),
                source: error.into(),
            })??,
            None => Duration::ZERO,
        };
        let feeding = self.feed(OwnedFd::from(feed));
        let clock = machine.clock();
        tokio::select! {
            running = clock.timeout(patience, until_running(&mut events)) => match running {
                Ok(running) => running?,
                Err(late) => return Err(restored(&machine, format!("not done {late}"))),
            },
            error = async { match feeding.await { Ok(()) => std::future::pending().await, Err(e) => e } } => {
                return Err(restored(&machine, error.to_string()));
            }
            death = machine.died() => return Err(restored(&machine, death.to_string())),
        }
        timing.running = begin.elapsed();
        if let Err(error) = machine.plug_vsock().await {
            return Err(machine.explained(error).await.into());
        }
        timing.plugged = begin.elapsed();
        let agent = machine.agent(patience).await.map_err(silent)?;
        timing.answered = begin.elapsed();
        tokio::select! {
            biased;
            death = machine.died() => return Err(MachineError::Died(death).into()),
            arrived = arrive(&agent, patience) => arrived?,
        }
        timing.ready = begin.elapsed();
        Ok(Fork {
            machine,
            agent,
            timing,
            troubles: Vec::new(),
        })
    }

    fn disks(&self, run: &RunDir) -> io::Result<()> {
        let frozen = self.dir.join(files::OVERLAY);
        if frozen.exists() {
            let (_, size) = overlay::inspect(&frozen)?;
            let own = run.path().join(places::OVERLAY);
            overlay::create(&own, &frozen, DiskFormat::Qcow2, size)?;
        }
        let vars = self.dir.join(files::UEFI_VARS);
        if vars.exists() {
            std::fs::copy(vars, run.path().join(places::UEFI_VARS))?;
        }
        // Those of a machine that was frozen in the middle of a check.
        for disk in &self.manifest.spec.disks {
            let frozen = scratch_file(&self.dir, &disk.serial);
            if frozen.exists() {
                ram::copy_file(&frozen, &scratch_file(run.path(), &disk.serial))?;
            }
        }
        Ok(())
    }

    /// Where the fork's memory lives, and the copying under way if it needs a copy.
    #[allow(clippy::type_complexity)]
    fn memory(
        &self,
        spec: &MachineSpec,
        run: &RunDir,
    ) -> Result<
        (
            Ram,
            Option<tokio::task::JoinHandle<Result<Duration, SnapshotError>>>,
        ),
        SnapshotError,
    > {
        let frozen = self.dir.join(files::RAM);
        if spec.vsock != Some(VsockBackend::User) {
            // Nobody but QEMU has to see this memory: what it does not write, all forks share.
            return Ok((
                Ram::File {
                    path: frozen,
                    shared: false,
                },
                None,
            ));
        }
        let path = run.ram_file();
        let what = format!("cannot copy {} to {}", frozen.display(), path.display());
        let open = || -> io::Result<(File, File)> {
            let from = File::open(&frozen)?;
            let to = ram::create(&path, from.metadata()?.len())?;
            Ok((from, to))
        };
        let (from, to) = open().map_err(SnapshotError::io(what.clone()))?;
        let copying = tokio::task::spawn_blocking(move || {
            let begin = Instant::now();
            // QEMU starts meanwhile: on two processors a second thread would take from it what it
            // saves here.
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = (processors / 2).clamp(1, 4);
            ram::copy(&from, &to, Zeros::Copy, threads).map_err(SnapshotError::io(what))?;
            Ok(begin.elapsed())
        });
        Ok((Ram::File { path, shared: true }, Some(copying)))
    }

    /// Hands the state to QEMU.
    async fn feed(&self, to: OwnedFd) -> io::Result<()> {
        let state = std::fs::read(self.dir.join(files::STATE))?;
        let mut pipe = tokio::net::unix::pipe::Sender::from_owned_fd(to)?;
        pipe.write_all(&state).await
    }
}

/// That nobody answers is not held against a guest that answered before it was frozen; that its kernel
/// panics is.
fn silent(error: MachineError) -> SnapshotError {
    match error {
        MachineError::NoAnswer { .. } | MachineError::Agent(_) => SnapshotError::Silent(error),
        other => other.into(),
    }
}

/// Waits for QEMU's word that the guest runs.
async fn until_running(
    events: &mut broadcast::Receiver<MachineEvent>,
) -> Result<(), SnapshotError> {
    loop {
        match events.recv().await {
            Ok(MachineEvent::Other { name, .. }) if name == "RESUME" => return Ok(()),
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            // The machine's death says more.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn restored(machine: &Machine, why: String) -> SnapshotError {
    let said = crate::start::tail(&machine.spec().log_dir.join("qemu.log"));
    let why = if said.is_empty() {
        why
    } else {
        format!("{why}; QEMU says:\n{said}")
    };
    SnapshotError::State {
        done: "restored",
        why,
    }
}

/// What a guest has to be told that was asleep: what time it is, and that it is not the only one
/// that woke up from this memory.
async fn arrive(agent: &Client, patience: Duration) -> Result<(), SnapshotError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut entropy = vec![0; ENTROPY];
    getrandom::fill(&mut entropy)
        .map_err(|error| SnapshotError::io("cannot draw randomness")(io::Error::other(error)))?;
    let failed = |doing| move |source| SnapshotError::Fork { doing, source };
    tokio::try_join!(
        async {
            agent
                .set_clock(now, patience)
                .await
                .map_err(failed("set its clock"))
        },
        async {
            agent
                .add_entropy(entropy, patience)
                .await
                .map_err(failed("stir its random pool"))
        },
    )?;
    Ok(())
}
