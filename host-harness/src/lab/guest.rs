//! A guest as a story sees it: something to run programs on, with a disk to make a file system on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_client::{AgentError, Client, ExecSpec, Output, Secret};
use agent_protocol::AGENT_PORT;
use agent_protocol::message::KmsgRecord;
use clock::{Whose, waited};
use machine::{Machine, MachineError};
use tokio::sync::{Mutex, OnceCell};

use super::{Failure, Lab};

/// How long the handshake and the first answers may take once somebody accepts connections.
pub const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// The kernel's id of a boot, random(4): a UUID and a line feed.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_ID_BYTES: u64 = 64;

/// How long an orderly power-off may take under emulation.
const POWER_OFF: Duration = Duration::from_secs(60);

/// A running guest whose agent answers. Clones are the same guest.
#[derive(Clone)]
pub struct Guest(Arc<Inner>);

struct Inner {
    machine: Arc<Machine>,
    client: Client,
    boot_id: OnceCell<String>,
    patience: Duration,
    resets_before: u32,
    powered_off: AtomicBool,
    tools: AtomicBool,
    mark: OnceCell<u64>,
    kernel_log: Mutex<Vec<KmsgRecord>>,
    notes: Mutex<Vec<String>>,
}

impl Guest {
    /// Waits for the agent of a machine and gets to know its guest. `patience` is the most any
    /// single request may take.
    ///
    /// # Errors
    /// When the machine dies or nobody answers, with the console's end.
    pub async fn meet(
        machine: Arc<Machine>,
        within: Duration,
        patience: Duration,
    ) -> Result<Guest, Failure> {
        Guest::meet_within(machine, (within, FIRST_ANSWER), patience).await
    }

    /// The same, with what the handshake may take once somebody accepts connections.
    ///
    /// # Errors
    /// As [`Guest::meet`].
    pub async fn meet_within(
        machine: Arc<Machine>,
        (within, answer): (Duration, Duration),
        patience: Duration,
    ) -> Result<Guest, Failure> {
        let ends = || format!("the console ends with:\n{}", machine.console().tail(30));
        let no_boot = |error: MachineError| match error {
            MachineError::Died(death) if death.whose() == Whose::Guest => {
                Failure::check("boot", format!("the image does not boot: {death}"), ends())
            }
            MachineError::NoAnswer { late, .. } => Failure::check(
                "boot",
                format!("the image does not boot: no answer from the agent {late}"),
                ends(),
            ),
            other => other.into(),
        };
        let stream = machine
            .wait_for_port(AGENT_PORT, within)
            .await
            .map_err(no_boot)?;
        let secret = machine
            .secret()
            .ok_or_else(|| Failure::Ours("an uninvited machine has no agent".to_owned()))?;
        let secret = Secret::from_bytes(*secret.bytes());
        let clock = machine.clock().clone();
        let client = match Client::connect_by(clock, stream, &secret, answer).await {
            Ok(client) => client,
            Err(source) => {
                return Err(match machine.explained(MachineError::Agent(source)).await {
                    MachineError::Agent(source) => Failure::Agent {
                        doing: "shake hands with the agent".to_owned(),
                        source,
                    },
                    other => other.into(),
                });
            }
        };
        Guest::adopt(machine, client, patience).await
    }

    /// A guest whose agent answers already. `patience` is the most any single request may take.
    ///
    /// # Errors
    /// When it does not even tell its boot id.
    pub async fn adopt(
        machine: Arc<Machine>,
        client: Client,
        patience: Duration,
    ) -> Result<Guest, Failure> {
        let guest = Guest::new(machine, client, patience);
        guest.get_to_know().await?;
        Ok(guest)
    }

