//! Bringing a machine up: what it needs on the host, made in order, undone by dropping.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_protocol::{CREDENTIAL, Secret};
use clock::Whose;
use keeper::{Child, Kept};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::arguments::{self, Ram, Wiring, files};
use super::attach::attach;
use super::handle::Parts;
use super::{
    DiskContent, Firmware, Machine, MachineError, MachineSpec, Qemu, Qmp, QmpEvent, RunDir,
    VsockBackend, overlay, room,
};

/// How long QEMU and the vsock daemon have to open their sockets. They take a fifth of a second. There is no
/// machine yet by whose clock to wait, so this is far above what a host under heavy load makes of it.
pub(crate) const COMING_UP: Duration = Duration::from_secs(120);

/// OVMF's code and the template of its variables, by distribution (Debian, Fedora, Arch).
const OVMF: &[(&str, &str)] = &[
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
];

/// A machine about to be started.
pub struct Launch {
    pub(crate) spec: MachineSpec,
    pub(crate) run: Arc<RunDir>,
    pub(crate) ram: Ram,
    pub(crate) secret: Option<Secret>,
    /// Where the state of a snapshot comes from that is restored instead of booting; the vsock
    /// device is then left out.
    pub(crate) incoming: Option<OwnedFd>,
}

impl Launch {
    /// A first boot: a fresh directory, overlay and secret.
    pub(crate) async fn boot(spec: MachineSpec) -> Result<Launch, MachineError> {
        check(&spec)?;
        room::ask_for(&spec, spec.freezable).await?;
        let run = Arc::new(RunDir::create().await?);
        if let Some(image) = &spec.image {
            let what = format!("cannot make an overlay of {}", image.display());
            let made = image.canonicalize().and_then(|image| {
                let (format, size) = overlay::inspect(&image)?;
                let size = spec.disk_bytes.unwrap_or(0).max(size);
                overlay::create(&run.path().join(files::OVERLAY), &image, format, size)
            });
            made.map_err(MachineError::io(what))?;
        }
        Launch::boot_in(spec, run)
    }

    /// A boot in a directory that may already have an overlay with content.
    pub fn boot_in(spec: MachineSpec, run: Arc<RunDir>) -> Result<Launch, MachineError> {
        let ram = match spec.vsock {
            _ if spec.freezable => Ram::File {
                path: run.ram_file(),
                shared: true,
            },
            Some(VsockBackend::User) => Ram::Memfd,
            _ => Ram::Private,
        };
        let secret = match spec.invite {
            true => Some(Secret::generate().map_err(MachineError::io("cannot draw a secret"))?),
            false => None,
        };
        Ok(Launch {
            spec,
            run,
            ram,
            secret,
            incoming: None,
        })
    }

    /// Starts QEMU and its company.
    pub async fn start(self) -> Result<Machine, MachineError> {
        let qemu = Qemu::find().await?;
        let Launch {
            spec,
            run,
            ram,
            secret,
            incoming,
        } = self;
        let log = |name: &str| spec.log_dir.join(name);
        scratch_disks(&spec, run.path())?;
        let mut wiring = Wiring {
            id: run.id().to_owned(),
            dir: run.path().to_owned(),
            ram,
            vsock: None,
            invitation: match &secret {
                Some(secret) => Some(invitation(secret, &run)?),
                None => None,
            },
            uefi: uefi(&spec, run.path())?,
            incoming: incoming.is_some(),
            sandbox: qemu.sandbox,
        };
        // A fork gets its vsock device when it runs: its daemon can come up beside QEMU.
        let vsock_log = log("vsock.log");
        let dir = run.path().to_owned();
        let mut attached = None;
        let mut later = None;
        match (spec.vsock, &incoming) {
            (Some(VsockBackend::User), Some(_)) => {
                later = Some(attach(VsockBackend::User, &dir, &vsock_log));
            }
            (Some(backend), _) => attached = Some(attach(backend, &dir, &vsock_log).await?),
            (None, _) => {}
        }
        if incoming.is_none() {
            wiring.vsock = attached.as_ref().map(|attached| attached.wire.clone());
        }

        let console = listen(run.path(), files::CONSOLE)?;
        let monitor = listen(run.path(), files::QMP)?;
        let command_line = arguments::arguments(&spec, &wiring);
        let args_file = log("qemu.args");
        std::fs::write(&args_file, shell_words(&qemu.program, &command_line)).map_err(
            MachineError::io(format!("cannot write {}", args_file.display())),
        )?;
        let said = log("qemu.log");
        let mut command = Kept::new(&qemu.program)
            .args(command_line.iter().cloned())
            .stderr(create(&said)?);
        // QEMU reads nothing from its standard input and writes nothing to its standard output:
        // those two are the descriptors that reach it by number.
        if let Some(state) = incoming {
            command = command.stdin(File::from(state));
        }
        if let Some(device) = attached
            .as_mut()
            .and_then(|attached| attached.device.take())
        {
            command = command.stdout(device);
        }
        let start = Instant::now();
        let running = bring_up(qemu, command, console, monitor, &said);
        let up = match later {
            Some(later) => {
                let (up, later) = tokio::try_join!(running, later)?;
                attached = Some(later);
                up
            }
            None => running.await?,
        };
        Machine::assemble(Parts {
            spec,
            run,
            secret,
            command_line,
            start,
            up,
            attached,
        })
    }
}

