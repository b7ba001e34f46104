//! Making a snapshot: boot, settle, freeze, publish.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use agent_client::{AgentError, Client, ExecSpec};
use clock::{Tries, Whose};
use serde_json::json;
use tokio::net::UnixListener;

use super::manifest::{Draft, Manifest, files};
use super::ram::{self, Zeros};
use super::store::{Claim, Making};
use super::{Key, Recipe, Snapshot, SnapshotError, Stage, Store, Watch, persists};
use crate::{Machine, MachineError, MachineSpec, Qemu, admission, room};

/// How long the settled guest may take to let go of its vsock device. It takes a fifth of a second.
const LETTING_GO: Duration = Duration::from_secs(20);

/// The guest's memory is given back when it has not shrunk for this long, and is not waited for longer than
/// that.
const SHRINKING: (Duration, Duration) = (Duration::from_millis(2500), Duration::from_secs(12));

/// How long saving the device state may take; it has half a megabyte.
const SAVING: Duration = Duration::from_secs(30);

/// What is done in the settled guest before it is frozen, and why.
const LAST_ORDERS: &[&[&str]] = &[
    // A fork's clock jumps to the present: timers that are then overdue would start apt, fstrim and
    // others in the middle of a check.
    &["systemctl", "stop", "*.timer"],
    &["sync"],
    // What no process has mapped would be copied for every fork and read by few; and free memory
    // goes back to the host in blocks of 2 MiB only.
    &["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"],
    &["sh", "-c", "echo 1 > /proc/sys/vm/compact_memory"],
];

impl Store {
    /// The snapshot of a recipe: the one in the store, or a new one if there is none (or none that
    /// is whole). Of many processes that ask at once one makes it, the others wait. `watch` is told
    /// how far it is, and how far its forks are.
    ///
    /// # Errors
    /// Those of booting a machine; [`SnapshotError::Unsettled`] when it does not come to rest.
    pub async fn snapshot(
        &self,
        recipe: &Recipe,
        watch: &Watch,
    ) -> Result<Snapshot, SnapshotError> {
        let qemu = Qemu::find().await?;
        let key = recipe.key(&qemu.version);
        let claim = self.claim(&key).await;
        let claim = claim.map_err(SnapshotError::io(format!("cannot claim snapshot {key}")))?;
        let (dir, lease, troubles) = match claim {
            Claim::Use(dir, lease) => (dir, lease, Vec::new()),
            Claim::Make(mut making) => {
                making
                    .keep()
                    .await
                    .map_err(SnapshotError::io("cannot start a draft's keeper"))?;
                self.fail_as_before(&key)?;
                let mut tries = Tries::default();
                let made = loop {
                    match make(recipe, &key, &making, qemu, watch).await {
                        Err(error) if tries.again(error.whose(), &error) => making
                            .clear()
                            .map_err(SnapshotError::io("cannot clear a draft"))?,
                        result => break persists(result, tries),
                    }
                };
                let ((), troubles) =
                    made.inspect_err(|error| self.remember_failure(&key, error))?;
                let (dir, lease) = making
                    .publish()
                    .map_err(SnapshotError::io(format!("cannot publish snapshot {key}")))?;
                (dir, lease, troubles)
            }
        };
        self.drop_drafts()?;
        self.evict()?;
        let troubles = troubles.into_iter().map(|told| format!("freezing: {told}"));
        Ok(Snapshot {
            troubles: troubles.collect(),
            watch: watch.clone(),
            ..Snapshot::open(dir, Some(lease))?
        })
    }

    /// In one run of nextest, hundreds of processes want the same snapshot: when the guest does not come up,
    /// each would boot in vain. The first one's finding stands for the run. What the host did to that one
    /// says nothing about the next.
    fn fail_as_before(&self, key: &Key) -> Result<(), SnapshotError> {
        let Some(run) = std::env::var_os("NEXTEST_RUN_ID") else {
            return Ok(());
        };
        let text = std::fs::read_to_string(self.failure_file(key)).unwrap_or_default();
        match text.split_once('\n') {
            Some((failed, why)) if *failed == *run => {
                Err(SnapshotError::FailedBefore { why: why.into() })
            }
            _ => Ok(()),
        }
    }

    fn remember_failure(&self, key: &Key, error: &SnapshotError) {
        if error.whose() == Whose::Guest
            && let Ok(run) = std::env::var("NEXTEST_RUN_ID")
        {
            // Without the note the others find out for themselves.
            std::fs::write(self.failure_file(key), format!("{run}\n{error}")).unwrap_or_default();
        }
    }
}

