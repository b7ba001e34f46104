//! A running machine, as its owner holds it.

use std::any::Any;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent_client::{Client, Deadline};
use agent_protocol::{AGENT_PORT, Secret};
use clock::{Clock, Passed, bound};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::arguments::VsockWire;
use super::attach::Attached;
use super::coroner::{Coroner, Shared, take};
use super::start::{Launch, Up};
use super::vsock::Dialer;
use super::{
    Age, Console, Death, MachineError, MachineEvent, MachineSpec, Qmp, QmpError, RunDir, Stream,
};

/// How many events a slow subscriber may lag behind.
const EVENTS: usize = 4096;

/// How long one attempt to connect to a port of the guest may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long the threads of a machine whose plug is pulled may take to come to a stop, by the wall: its own
/// clock stands still then. Milliseconds; on a busy host what is under way ends when it gets its turn.
const STOPPING: Duration = Duration::from_secs(60);

/// A connection that broke is explained by the machine's end, if that comes within this time.
const EXPLANATION: Duration = Duration::from_secs(3);

/// How soon the next attempt follows one that was refused. Before the guest has set up its vsock
/// device none is: it waits.
const AGAIN: Duration = Duration::from_millis(2);

/// One QEMU process and everything attached to it. Dropping it kills it and removes its sockets,
/// overlay and secret; its logs stay.
#[derive(Debug)]
pub struct Machine {
    spec: MachineSpec,
    command_line: Vec<String>,
    secret: Option<Secret>,
    start: Instant,
    clock: Clock,
    console: Console,
    qmp: Qmp,
    pub(super) link: Option<Link>,
    events: broadcast::Sender<MachineEvent>,
    death: watch::Receiver<Option<Death>>,
    resets: Arc<AtomicU32>,
    tasks: Vec<JoinHandle<()>>,
    qemu: Shared,
    pub(super) daemon: Shared,
    pid: u32,
    run: Arc<RunDir>,
    /// Locks and the like that others must not get before this machine has gone.
    held: Vec<Box<dyn Any + Send + Sync>>,
}

/// The vsock device: how it is attached and how it is reached.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) wire: VsockWire,
    pub(super) dialer: Dialer,
}

/// What [`Machine::assemble`] puts together.
pub(crate) struct Parts {
    pub(crate) spec: MachineSpec,
    pub(crate) run: Arc<RunDir>,
    pub(crate) secret: Option<Secret>,
    pub(crate) command_line: Vec<String>,
    pub(crate) start: Instant,
    pub(crate) up: Up,
    pub(crate) attached: Option<Attached>,
}

impl Machine {
    /// Boots a machine: returns when QEMU runs, which is long before the guest answers.
    ///
    /// # Errors
    /// [`MachineError::Unmet`] with all that is missing, [`MachineError::NoQemu`], or
    /// [`MachineError::EndedEarly`] with QEMU's own words.
    pub async fn boot(spec: MachineSpec) -> Result<Machine, MachineError> {
        Launch::boot(spec).await?.start().await
    }

    /// Boots again from the disks as this machine left them, with a new secret; for what must
    /// survive a power-off. A machine that still runs is killed first, like by pulling the plug.
    /// Logs go to `log_dir`.
    ///
    /// # Errors
    /// Those of [`Machine::boot`].
    pub async fn boot_again(self, log_dir: &Path) -> Result<Machine, MachineError> {
        let run = self.run.clone();
        let spec = MachineSpec {
            log_dir: log_dir.to_owned(),
            ..self.spec.clone()
        };
        self.kill().await?;
        std::fs::create_dir_all(log_dir).map_err(MachineError::io(format!(
            "cannot make {}",
            log_dir.display()
        )))?;
        Launch::boot_in(spec, run)?.start().await
    }

    pub(crate) fn assemble(parts: Parts) -> Result<Machine, MachineError> {
        let Up {
            qemu,
            console,
            qmp,
            qmp_events,
        } = parts.up;
        let (events, _) = broadcast::channel(EVENTS);
        let (death, died) = watch::channel(None);
        let log = parts.spec.log_dir.join("console.log");
        let console = Console::capture(console, &log, parts.start, events.clone())
            .map_err(MachineError::io(format!("cannot create {}", log.display())))?;
        let (link, daemon) = match parts.attached {
            Some(Attached {
                wire,
                dialer,
                daemon,
                ..
            }) => (Some(Link { wire, dialer }), daemon),
            None => (None, None),
        };
        let coroner = Coroner {
            events: events.clone(),
            death,
            console: console.clone(),
            qmp: qmp.clone(),
            last_shutdown: Arc::default(),
            resets: Arc::default(),
        };
        let resets = coroner.resets.clone();
        let pid = qemu.pid();
        let qemu: Shared = Arc::new(Mutex::new(Some(qemu)));
        let (daemon, daemon_log) = daemon.unzip();
        let daemon_pid = daemon.as_ref().map(keeper::Child::pid);
        let clock = Clock::of([pid].into_iter().chain(daemon_pid).collect(), parts.start);
        qmp.follow(clock.clone());
        let daemon: Shared = Arc::new(Mutex::new(daemon));
        let told = tokio::spawn(coroner.clone().follow(qmp_events));
        let mut tasks = vec![tokio::spawn(
            coroner.clone().wait_for_qemu(qemu.clone(), told),
        )];
        tasks.push(tokio::spawn(clock.clone().watch()));
        if let Some(log) = daemon_log {
            tasks.push(tokio::spawn(coroner.watch_daemon(daemon.clone(), log)));
        }
        Ok(Machine {
            spec: parts.spec,
            command_line: parts.command_line,
            secret: parts.secret,
            start: parts.start,
            clock,
            console,
            qmp,
            link,
            events,
            death: died,
            resets,
            tasks,
            qemu,
            daemon,
            pid,
            run: parts.run,
            held: Vec::new(),
        })
    }