/// A QEMU that runs, with both of its sockets connected.
pub(crate) struct Up {
    pub(crate) qemu: Child,
    pub(crate) console: UnixStream,
    pub(crate) qmp: Qmp,
    pub(crate) qmp_events: mpsc::UnboundedReceiver<QmpEvent>,
}

/// Starts QEMU and waits until it has connected to us. `said` is where its messages go.
async fn bring_up(
    qemu: &Qemu,
    command: Kept,
    console: UnixListener,
    monitor: UnixListener,
    said: &Path,
) -> Result<Up, MachineError> {
    let mut child = command.spawn().await.map_err(MachineError::io(format!(
        "cannot start {}",
        qemu.program.display()
    )))?;
    let connected = tokio::time::timeout(COMING_UP, async {
        tokio::select! {
            both = accept_both(&console, &monitor) => both,
            _ended = child.wait() => Err(io::ErrorKind::NotConnected.into()),
        }
    });
    let (console, monitor) = match connected.await {
        Ok(Ok(both)) => both,
        Ok(Err(_)) => return Err(ended_early("QEMU", &mut child, said).await),
        Err(_) => {
            return Err(MachineError::Slow {
                what: "QEMU's connection to its console and monitor".into(),
                whose: Whose::Host,
                within: COMING_UP,
                log: said.to_owned(),
            });
        }
    };
    match Qmp::open(monitor).await {
        Ok((qmp, qmp_events)) => Ok(Up {
            qemu: child,
            console,
            qmp,
            qmp_events,
        }),
        Err(error) => {
            // A device that cannot be made ends QEMU after its sockets are connected.
            let ended = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
            Err(match ended {
                Ok(_) => ended_early("QEMU", &mut child, said).await,
                Err(_) => error.into(),
            })
        }
    }
}

/// Everything the spec needs that is not there, in one error.
fn check(spec: &MachineSpec) -> Result<(), MachineError> {
    let mut missing = Vec::new();
    let mut file = |what: &str, path: &Path, remedy: &str| {
        if let Err(error) = File::open(path) {
            missing.push(format!(
                "{what} {} cannot be read ({error}); {remedy}",
                path.display()
            ));
        }
    };
    if let Some(image) = &spec.image {
        file("image", image, "build it with `cargo images build`");
    }
    if let Some(direct) = &spec.kernel {
        file("kernel", &direct.kernel, "name an existing bzImage");
        if let Some(initrd) = &direct.initrd {
            file("initramfs", initrd, "name an existing one");
        }
    }
    for disk in &spec.disks {
        if let DiskContent::ReadOnly { path, .. } = &disk.content {
            file(&format!("disk `{}`", disk.serial), path, "make it first");
        }
    }
    for disk in &spec.disks {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if disk.serial.is_empty() || disk.serial.len() > 20 || !disk.serial.chars().all(plain) {
            missing.push(format!(
                "`{}` cannot be a disk's serial: it has 1 to 20 letters, digits, `-` or `_`",
                disk.serial
            ));
        }
    }
    if spec.cpus == 0 || spec.memory_mib < 16 {
        missing.push(format!(
            "{} CPUs and {} MiB make no machine: at least one CPU and 16 MiB",
            spec.cpus, spec.memory_mib
        ));
    }
    if spec.firmware == Firmware::Uefi && ovmf().is_none() {
        missing.push("UEFI firmware is not installed: `apt-get install ovmf`".into());
    }
    if let Err(error) = std::fs::create_dir_all(&spec.log_dir) {
        missing.push(format!(
            "log folder {} cannot be made ({error})",
            spec.log_dir.display()
        ));
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(MachineError::Unmet {
            name: spec.name.clone(),
            missing,
        }),
    }
}

fn ovmf() -> Option<&'static (&'static str, &'static str)> {
    OVMF.iter()
        .find(|(code, vars)| Path::new(code).is_file() && Path::new(vars).is_file())
}

