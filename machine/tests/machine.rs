//! The machine room with a real QEMU: no image is needed, the guest sits in its firmware.
//!
//! What is tested is that everything of a machine goes with it, whatever ends it, and that each way
//! to fail is told for what it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_protocol::Secret;
use libtest_mimic::{Arguments, Failed, Trial};
use machine::accel::{self, Trial as KvmTrial};
use machine::{
    Death, DiskFormat, ExtraDisk, Firmware, Machine, MachineError, MachineEvent, MachineSpec, Qemu,
    overlay,
};
use tempfile::TempDir;

#[path = "machine/clock.rs"]
mod clock;

/// Argument that makes this program a harness for a test to kill.
const STARTER: &str = "__starter";

/// Argument that makes this program say why no machine can be started.
const COMPLAINER: &str = "__complainer";

fn main() {
    machine::hook();
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == STARTER) {
        return runtime().block_on(starter(Path::new(&args[2])));
    }
    if args.get(1).is_some_and(|arg| arg == COMPLAINER) {
        return runtime().block_on(complainer(Path::new(&args[2])));
    }
    let trials = vec![
        trial("boots_and_drops_without_a_trace", || {
            Box::pin(boot_and_drop())
        }),
        trial("the_image_is_never_written", || Box::pin(image_untouched())),
        trial("boots_again_on_the_same_overlay", || Box::pin(boot_again())),
        trial("uefi_has_variables_of_its_own", || Box::pin(uefi())),
        trial("quit_and_kill_are_told_apart", || Box::pin(ends())),
        trial("a_qemu_that_refuses_is_quoted", || Box::pin(qemu_refuses())),
        trial("a_missing_image_is_named_with_the_remedy", || {
            Box::pin(missing_image())
        }),
        trial("a_lost_vsock_daemon_is_told", || Box::pin(daemon_lost())),
        trial("waiting_for_a_silent_port_has_an_end", || {
            Box::pin(silent_port())
        }),
        trial("what_a_stopped_machine_is_asked_is_not_late", || {
            Box::pin(clock::stopped())
        }),
        trial("a_machine_that_runs_and_says_nothing_is_late", || {
            Box::pin(clock::silent())
        }),
        trial("our_overlay_satisfies_qemu_img", || {
            Box::pin(overlay_checked())
        }),
        trial("no_qemu_is_said_with_the_package", || Box::pin(no_qemu())),
        trial("kvm_is_believed_only_when_a_kernel_speaks", || {
            Box::pin(kvm_trials())
        }),
        trial("sigkill_during_start_leaves_nothing", || {
            Box::pin(killed(Moment::Starting))
        }),
        trial("sigkill_of_a_running_harness_leaves_nothing", || {
            Box::pin(killed(Moment::Running))
        }),
        trial("sigterm_leaves_nothing", || {
            Box::pin(killed(Moment::Terminated))
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

type Test = std::pin::Pin<Box<dyn Future<Output = Result<(), Failed>>>>;

fn trial(name: &str, test: impl FnOnce() -> Test + Send + 'static) -> Trial {
    Trial::test(name, move || {
        runtime().block_on(async {
            tokio::time::timeout(Duration::from_secs(60), test())
                .await
                .map_err(|_| Failed::from("not done within 60 s"))?
        })
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A machine with an empty system disk: SeaBIOS finds nothing to boot and stays.
fn idle(dir: &Path) -> std::io::Result<MachineSpec> {
    let image = dir.join("image.raw");
    std::fs::File::create(&image)?.set_len(64 << 20)?;
    let mut spec = MachineSpec::new("idle", image, dir.join("log"));
    spec.memory_mib = 64;
    spec.cpus = 1;
    spec.disks = vec![ExtraDisk::scratch(16)];
    Ok(spec)
}

/// Processes and files on this host whose names mention the machine.
fn traces(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let places = [
        std::env::var_os("VEXFS_RUN_DIR").map_or("/tmp".into(), PathBuf::from),
        "/dev/shm".into(),
    ];
    for entry in places
        .iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten()
    {
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(entry.path().display().to_string());
        }
    }
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(line) = std::fs::read(process.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(id) {
            found.push(line);
        }
    }
    found
}

fn assert_gone(id: &str, within: Duration) -> Result<(), Failed> {
    let begin = Instant::now();
    loop {
        let left = traces(id);
        if left.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > within {
            return Err(format!("left after {within:?}: {left:#?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn boot_and_drop() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let machine = Machine::boot(idle(dir.path())?).await?;
    let id = machine.id().to_owned();
    // QEMU, the vsock daemon, their keepers and the directory with its keeper.
    assert!(traces(&id).len() >= 5, "{:#?}", traces(&id));
    let secret = machine.secret().ok_or("no secret")?.to_hex();
    assert!(
        !machine.command_line().join(" ").contains(&secret),
        "the secret shows in ps"
    );
    let status = machine
        .qmp()
        .execute("query-status", serde_json::json!({}))
        .await?;
    assert_eq!(status["running"], true);
    assert!(
        machine.registers().await?.contains("RIP") || machine.registers().await?.contains("EIP")
    );
    drop(machine);
    assert_eq!(traces(&id), Vec::<String>::new());
    for file in ["console.log", "qemu.log", "qemu.args", "vsock.log"] {
        assert!(dir.path().join("log").join(file).exists(), "{file} is gone");
    }
    Ok(())
}

async fn image_untouched() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let spec = idle(dir.path())?;
    let before = std::fs::metadata(dir.path().join("image.raw"))?.modified()?;
    let machine = Machine::boot(spec).await?;
    let write = "qemu-io -d /machine/peripheral/system/virtio-backend \"write -P 7 0 4k\"";
    let said = machine.qmp().human(write).await?;
    assert!(said.is_empty() || said.contains("wrote"), "{said}");
    machine.quit().await?;
    let image = std::fs::read(dir.path().join("image.raw"))?;
    assert!(image.iter().all(|byte| *byte == 0));
    assert_eq!(
        std::fs::metadata(dir.path().join("image.raw"))?.modified()?,
        before
    );
    let overlay = std::fs::read(machine.overlay())?;
    assert!(
        overlay.windows(4096).any(|window| window == [7; 4096]),
        "the write is lost"
    );
    Ok(())
}

async fn boot_again() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let machine = Machine::boot(idle(dir.path())?).await?;
    machine
        .qmp()
        .human("qemu-io -d /machine/peripheral/system/virtio-backend \"write -P 7 0 4k\"")
        .await?;
    assert!(
        !machine.quit().await?.is_orderly(),
        "the guest did not end by itself"
    );
    let (id, secret) = (
        machine.id().to_owned(),
        machine.secret().map(Secret::to_hex),
    );
    let again = machine.boot_again(&dir.path().join("log2")).await?;
    assert_eq!(again.id(), id);
    assert_ne!(
        again.secret().map(Secret::to_hex),
        secret,
        "a secret is for one boot"
    );
    let said = again
        .qmp()
        .human("qemu-io -d /machine/peripheral/system/virtio-backend \"read -P 7 0 4k\"")
        .await?;
    assert!(!said.contains("fail"), "{said}");
    again.quit().await?;
    let overlay = std::fs::read(again.overlay())?;
    assert!(
        overlay.windows(4096).any(|window| window == [7; 4096]),
        "the write is lost"
    );
    drop(again);
    assert_gone(&id, Duration::ZERO)
}

async fn uefi() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let machine = Machine::boot(MachineSpec {
        firmware: Firmware::Uefi,
        memory_mib: 256,
        ..idle(dir.path())?
    })
    .await?;
    assert!(machine.run_dir().path().join("uefi-vars.fd").exists());
    let begin = Instant::now();
    // OVMF talks on the serial line before it looks for something to boot.
    while machine.console().tail(5).is_empty() {
        assert!(
            begin.elapsed() < Duration::from_secs(40),
            "OVMF says nothing"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn ends() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let machine = Machine::boot(idle(dir.path())?).await?;
    let mut events = machine.events();
    let died = machine.died();
    assert_eq!(machine.death(), None);
    machine.qmp().execute("quit", serde_json::json!({})).await?;
    let death = died.await;
    assert!(
        matches!(&death, Death::Exited { status: Some(status), reason: Some(reason) }
            if status.success() && reason == "host-qmp-quit"),
        "{death:?}"
    );
    assert_eq!(machine.death(), Some(death));
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    assert!(
        seen.iter()
            .any(|e| matches!(e, MachineEvent::Shutdown { guest: false, .. })),
        "{seen:?}"
    );
    assert!(
        matches!(seen.last(), Some(MachineEvent::Died(_))),
        "{seen:?}"
    );

    let machine = Machine::boot(idle(dir.path())?).await?;
    let pid = nix::unistd::Pid::from_raw(machine.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    let death = machine.died().await;
    assert_eq!(
        death.to_string(),
        "the machine ended: QEMU ended with signal: 9 (SIGKILL)"
    );
    let error = machine
        .connect(5000)
        .await
        .err()
        .ok_or("connected to a dead machine")?;
    assert!(matches!(error, MachineError::Died(_)), "{error}");
    Ok(())
}

async fn qemu_refuses() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let spec = MachineSpec {
        cpus: 100_000,
        ..idle(dir.path())?
    };
    let error = Machine::boot(spec)
        .await
        .err()
        .ok_or("it booted")?
        .to_string();
    assert!(
        error.contains("QEMU ended before the machine was up (exit status: 1)"),
        "{error}"
    );
    assert!(error.contains("Invalid SMP CPUs 100000"), "{error}");
    assert!(error.contains("log/qemu.log"), "{error}");
    Ok(())
}

async fn missing_image() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let spec = MachineSpec::new("none", dir.path().join("no.qcow2"), dir.path().join("log"));
    let error = Machine::boot(spec)
        .await
        .err()
        .ok_or("it booted")?
        .to_string();
    assert!(error.contains("no.qcow2 cannot be read"), "{error}");
    assert!(error.contains("cargo images build"), "{error}");
    Ok(())
}

async fn daemon_lost() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let machine = Machine::boot(idle(dir.path())?).await?;
    let daemon = traces(machine.id());
    assert!(
        daemon.iter().any(|line| line.contains(vsock_device::MARK)),
        "{daemon:?}"
    );
    for process in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mark = line.split('\0').nth(1).unwrap_or_default();
        if mark == vsock_device::MARK && line.contains(machine.id()) {
            let pid = process.file_name().to_string_lossy().parse()?;
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )?;
        }
    }
    let death = machine.died().await;
    assert!(matches!(death, Death::VsockLost { .. }), "{death:?}");
    Ok(())
}

async fn silent_port() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let machine = Machine::boot(idle(dir.path())?).await?;
    let within = Duration::from_millis(100);
    let begin = Instant::now();
    let error = machine
        .wait_for_port(5000, within)
        .await
        .err()
        .ok_or("connected")?;
    assert!(
        matches!(error, MachineError::NoAnswer { port: 5000, .. }),
        "{error}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}

async fn overlay_checked() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let base = dir.path().join("base.raw");
    for size in [1 << 20, (8 << 30) + 512, 5 << 40] {
        std::fs::File::create(&base)?.set_len(size)?;
        let path = dir.path().join(format!("{size}.qcow2"));
        overlay::create(&path, &base, DiskFormat::Raw, size)?;
        let log = dir.path().join("check.log");
        keeper::run(
            keeper::Kept::new("qemu-img").arg("check").arg(&path),
            &log,
            |_| (),
        )
        .await?;
        let mut info = Vec::new();
        let show = keeper::Kept::new("qemu-img")
            .args(["info", "-U"])
            .arg(&path);
        keeper::run(show, &log, |line| info.push(line.to_owned())).await?;
        let info = info.join("\n");
        assert!(info.contains(&format!("({size} bytes)")), "{info}");
        assert!(info.contains("backing file format: raw"), "{info}");
        assert!(
            info.contains(&format!("backing file: {}", base.display())),
            "{info}"
        );
    }
    Ok(())
}

/// Says on standard output why a machine does not start.
async fn complainer(dir: &Path) {
    let error = Machine::boot(idle(dir).expect("a spec")).await.err();
    println!(
        "{}",
        error.map_or_else(|| "it started".into(), |error| error.to_string())
    );
}

async fn no_qemu() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let run = |program: &Path| -> Result<String, Failed> {
        let output = std::process::Command::new("/proc/self/exe")
            .arg(COMPLAINER)
            .arg(dir.path())
            .env("VEXFS_QEMU", program)
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let said = run(Path::new("/nowhere/qemu"))?;
    assert!(said.contains("no QEMU: `/nowhere/qemu`"), "{said}");
    assert!(said.contains("apt-get install qemu-system-x86"), "{said}");
    let said = run(&script(dir.path(), "odd", "echo I am no QEMU")?)?;
    assert!(
        said.contains("does not say its version: it prints \"I am no QEMU\""),
        "{said}"
    );
    Ok(())
}

/// An executable shell script.
fn script(dir: &Path, name: &str, text: &str) -> std::io::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

async fn kvm_trials() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let within = Duration::from_millis(500);
    let version = Qemu::find().await?.version.clone();
    let table = [
        (
            "echo '[    0.000000] Linux version 6.1.0'; sleep 60",
            KvmTrial::Banner,
        ),
        (
            "echo 'SeaBIOS (version 1.16)'; echo 'Booting from ROM..'; sleep 60",
            KvmTrial::Failed("the trial kernel said nothing within 0.5 s".into()),
        ),
        (
            "echo 'error: failed to set MSR 0x10a' >&2; exit 134",
            KvmTrial::Failed("QEMU ended before the trial kernel said a word".into()),
        ),
    ];
    for (number, (text, expected)) in table.into_iter().enumerate() {
        let program = script(dir.path(), &format!("qemu-{number}"), text)?;
        let qemu = Qemu {
            program,
            version: version.clone(),
            sandbox: false,
        };
        let outcome = accel::trial(&qemu, Path::new("/boot/vmlinuz"), within).await;
        assert_eq!(outcome, expected, "{text}");
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// As soon as the machine's directory is there.
    Starting,
    /// When the machine is up.
    Running,
    /// When the machine is up, with SIGTERM, which nobody handles here.
    Terminated,
}

/// A harness that says its machine's id when it is up, and waits.
async fn starter(dir: &Path) {
    let machine = Machine::boot(idle(dir).expect("a spec"))
        .await
        .expect("boots");
    std::fs::write(dir.join("up"), machine.id()).expect("says so");
    std::future::pending().await
}

async fn killed(moment: Moment) -> Result<(), Failed> {
    // Several rounds: a start has many moments.
    let rounds = if moment == Moment::Starting { 12 } else { 1 };
    for round in 0..rounds {
        let dir = TempDir::new()?;
        let parent = TempDir::new()?;
        let mut starter = std::process::Command::new("/proc/self/exe")
            .arg(STARTER)
            .arg(dir.path())
            .env("VEXFS_RUN_DIR", parent.path())
            .spawn()?;
        let up = dir.path().join("up");
        let begun = || match moment {
            Moment::Starting => {
                std::fs::read_dir(parent.path()).is_ok_and(|mut d| d.next().is_some())
            }
            _ => up.exists(),
        };
        while !begun() {
            if let Some(status) = starter.try_wait()? {
                return Err(format!("the harness ended by itself: {status}").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(15 * round)).await;
        match moment {
            Moment::Terminated => nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(starter.id() as i32),
                nix::sys::signal::Signal::SIGTERM,
            )?,
            _ => starter.kill()?,
        }
        starter.wait()?;
        // All that belongs to the machine has the parent's name in its command line or lies in it.
        let name = parent
            .path()
            .file_name()
            .ok_or("no name")?
            .to_string_lossy()
            .into_owned();
        let begin = Instant::now();
        loop {
            let mut left = traces(&name);
            left.retain(|trace| Path::new(trace) != parent.path());
            left.extend(
                std::fs::read_dir(parent.path())?
                    .flatten()
                    .map(|e| e.path().display().to_string()),
            );
            if left.is_empty() {
                break;
            }
            if begin.elapsed() > Duration::from_secs(5) {
                return Err(format!("round {round}: left after 5 s: {left:#?}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
