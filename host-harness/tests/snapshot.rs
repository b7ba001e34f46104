//! Snapshots and forks of a real image: that forks are fresh, told apart, gone when they should be,
//! and that each way a guest can leave us is noticed at once.
//!
//! Uses the minimal image in `out/images`; where there is none, these cases are ignored and the
//! cases of `tests/images` build it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_client::{Client, ExecSpec};
use host_harness::checks::counts::Scale;
use host_harness::lab::{BOOT_DEADLINE, Setup};
use image::Image;
use image_builder::ToolsRequest;
use libtest_mimic::{Arguments, Failed, Trial};
use machine::arguments::{VsockWire, files, ids, vsock_device};
use machine::snapshot::{Fork, Snapshot};
use machine::{Death, Host, HostRequest, Machine, MachineEvent, VsockBackend};
use results::Layout;
use serde_json::json;

/// Argument that makes this program a harness for a test to kill.
const STARTER: &str = "__starter";

/// How long one request may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    machine::hook();
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == STARTER) {
        return runtime().block_on(starter(Path::new(&args[2])));
    }
    let trials = vec![
        trial("forks_are_fresh_and_told_apart", || Box::pin(fresh())),
        trial("a_panic_in_an_exec_is_a_panic", || Box::pin(panic())),
        trial("a_reset_ends_requests_and_the_agent_comes_back", || {
            Box::pin(reset())
        }),
        trial("a_removed_vsock_device_ends_requests", || {
            Box::pin(unplugged())
        }),
        trial("a_request_of_a_stopped_machine_is_not_late", || {
            Box::pin(stopped())
        }),
        trial("sigkill_of_a_harness_with_a_fork_leaves_nothing", || {
            Box::pin(killed())
        }),
        trial("many_forks_leak_nothing", || Box::pin(soak())),
        trial("nightly_no_connection_of_many_forks_is_lost", || {
            Box::pin(connections())
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

type Test = std::pin::Pin<Box<dyn Future<Output = Result<(), Failed>>>>;

fn trial(name: &str, test: impl FnOnce() -> Test + Send + 'static) -> Trial {
    let image = Layout::find(None)
        .ok()
        .and_then(|layout| Image::find(&layout.out, "minimal").ok());
    Trial::test(name, move || runtime().block_on(test()))
        .with_ignored_flag(image.flatten().is_none())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The snapshot that the checks of the minimal image use.
async fn snapshot() -> Result<Snapshot, Failed> {
    let layout = Layout::find(None)?;
    let host = Host::probe(&layout.cache, HostRequest::default()).await?;
    let image = Image::find(&layout.out, "minimal")?.ok_or("no minimal image")?;
    let tools = ToolsRequest {
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        ..ToolsRequest::new(&layout.workspace)
    };
    let tools = image_builder::tools_disk(&tools, &()).await?;
    let setup = Setup::new(layout, host, image, tools);
    Ok(setup.snapshot().await?)
}

async fn sh(agent: &Client, script: &str) -> Result<String, Failed> {
    let output = agent
        .exec(ExecSpec::new(["/bin/sh", "-c", script]), PATIENCE)
        .await?;
    match output.success() {
        true => Ok(output.stdout_text().trim().to_owned()),
        false => Err(format!("{script}: {}: {}", output.ending(), output.stderr_text()).into()),
    }
}

async fn fresh() -> Result<(), Failed> {
    let logs = tempfile::tempdir()?;
    let snapshot = snapshot().await?;
    let (one, two) = (logs.path().join("1"), logs.path().join("2"));
    let (one, two) = tokio::try_join!(snapshot.fork("one", &one), snapshot.fork("two", &two))?;
    assert_ne!(one.machine.id(), two.machine.id());
    println!("{:?}\n{:?}", one.timing, two.timing);

    let uuid = "cat /proc/sys/kernel/random/uuid";
    assert_ne!(
        sh(&one.agent, uuid).await?,
        sh(&two.agent, uuid).await?,
        "the same randomness"
    );

    let guest: u64 = sh(&one.agent, "date +%s").await?.parse()?;
    let host = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    assert!(
        host.abs_diff(guest) < 5,
        "the fork thinks it is {guest}, and it is {host}"
    );

    sh(&one.agent, "echo mine > /var/tmp/mark && sync").await?;
    let disk =
        "dd if=/dev/urandom of=/dev/disk/by-id/virtio-vexfs-scratch bs=4k count=1 oflag=direct";
    sh(&one.agent, disk).await?;
    let there = "if [ -e /var/tmp/mark ]; then echo seen; else echo unseen; fi";
    assert_eq!(sh(&one.agent, there).await?, "seen");
    assert_eq!(sh(&two.agent, there).await?, "unseen", "forks share a disk");
    let zeros = "head -c 4096 /dev/disk/by-id/virtio-vexfs-scratch | tr -d '\\0' | wc -c";
    assert_eq!(
        sh(&two.agent, zeros).await?,
        "0",
        "forks share a scratch disk"
    );

    // What forks did has not touched what they came from.
    let made = snapshot.manifest().made;
    drop((one, two, snapshot));
    assert_eq!(
        self::snapshot().await?.manifest().made,
        made,
        "the snapshot had to be made anew"
    );
    Ok(())
}

async fn fork(name: &str) -> Result<(tempfile::TempDir, Fork), Failed> {
    let logs = tempfile::tempdir()?;
    let fork = snapshot().await?.fork(name, logs.path()).await?;
    Ok((logs, fork))
}

async fn panic() -> Result<(), Failed> {
    let (_logs, Fork { machine, agent, .. }) = fork("panic").await?;
    let begin = Instant::now();
    let death = tokio::select! {
        death = machine.died() => death,
        answer = sh(&agent, "echo c > /proc/sysrq-trigger; sleep 60") => {
            return Err(format!("it answered: {answer:?}").into());
        }
    };
    assert_eq!(death, Death::GuestPanicked);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    let console = machine.console().tail(100);
    assert!(console.contains("sysrq triggered crash"), "{console}");
    assert!(console.contains("---[ end Kernel panic"), "{console}");
    // The guest is stopped, but there to be looked at.
    assert!(machine.registers().await?.contains("RIP="));
    Ok(())
}

async fn reset() -> Result<(), Failed> {
    let (_logs, Fork { machine, agent, .. }) = fork("reset").await?;
    let begin = Instant::now();
    let answer = sh(&agent, "echo b > /proc/sysrq-trigger; sleep 60").await;
    assert!(answer.is_err(), "{answer:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(machine.death(), None);
    // Closing what is left of the connection must not harm the next one.
    drop(agent);
    let agent = machine.agent(BOOT_DEADLINE).await?;
    assert_eq!(sh(&agent, "echo back").await?, "back");
    Ok(())
}

async fn unplugged() -> Result<(), Failed> {
    let (_logs, Fork { machine, agent, .. }) = fork("unplugged").await?;
    let begin = Instant::now();
    let remove = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        machine
            .qmp()
            .execute("device_del", json!({"id": ids::VSOCK}))
            .await
    };
    let (answer, removed) = tokio::join!(sh(&agent, "sleep 60"), remove);
    removed?;
    assert!(answer.is_err(), "{answer:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}

async fn stopped() -> Result<(), Failed> {
    use nix::sys::signal::{Signal, kill};
    let (_logs, Fork { machine, agent, .. }) = fork("stopped").await?;
    let pid = nix::unistd::Pid::from_raw(machine.pid().cast_signed());
    let within = Duration::from_secs(2);
    let script = |script| ExecSpec::new(["/bin/sh", "-c", script]);
    let (answer, stopped) =
        tokio::join!(agent.exec(script("sleep 0.3; echo done"), within), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            kill(pid, Signal::SIGSTOP)?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            kill(pid, Signal::SIGCONT)
        });
    stopped?;
    let answer = answer?;
    assert!(answer.success(), "{}", answer.ending());
    // What hangs by itself still ends in its time.
    let begin = Instant::now();
    let answer = agent.exec(script("sleep 1000"), within).await?;
    assert!(answer.timed_out(), "{}", answer.ending());
    let took = begin.elapsed();
    let lost = machine.clock().lost_since(begin.into());
    assert!(
        took < within + lost + Duration::from_secs(2),
        "{took:?}, {lost:?}"
    );
    Ok(())
}

/// Forks of [`connections`], and each how many of them has its device unplugged and plugged again.
const FORKS: u32 = 300;
const REPLUGGED: u32 = 5;

/// Whoever connects is answered, whenever that was: while the fork comes up, several at once, with
/// the device gone, and while it comes back.
async fn connections() -> Result<(), Failed> {
    let snapshot = snapshot().await?;
    let logs = tempfile::tempdir()?;
    let (mut made, begin) = (0, Instant::now());
    for number in 0..FORKS {
        // Its own connection was made before the guest had a device.
        let fork = snapshot.fork("connections", logs.path()).await?;
        let machine = &fork.machine;
        let each = async |late: Duration| {
            tokio::time::sleep(late).await;
            let agent = machine.agent(PATIENCE).await?;
            sh(&agent, "echo $((6 * 7))").await
        };
        let moments = [0, 1, 3, 7].map(|late| each(Duration::from_millis(late)));
        let answers = futures_util::future::join_all(moments).await;
        if number % REPLUGGED == 0 && machine::vsock::probe(None)?.chosen == VsockBackend::User {
            unplug(machine).await?;
            // The first two find no device, the third one comes with it.
            let later = [0, 50, 300].map(|late| each(Duration::from_millis(late)));
            let later = futures_util::future::join_all(later);
            let (plugged, later) = tokio::join!(plug(machine), later);
            plugged.map_err(|error| {
                format!("fork {number}: {}", error.message().unwrap_or_default())
            })?;
            for answer in later {
                let answer = answer.map_err(|error| {
                    format!(
                        "fork {number}, replugged: {}",
                        error.message().unwrap_or_default()
                    )
                })?;
                assert_eq!(answer, "42");
                made += 1;
            }
        }
        for answer in answers {
            let answer = answer.map_err(|error| {
                format!("fork {number}: {}", error.message().unwrap_or_default())
            })?;
            assert_eq!(answer, "42");
            made += 1;
        }
        made += 1;
        assert_eq!(machine.death(), None);
    }
    println!(
        "{made} connections to {FORKS} forks in {:?}, none lost",
        begin.elapsed()
    );
    Ok(())
}

/// Takes the vsock device out.
async fn unplug(machine: &Machine) -> Result<(), Failed> {
    let mut events = machine.events();
    let qmp = machine.qmp();
    qmp.execute("device_del", json!({"id": ids::VSOCK})).await?;
    let gone = async {
        loop {
            if let MachineEvent::Other { name, data } = events.recv().await?
                && name == "DEVICE_DELETED"
                && data["device"] == ids::VSOCK
            {
                return Ok::<_, Failed>(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, gone).await?
}

/// Puts it in again after a moment, with a new frontend of the same daemon.
async fn plug(machine: &Machine) -> Result<(), Failed> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let qmp = machine.qmp();
    qmp.execute("chardev-remove", json!({"id": ids::VSOCK_CHARDEV}))
        .await?;
    let path = machine.run_dir().path().join(files::VHOST);
    let address = json!({"type": "unix", "data": {"path": path}});
    let socket = json!({"type": "socket", "data": {"addr": address, "server": false}});
    let wire = json!({"id": ids::VSOCK_CHARDEV, "backend": socket});
    qmp.execute("chardev-add", wire).await?;
    qmp.execute("device_add", vsock_device(&VsockWire::User))
        .await?;
    Ok(())
}

/// A harness that makes a fork, says its id, and waits.
async fn starter(dir: &Path) {
    let snapshot = snapshot().await.expect("a snapshot");
    let fork = snapshot
        .fork("killed", &dir.join("log"))
        .await
        .expect("a fork");
    std::fs::write(dir.join("up"), fork.machine.id()).expect("says so");
    std::future::pending().await
}

async fn killed() -> Result<(), Failed> {
    // First, so that the starter finds it.
    drop(snapshot().await?);
    let dir = tempfile::tempdir()?;
    let mut starter = std::process::Command::new("/proc/self/exe")
        .arg(STARTER)
        .arg(dir.path())
        .spawn()?;
    let begin = Instant::now();
    let id = loop {
        if let Ok(id) = std::fs::read_to_string(dir.path().join("up"))
            && !id.is_empty()
        {
            break id;
        }
        if begin.elapsed() > PATIENCE || starter.try_wait()?.is_some() {
            starter.kill()?;
            return Err("no fork came up".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(traces(&id).len() >= 5, "{:#?}", traces(&id));
    starter.kill()?;
    starter.wait()?;
    let begin = Instant::now();
    while !traces(&id).is_empty() {
        if begin.elapsed() > Duration::from_secs(5) {
            return Err(format!("left after 5 s: {:#?}", traces(&id)).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Processes and files on this host whose names mention the machine.
fn traces(id: &str) -> Vec<String> {
    let named = ["/tmp", "/dev/shm"]
        .into_iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten();
    let named = named.map(|entry| entry.path().display().to_string());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes
        .flat_map(|process| std::fs::read(process.path().join("cmdline")))
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    named
        .chain(processes)
        .filter(|name| name.contains(id))
        .collect()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

async fn soak() -> Result<(), Failed> {
    let scale = Scale::of_environment()?;
    let count = scale.count("fork_soak").ok_or("no such count")?;
    let snapshot = snapshot().await?;
    let logs = tempfile::tempdir()?;
    let mut answered = Vec::new();
    let mut before = 0;
    for number in 0..count.times {
        let fork = snapshot.fork("soak", logs.path()).await?;
        assert_eq!(sh(&fork.agent, "echo $((6 * 7))").await?, "42");
        answered.push(fork.timing.answered);
        let id = fork.machine.id().to_owned();
        drop(fork);
        let left = traces(&id);
        assert!(left.is_empty(), "fork {number} left {left:#?}");
        // The first one opens what stays open: the runtime's own.
        match number {
            0 => before = open_files(),
            _ => assert!(
                open_files() <= before + 1,
                "fork {number}: {} files",
                open_files()
            ),
        }
    }
    answered.sort();
    println!(
        "{count} forks: the agent answered after {:.3} s (median), {:.3} s (slowest)",
        answered[answered.len() / 2].as_secs_f64(),
        answered[answered.len() - 1].as_secs_f64()
    );
    Ok(())
}