fn uefi(spec: &MachineSpec, dir: &Path) -> Result<Option<(PathBuf, PathBuf)>, MachineError> {
    if spec.firmware != Firmware::Uefi {
        return Ok(None);
    }
    let Some((code, template)) = ovmf() else {
        return Ok(None);
    };
    let vars = dir.join(files::UEFI_VARS);
    if !vars.exists() {
        std::fs::copy(template, &vars)
            .and_then(|_| std::fs::set_permissions(&vars, PermissionsExt::from_mode(0o600)))
            .map_err(MachineError::io(format!("cannot copy {template}")))?;
    }
    Ok(Some((code.into(), vars)))
}

/// The invitation: an SMBIOS string that systemd hands out as a credential (systemd.exec(5)). In a
/// file, so that it does not show in `ps`.
fn invitation(secret: &Secret, run: &RunDir) -> Result<PathBuf, MachineError> {
    let text = format!("io.systemd.credential:{CREDENTIAL}={}", secret.to_hex());
    run.write("invitation.smbios", text.as_bytes())
}

/// Makes the scratch disks that are not there yet, sparse.
fn scratch_disks(spec: &MachineSpec, dir: &Path) -> Result<(), MachineError> {
    for disk in &spec.disks {
        let DiskContent::Scratch { mib } = disk.content else {
            continue;
        };
        let path = arguments::scratch_file(dir, &disk.serial);
        if !path.exists() {
            create(&path)?
                .set_len(mib << 20)
                .map_err(MachineError::io(format!("cannot make {}", path.display())))?;
        }
    }
    Ok(())
}

fn listen(dir: &Path, name: &str) -> Result<UnixListener, MachineError> {
    let path = dir.join(name);
    unlink(&path)?;
    UnixListener::bind(&path).map_err(MachineError::io(format!(
        "cannot listen on {}",
        path.display()
    )))
}

pub(crate) fn unlink(path: &Path) -> Result<(), MachineError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(MachineError::io(format!(
            "cannot remove {}",
            path.display()
        ))(error)),
        _ => Ok(()),
    }
}

pub(crate) fn create(path: &Path) -> Result<File, MachineError> {
    File::create(path).map_err(MachineError::io(format!(
        "cannot create {}",
        path.display()
    )))
}

async fn accept_both(
    console: &UnixListener,
    monitor: &UnixListener,
) -> io::Result<(UnixStream, UnixStream)> {
    let (console, monitor) = tokio::try_join!(console.accept(), monitor.accept())?;
    Ok((console.0, monitor.0))
}

pub(crate) async fn ended_early(program: &str, child: &mut Child, log: &Path) -> MachineError {
    let status = match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    MachineError::EndedEarly {
        program: program.into(),
        status,
        tail: tail(log),
        log: log.to_owned(),
    }
}

/// The last lines of a log, at most 2 KiB.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2048)..]).into_owned();
    let lines: Vec<&str> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// A command line one can paste into a shell.
fn shell_words(program: &Path, arguments: &[String]) -> String {
    let mut out = program.display().to_string();
    for argument in arguments {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+".contains(c);
        let start = if argument.starts_with('-') {
            " \\\n  "
        } else {
            " "
        };
        out.push_str(start);
        match !argument.is_empty() && argument.chars().all(plain) {
            true => out.push_str(argument),
            false => out.push_str(&format!("'{}'", argument.replace('\'', "'\\''"))),
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExtraDisk;

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut spec = MachineSpec::new("demo", "/nowhere/image.qcow2", dir.path().join("log"));
        spec.vsock = None;
        spec.disks = vec![
            ExtraDisk::tools("/nowhere/tools.ext4"),
            ExtraDisk::scratch(64),
        ];
        spec.disks[1].serial = "a serial with spaces".into();
        spec.cpus = 0;
        let text = check(&spec).expect_err("unmet").to_string();
        assert_eq!(
            text,
            "machine `demo` cannot be started:\n  \
             - image /nowhere/image.qcow2 cannot be read (No such file or directory (os error 2)); \
             build it with `cargo images build`\n  \
             - disk `vexfs-tools` /nowhere/tools.ext4 cannot be read (No such file or directory \
             (os error 2)); make it first\n  \
             - `a serial with spaces` cannot be a disk's serial: it has 1 to 20 letters, digits, \
             `-` or `_`\n  \
             - 0 CPUs and 1024 MiB make no machine: at least one CPU and 16 MiB"
        );
    }

    #[test]
    fn the_command_line_can_be_pasted() {
        let words = ["-name", "it's", "-m", "64M"].map(str::to_owned);
        assert_eq!(
            shell_words(Path::new("qemu"), &words),
            "qemu \\\n  -name 'it'\\''s' \\\n  -m 64M\n"
        );
    }
}