async fn make(
    recipe: &Recipe,
    key: &Key,
    making: &Making,
    qemu: &Qemu,
    watch: &Watch,
) -> Result<(), SnapshotError> {
    let begin = Instant::now();
    let spec = MachineSpec {
        freezable: true,
        reports_free_pages: true,
        ..recipe.spec.clone()
    };
    let _ticket = admission::enter(&spec)
        .await
        .map_err(SnapshotError::io("cannot wait for room on this host"))?;
    let frozen = room::needs_to_freeze(&spec, making.dir());
    room::ask(&spec.name, &[frozen]).await?;
    let mut machine = Machine::boot(spec).await?;
    watch.tell(Stage::Boot, &machine);
    let unsettled = |error: MachineError, machine: &Machine| match error.whose() {
        Whose::Guest => SnapshotError::Unsettled {
            why: error.to_string(),
            console: machine.console().tail(20),
        },
        Whose::Host | Whose::Ours => error.into(),
    };
    if let Err(error) = settle(&machine, recipe.patience, watch).await {
        return Err(unsettled(error, &machine));
    }
    watch.tell(Stage::Freeze, &machine);
    let dir = making.dir();
    if let Err(error) = machine.unplug_vsock(LETTING_GO).await {
        let error = machine.explained(error).await;
        return Err(unsettled(error, &machine));
    }
    save_state(&machine, &dir.join(files::STATE)).await?;
    machine.quit().await.map_err(MachineError::from)?;

    let what = |name: &str| SnapshotError::io(format!("cannot write {}", dir.join(name).display()));
    let memory_bytes =
        compact(&machine.run_dir().ram_file(), &dir.join(files::RAM)).map_err(what(files::RAM))?;
    for name in [files::OVERLAY, files::UEFI_VARS] {
        let from = machine.run_dir().path().join(name);
        if from.exists() {
            std::fs::copy(from, dir.join(name)).map_err(what(name))?;
        }
    }
    let draft = Draft {
        key: key.clone(),
        spec: machine.spec().clone(),
        image_digest: recipe.image_digest.clone(),
        agent_version: recipe.agent_version.clone(),
        qemu: qemu.version.clone(),
        took: begin.elapsed().as_secs_f64(),
        memory_bytes,
    };
    write_down(&machine, dir, draft)
}

fn write_down(machine: &Machine, dir: &Path, draft: Draft) -> Result<(), SnapshotError> {
    let what = |name: &str| SnapshotError::io(format!("cannot write {}", dir.join(name).display()));
    let secret = machine
        .secret()
        .map(agent_protocol::Secret::to_hex)
        .unwrap_or_default();
    write_private(&dir.join(files::SECRET), &secret).map_err(what(files::SECRET))?;
    Manifest::write(dir, draft).map_err(what(files::MANIFEST))?;
    Ok(())
}

/// Freezes a machine in the middle of whatever it does, without asking the guest for more than to let
/// go of its vsock device, which must be done within `patience`. The machine is stopped afterwards;
/// its disks belong to the snapshot too and are the caller's to copy, once QEMU has ended.
///
/// # Errors
/// When QEMU does not do it in time, or the host cannot store it.
pub async fn freeze_as_it_is(
    machine: &mut Machine,
    dir: &Path,
    image_digest: &str,
    patience: Duration,
) -> Result<(), SnapshotError> {
    let begin = Instant::now();
    let qemu = Qemu::find().await?;
    machine.unplug_vsock(patience).await?;
    save_state(machine, &dir.join(files::STATE)).await?;
    let (from, to) = (machine.run_dir().ram_file(), dir.join(files::RAM));
    let copying = SnapshotError::io(format!("cannot copy guest memory to {}", to.display()));
    let memory_bytes = tokio::task::spawn_blocking(move || compact(&from, &to))
        .await
        .map_err(std::io::Error::other)
        .and_then(|copied| copied)
        .map_err(copying)?;
    let draft = Draft {
        key: Key::of_no_store(machine.id()),
        spec: machine.spec().alone(),
        image_digest: image_digest.to_owned(),
        agent_version: String::new(),
        qemu: qemu.version.clone(),
        took: begin.elapsed().as_secs_f64(),
        memory_bytes,
    };
    write_down(machine, dir, draft)
}