    /// Ten hex digits that name this machine in results and logs.
    pub fn id(&self) -> &str {
        self.run.id()
    }

    /// What it was made of.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// QEMU's arguments, without the program. Holds no secret.
    pub fn command_line(&self) -> &[String] {
        &self.command_line
    }

    /// Keeps `thing` until the machine has gone, for example a lock.
    pub fn hold(&mut self, thing: impl Any + Send + Sync) {
        self.held.push(Box::new(thing));
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process id of the daemon that carries its vsock, if one does.
    pub fn vsock_pid(&self) -> Option<u32> {
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        daemon.as_ref().map(keeper::Child::pid)
    }

    /// Time since QEMU was started.
    pub fn age(&self) -> Age {
        self.start.elapsed()
    }

    /// By which waits for it are counted: it stands still while the host does not run the machine.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The secret its agent was given, if it was invited.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Its serial console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Its monitor.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Its private directory.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// The system disk's overlay: what the guest has written. It may only be copied once QEMU has
    /// ended or is stopped.
    pub fn overlay(&self) -> std::path::PathBuf {
        self.run.path().join(super::arguments::files::OVERLAY)
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<MachineEvent> {
        self.events.subscribe()
    }

    /// Resolves when the machine is dead: as soon as the guest's kernel panics, a disk fails on the
    /// host, or QEMU ends. Made for racing any wait against it; it does not borrow the machine.
    pub fn died(&self) -> impl Future<Output = Death> + Send + 'static {
        let mut death = self.death.clone();
        async move {
            match death.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(death)) => death.clone(),
                _ => Death::Exited {
                    status: None,
                    reason: None,
                },
            }
        }
    }

    /// How it died, if it has.
    pub fn death(&self) -> Option<Death> {
        self.death.borrow().clone()
    }

    /// The machine's death instead of an error that may only follow from it, if that comes soon.
    pub async fn explained(&self, error: MachineError) -> MachineError {
        let follows = match &error {
            MachineError::Agent(error) => error.is_disconnect(),
            // QEMU refuses what needs a daemon that is no more.
            MachineError::Qmp(error) => {
                matches!(error, QmpError::Gone { .. } | QmpError::Refused { .. })
            }
            _ => false,
        };
        if follows && let Ok(death) = self.clock.timeout(EXPLANATION, self.died()).await {
            return MachineError::Died(death);
        }
        error
    }

    /// How often the guest has reset the machine so far: reboots, asked for or not, and triple
    /// faults. A firmware may do it too before it boots anything.
    pub fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Waits for the agent and shakes hands with it, all within `within`.
    ///
    /// # Errors
    /// Those of [`Machine::wait_for_port`]; [`MachineError::Agent`] when the handshake fails or
    /// the machine was not invited.
    pub async fn agent(&self, within: Duration) -> Result<Client, MachineError> {
        let deadline = Deadline::within(within);
        let uninvited = || MachineError::Uninvited("the machine was not invited".into());
        let secret = self.secret.as_ref().ok_or_else(uninvited)?;
        let stream = self.wait_for_port(AGENT_PORT, within).await?;
        tokio::select! {
            biased;
            death = self.died() => Err(MachineError::Died(death)),
            client = Client::connect_by(self.clock.clone(), stream, secret, deadline) => {
                client.map_err(MachineError::Agent)
            }
        }
    }

    /// Connects to a vsock port of the guest, once.
    ///
    /// # Errors
    /// [`MachineError::NoAnswer`] when nobody listens there (yet), [`MachineError::Died`] when the
    /// machine is dead.
    pub async fn connect(&self, port: u32) -> Result<Box<dyn Stream>, MachineError> {
        self.wait_for_port(port, Duration::ZERO).await
    }

    /// Connects to a vsock port of the guest, trying again until somebody listens there.
    ///
    /// # Errors
    /// [`MachineError::NoAnswer`] when nobody does within `within`, [`MachineError::Died`] as soon
    /// as the machine is dead.
    pub async fn wait_for_port(
        &self,
        port: u32,
        within: Duration,
    ) -> Result<Box<dyn Stream>, MachineError> {
        let Some(Link { dialer, .. }) = &self.link else {
            let why = "the machine has no vsock device".into();
            let lost = Duration::ZERO;
            let late = Passed { within, lost };
            return Err(MachineError::NoAnswer { port, late, why });
        };
        let attempts = async {
            let begin = tokio::time::Instant::now();
            loop {
                // The clock ends it first. The last one ends in time; where there is no time to wait, one may
                // take what it takes.
                let left = self.clock.left(begin, within);
                let patience = if within.is_zero() {
                    ATTEMPT
                } else {
                    ATTEMPT.min(left)
                };
                let attempt = dialer.connect(port, bound(ATTEMPT) + ATTEMPT);
                let why = match self.clock.timeout(patience, attempt).await {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "the guest does not answer".to_owned(),
                };
                if self.clock.left(begin, within).is_zero() {
                    let late = self.clock.passed(begin, within);
                    return Err(MachineError::NoAnswer { port, late, why });
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            biased;
            death = self.died() => Err(MachineError::Died(death)),
            stream = attempts => stream,
        }
    }

    /// Injects a non-maskable interrupt into every virtual CPU. With `unknown_nmi_panic` set, as in
    /// an invited guest, the kernel answers with a panic and its trace.
    ///
    /// # Errors
    /// Those of [`Qmp::execute`].
    pub async fn inject_nmi(&self) -> Result<(), QmpError> {
        self.qmp.execute("inject-nmi", json!({})).await.map(drop)
    }

    /// The registers of all virtual CPUs, as QEMU prints them.
    ///
    /// # Errors
    /// Those of [`Qmp::execute`].
    pub async fn registers(&self) -> Result<String, QmpError> {
        self.qmp.human("info registers -a").await
    }

    /// Writes guest memory to `path` in the compressed format that crash(8) reads. Waits at most two
    /// minutes.
    ///
    /// # Errors
    /// Those of [`Qmp::execute`].
    pub async fn dump_memory(&self, path: &Path) -> Result<(), QmpError> {
        let to = format!("file:{}", path.display());
        let arguments = json!({"paging": false, "protocol": to, "format": "kdump-zlib"});
        let patience = Duration::from_secs(120);
        self.qmp
            .execute_within("dump-guest-memory", arguments, patience)
            .await
            .map(drop)
    }

    /// Presses the power button. A guest in order then shuts down, seen by [`Machine::died`].
    ///
    /// # Errors
    /// Those of [`Qmp::execute`].
    pub async fn powerdown(&self) -> Result<(), QmpError> {
        self.qmp
            .execute("system_powerdown", json!({}))
            .await
            .map(drop)
    }

    /// Asks QEMU to end, and waits until it has, with its disks flushed. The guest is not asked.
    ///
    /// # Errors
    /// Those of [`Qmp::execute`]; that QEMU has ended already is no error.
    pub async fn quit(&self) -> Result<Death, QmpError> {
        match self.qmp.execute("quit", json!({})).await {
            Ok(_) | Err(QmpError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
        self.console.ended().await;
        Ok(self.died().await)
    }

    /// Pulls the plug: QEMU is killed on the spot and does nothing any more. Returns when it has gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn pull_plug(&self) -> Result<Death, MachineError> {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(self.pid.cast_signed());
        let tell = |signal| match kill(pid, signal) {
            // It may have ended by itself a moment ago.
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(MachineError::io("cannot kill QEMU")(error.into())),
        };
        // SIGKILL would cut a write(2) under way in half; stopped threads have ended theirs.
        tell(Signal::SIGSTOP)?;
        let begin = Instant::now();
        while !stopped(self.pid) && begin.elapsed() < STOPPING {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tell(Signal::SIGKILL)?;
        let death = self.died().await;
        self.console.ended().await;
        Ok(death)
    }

    /// Kills it and waits until nothing of it is left but its logs.
    ///
    /// # Errors
    /// When its processes cannot be waited for.
    pub async fn kill(self) -> Result<(), MachineError> {
        // Both at once: each end is a process more to wait for.
        let end = async |child: Option<keeper::Child>| match child {
            Some(mut child) => child
                .kill()
                .await
                .map_err(MachineError::io("cannot end a machine's process")),
            None => Ok(()),
        };
        let (qemu, daemon) = tokio::join!(end(take(&self.qemu)), end(take(&self.daemon)));
        qemu.and(daemon)?;
        // What is in the console's socket still reaches the log.
        tokio::time::timeout(Duration::from_secs(10), self.console.ended())
            .await
            .unwrap_or_default();
        Ok(())
    }
}

/// Whether all threads of a process are stopped, or it is gone (proc(5), `/proc/PID/stat`).
fn stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        !matches!(state, Some('R' | 'S' | 'D'))
    })
}

impl Drop for Machine {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        drop(take(&self.qemu));
        drop(take(&self.daemon));
    }
}