    /// The same, not asked for anything yet: [`Guest::get_to_know`] comes before anybody wants its boot id.
    pub(super) fn new(machine: Arc<Machine>, client: Client, patience: Duration) -> Guest {
        Guest(Arc::new(Inner {
            resets_before: machine.resets(),
            powered_off: AtomicBool::new(false),
            tools: AtomicBool::new(false),
            machine,
            client,
            boot_id: OnceCell::new(),
            patience,
            mark: OnceCell::new(),
            kernel_log: Mutex::default(),
            notes: Mutex::default(),
        }))
    }

    /// Learns which boot this is.
    ///
    /// # Errors
    /// When the guest does not even tell its boot id.
    pub(super) async fn get_to_know(&self) -> Result<(), Failure> {
        // Not `info`: its facts cost a fork that has just woken up a tenth of a second.
        let ask = || async {
            let id = self
                .0
                .client
                .get_file(BOOT_ID, BOOT_ID_BYTES, FIRST_ANSWER)
                .await?;
            Ok(String::from_utf8_lossy(&id.bytes).trim().to_owned())
        };
        let learnt = self.0.boot_id.get_or_try_init(ask).await;
        learnt.map(drop).map_err(|source| Failure::Agent {
            doing: format!("read {BOOT_ID}"),
            source,
        })
    }

    /// The kernel's id of this boot (`/proc/sys/kernel/random/boot_id`); empty until it is known.
    pub fn boot_id(&self) -> &str {
        self.0.boot_id.get().map_or("", String::as_str)
    }

    /// Whether the story has shut it down itself, in good order.
    pub(super) fn powered_off(&self) -> bool {
        self.0.powered_off.load(Ordering::Relaxed)
    }

    /// Remembers whether the tools disk is mounted, and says whether it was.
    pub(super) fn tools_mounted(&self, now: bool) -> bool {
        self.0.tools.swap(now, Ordering::Relaxed)
    }

    /// Whether it has reset its machine since its agent answered.
    pub(super) fn has_reset(&self) -> bool {
        self.0.machine.resets() > self.0.resets_before
    }

    /// The machine under it.
    pub fn machine(&self) -> &Machine {
        &self.0.machine
    }