/// Waits until the guest has booted and nothing goes on in it any more, and prepares it for being
/// asleep for days.
async fn settle(machine: &Machine, patience: Duration, watch: &Watch) -> Result<(), MachineError> {
    let client = machine.agent(patience).await?;
    watch.tell(Stage::Settle, machine);
    // `degraded` is at rest too; that no unit may have failed is a check of its own.
    order(
        machine,
        &client,
        patience,
        &["systemctl", "is-system-running", "--wait"],
    )
    .await?;
    for words in LAST_ORDERS {
        order(machine, &client, patience, words).await?;
    }
    drop(client);
    // The guest reports free memory every two seconds; when the file shrinks no more, it is done.
    let allocated = || std::fs::metadata(machine.run_dir().ram_file()).map_or(0, |m| m.blocks());
    let begin = Instant::now();
    let mut best = (allocated(), Instant::now());
    let clock = machine.clock();
    let quiet = |since: Instant| clock.left(since.into(), SHRINKING.0).is_zero();
    let late = || clock.left(begin.into(), SHRINKING.1).is_zero();
    while !quiet(best.1) && !late() {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = allocated();
        // A guest at rest still touches a page now and then.
        if now + 2048 < best.0 {
            best = (now, Instant::now());
        }
    }
    Ok(())
}

/// Runs a program in the guest. That there is none of that name, or that it fails, is no reason not
/// to freeze: a guest need not have systemd.
async fn order(
    machine: &Machine,
    client: &Client,
    patience: Duration,
    words: &[&str],
) -> Result<(), MachineError> {
    let spec = ExecSpec::new(words.iter().copied());
    let said = tokio::select! {
        biased;
        death = machine.died() => return Err(MachineError::Died(death)),
        said = client.exec(spec, patience) => said,
    };
    let doing = || format!("run `{}`", words.join(" "));
    match said {
        Ok(output) if output.timed_out() => Err(MachineError::Agent(AgentError::DeadlinePassed {
            doing: doing(),
            within: patience,
            lost: Duration::ZERO,
        })),
        Ok(_) => Ok(()),
        Err(error) if error.fault_kind().is_some() => Ok(()),
        Err(error) => Err(machine.explained(MachineError::Agent(error)).await),
    }
}

/// Writes the state of the devices to `to`, which stops the machine; memory is in its own file.
async fn save_state(machine: &Machine, to: &Path) -> Result<(), SnapshotError> {
    let state = |why: String| SnapshotError::State { done: "saved", why };
    let qmp = machine.qmp();
    let run = async |command: &str, arguments| {
        qmp.execute(command, arguments)
            .await
            .map_err(|error| state(error.to_string()))
    };
    // Not stopped by us: a machine that ran when its state was saved runs when it is restored.
    machine.leave_memory_out().await?;
    let socket = machine.run_dir().path().join("state.sock");
    let listener = UnixListener::bind(&socket).map_err(SnapshotError::io(format!(
        "cannot listen on {}",
        socket.display()
    )))?;
    run(
        "migrate",
        json!({"uri": format!("unix:{}", socket.display())}),
    )
    .await?;
    let receive = async {
        let (mut stream, _) = listener.accept().await?;
        let mut file = tokio::fs::File::from_std(private(to)?);
        tokio::io::copy(&mut stream, &mut file).await?;
        file.sync_all().await
    };
    let clock = machine.clock();
    clock
        .timeout(SAVING, receive)
        .await
        .map_err(|late| state(format!("not done {late}")))?
        .map_err(SnapshotError::io(format!("cannot write {}", to.display())))?;
    let begin = Instant::now();
    loop {
        let answer = run("query-migrate", json!({})).await?;
        match answer["status"].as_str().unwrap_or_default() {
            "completed" => return Ok(()),
            "failed" | "cancelled" => {
                return Err(state(
                    answer["error-desc"]
                        .as_str()
                        .unwrap_or("no reason given")
                        .into(),
                ));
            }
            _ if clock.left(begin.into(), SAVING).is_zero() => {
                return Err(state("it never completes".into()));
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Copies memory, leaving out what is zero.
fn compact(from: &Path, to: &Path) -> std::io::Result<u64> {
    let from = File::open(from)?;
    let to = ram::create(to, from.metadata()?.len())?;
    ram::copy(&from, &to, Zeros::Skip, 2)
}

fn private(path: &Path) -> std::io::Result<File> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    std::io::Write::write_all(&mut private(path)?, text.as_bytes())
}