    /// The agent's client, for the few that need more than programs.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Races a request against the machine's death, which explains more than a broken connection.
    pub(crate) async fn ask<T>(
        &self,
        doing: &str,
        request: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, Failure> {
        let died = self.0.machine.died();
        let source = tokio::select! {
            biased;
            result = request => match result {
                Ok(value) => return Ok(value),
                Err(source) => source,
            },
            death = died => return Err(Failure::Died(death)),
        };
        let error = MachineError::Agent(source);
        Err(match self.0.machine.explained(error).await {
            MachineError::Agent(source) => Failure::Agent {
                doing: doing.to_owned(),
                source,
            },
            other => other.into(),
        })
    }

    /// Runs a program as root and returns what became of it, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be run, or the guest dies under it.
    pub async fn exec<A: Into<String>>(
        &self,
        argv: impl IntoIterator<Item = A>,
    ) -> Result<Output, Failure> {
        let argv = words(argv);
        self.exec_spec(&argv.join(" "), ExecSpec::new(argv.clone()))
            .await
    }

    /// As [`Guest::exec`], as another user.
    ///
    /// # Errors
    /// As [`Guest::exec`].
    pub async fn exec_as<A: Into<String>>(
        &self,
        user: &str,
        argv: impl IntoIterator<Item = A>,
    ) -> Result<Output, Failure> {
        let argv = words(argv);
        self.exec_spec(&argv.join(" "), ExecSpec::new(argv.clone()).user(user))
            .await
    }

    async fn exec_spec(&self, line: &str, spec: ExecSpec) -> Result<Output, Failure> {
        let line = first_line(line);
        self.ask(
            &format!("run `{line}`"),
            self.0.client.exec(spec, self.0.patience),
        )
        .await
    }

    /// Runs a script by `/bin/sh -eu` as root and returns its standard output.
    ///
    /// # Errors
    /// As [`Guest::exec`], and when the script ends with anything but success.
    pub async fn sh(&self, script: &str) -> Result<String, Failure> {
        let output = self.exec(["/bin/sh", "-euc", script]).await?;
        if output.success() {
            return Ok(output.stdout_text());
        }
        let script = script
            .split('\n')
            .map(str::trim)
            .collect::<Vec<_>>()
            .join("\n");
        let said = output.stderr_text();
        let said = match said.trim_end().lines().last() {
            Some(last) => format!(": {last}"),
            None => String::new(),
        };
        Err(Failure::check(
            "command",
            format!("`{}` {}{said}", first_line(&script), output.ending()),
            format!(
                "$ {script}\n{}{}",
                output.stdout_text(),
                output.stderr_text()
            ),
        ))
    }

    /// Puts a file of the host into the guest, executable for root.
    ///
    /// # Errors
    /// When it cannot be read here or written there.
    pub async fn put(&self, from: &Path, to: &str) -> Result<(), Failure> {
        self.put_with_mode(from, to, 0o700).await
    }

    /// Puts a file of the host into the guest.
    ///
    /// # Errors
    /// When it cannot be read here or written there.
    pub(super) async fn put_with_mode(
        &self,
        from: &Path,
        to: &str,
        mode: u32,
    ) -> Result<(), Failure> {
        let content = std::fs::read(from)
            .map_err(|e| Failure::Host(format!("cannot read {}: {e}", from.display())))?;
        let put = self.0.client.put_file(to, mode, &content, self.0.patience);
        self.ask(&format!("put {to}"), put).await
    }

    /// Puts a file with this content into the guest, executable for root.
    ///
    /// # Errors
    /// When it cannot be written there.
    pub async fn put_bytes(&self, content: &[u8], to: &str) -> Result<(), Failure> {
        let put = self.0.client.put_file(to, 0o700, content, self.0.patience);
        self.ask(&format!("put {to}"), put).await
    }

    /// Waits until systemd is done with the boot, whatever it thinks of it.
    ///
    /// # Errors
    /// As [`Guest::exec`].
    pub async fn settle(&self) -> Result<(), Failure> {
        self.exec(["systemctl", "is-system-running", "--wait"])
            .await
            .map(drop)
    }

    /// From here on the kernel log counts for the check.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub(super) async fn mark(&self) -> Result<(), Failure> {
        let mark = self.kernel_log_mark().await?;
        self.0.mark.get_or_init(|| async { mark }).await;
        Ok(())
    }

    /// Where the kernel log ends now.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub async fn kernel_log_mark(&self) -> Result<u64, Failure> {
        self.ask(
            "mark the kernel log",
            self.0.client.kmsg_mark(self.0.patience),
        )
        .await
    }

    /// What the kernel itself said since a mark; user space's lines in the log are left out.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub async fn kernel_log_since(&self, mark: u64) -> Result<Vec<KmsgRecord>, Failure> {
        Ok(self
            .whole_log_since(mark)
            .await?
            .into_iter()
            .filter(KmsgRecord::is_kernel)
            .collect())
    }

    /// The kernel log since a mark, with what user space wrote into it.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub async fn whole_log_since(&self, mark: u64) -> Result<Vec<KmsgRecord>, Failure> {
        let log = self.0.client.kmsg_since(mark, self.0.patience);
        Ok(self.ask("read the kernel log", log).await?.records)
    }

    /// Fetches the kernel log since the check's mark, while the guest still can.
    pub async fn fetch_kernel_log(&self) -> Result<(), Failure> {
        let log = self.0.client.kmsg_since(self.marked(), FIRST_ANSWER);
        let log = self.ask("read the kernel log", log).await?;
        *self.0.kernel_log.lock().await = log.records;
        Ok(())
    }

    /// Where the check's part of the kernel log begins; 0 when nobody marked it.
    pub(super) fn marked(&self) -> u64 {
        self.0.mark.get().copied().unwrap_or_default()
    }

    /// What [`Guest::fetch_kernel_log`] fetched.
    pub(super) async fn kernel_log(&self) -> Vec<KmsgRecord> {
        self.0.kernel_log.lock().await.clone()
    }

    /// The transcript of all requests so far, and what stories noted.
    pub(super) async fn transcript(&self) -> String {
        let mut text = self.0.client.transcript().to_string();
        for note in self.0.notes.lock().await.iter() {
            text.push_str(note);
            text.push('\n');
        }
        text
    }

    /// Puts a line into the report.
    pub async fn note(&self, line: impl Into<String>) {
        self.0.notes.lock().await.push(line.into());
    }

    /// Shuts the system down in good order and waits until the machine is off.
    ///
    /// # Errors
    /// When it does not go off, or not in good order.
    pub async fn power_off(&self) -> Result<(), Failure> {
        self.fetch_kernel_log().await?;
        self.ask("power off", self.0.client.power_off(self.0.patience))
            .await?;
        let died = self.0.machine.died();
        match self.0.machine.clock().timeout(POWER_OFF, died).await {
            Ok(death) if death.is_orderly() => {
                self.0.powered_off.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(death) => Err(Failure::Died(death)),
            Err(late) => Err(Failure::check(
                "power",
                format!(
                    "not off {} s after it was told to power off{}",
                    POWER_OFF.as_secs(),
                    waited(late.lost)
                ),
                self.0.machine.console().tail(30),
            )),
        }
    }

    /// The machine under it, to be kept over a reboot.
    pub(super) fn shared_machine(&self) -> Arc<Machine> {
        self.0.machine.clone()
    }

    /// Begins a reboot in good order.
    ///
    /// # Errors
    /// When the agent does not take the order.
    pub(super) async fn reboot(&self) -> Result<(), Failure> {
        self.ask("reboot", self.0.client.reboot(self.0.patience))
            .await
    }

    /// Whether the module is loaded, as a failure if it is not as it should be.
    ///
    /// # Errors
    /// As said.
    pub async fn expect_module(&self, name: &str, loaded: bool) -> Result<(), Failure> {
        let modules = self
            .ask("list modules", self.0.client.modules(self.0.patience))
            .await?;
        if modules.iter().any(|module| module.name == name) == loaded {
            return Ok(());
        }
        let title = if loaded {
            "is not loaded"
        } else {
            "is still loaded"
        };
        Err(Failure::check(
            "module",
            format!("{name} {title}"),
            self.sh("cat /proc/modules").await?,
        ))
    }

    /// Knocks with a wrong secret. `None` when that was refused, otherwise what happened instead.
    ///
    /// # Errors
    /// When the port cannot be reached at all.
    pub async fn connect_with_wrong_secret(&self, lab: &Lab) -> Result<Option<String>, Failure> {
        let stream = self
            .0
            .machine
            .wait_for_port(AGENT_PORT, FIRST_ANSWER)
            .await?;
        let right = self
            .0
            .machine
            .secret()
            .map_or([0; 32], |secret| *secret.bytes());
        let wrong = if lab.breaks("secret") {
            right
        } else {
            right.map(|byte| !byte)
        };
        let wrong = Secret::from_bytes(wrong);
        let clock = self.0.machine.clock().clone();
        Ok(
            match Client::connect_by(clock, stream, &wrong, FIRST_ANSWER).await {
                Err(AgentError::WrongSecret) => None,
                Err(error) => Some(error.to_string()),
                Ok(_) => Some("the agent serves a host that does not know the secret".to_owned()),
            },
        )
    }
}

/// A script's first line stands for it in a title.
fn first_line(script: &str) -> String {
    match script.split_once('\n') {
        Some((first, _)) => format!("{first} …"),
        None => script.to_owned(),
    }
}

fn words<A: Into<String>>(argv: impl IntoIterator<Item = A>) -> Vec<String> {
    argv.into_iter().map(Into::into).collect()
}
