//! Choosing what executes the guest: `kvm` if it really works here, else QEMU's emulator.
//!
//! A `/dev/kvm` that opens proves little: there are hosts where it does, and even runs the
//! firmware, and then the kernel hangs for ever. So it takes three things: the processor's flag,
//! the device, and a kernel that gets as far as its banner on a small machine. The trial costs a
//! second, and its outcome is remembered until the host reboots or QEMU changes.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clock::{Clock, Passed};
use keeper::Kept;
use serde::{Deserialize, Serialize};

use super::{Accelerator, MachineError, Qemu};

/// How long the trial kernel has for its banner. With working virtualisation it takes well under
/// a second.
const TRIAL: Duration = Duration::from_secs(10);

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Request {
    /// The best that works.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// The emulator.
    Tcg,
}

impl std::str::FromStr for Request {
    type Err = String;

    fn from_str(word: &str) -> Result<Request, String> {
        match word {
            "auto" => Ok(Request::Auto),
            "kvm" => Ok(Request::Kvm),
            "tcg" => Ok(Request::Tcg),
            other => Err(format!(
                "unknown accelerator `{other}`: it is auto, kvm or tcg"
            )),
        }
    }
}

/// The accelerator to use, and why that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accel {
    /// The one to use.
    pub chosen: Accelerator,
    /// One line for whoever reads the log.
    pub why: String,
}

/// What the host shows, as far as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The processor flag that stands for virtualisation, `vmx` or `svm`, if there is one.
    pub cpu_flag: Option<String>,
    /// Whether `/dev/kvm` opens; if not, the system's words.
    pub device: Result<(), String>,
    /// What became of a guest kernel under KVM.
    pub trial: Trial,
}

/// What became of a guest kernel under KVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// There was no kernel to try it with.
    NoKernel,
    /// The kernel printed its banner.
    Banner,
    /// It did not; how it went instead.
    Failed(String),
}

/// Chooses from what was asked for and what is there.
///
/// # Errors
/// [`MachineError::NoKvm`] when KVM was asked for and does not work.
pub fn decide(request: Request, facts: &Facts) -> Result<Accel, MachineError> {
    if request == Request::Tcg {
        return Ok(Accel {
            chosen: Accelerator::Tcg,
            why: "tcg was asked for".into(),
        });
    }
    let verdict = match facts {
        Facts { cpu_flag: None, .. } => Err("the processor shows neither vmx nor svm".to_owned()),
        Facts {
            device: Err(why), ..
        } => Err(format!("/dev/kvm does not open ({why})")),
        Facts {
            trial: Trial::Failed(how),
            ..
        } => Err(format!("/dev/kvm opens but does not work: {how}")),
        Facts {
            trial: Trial::Banner,
            ..
        } => Ok("a guest kernel came up under it"),
        // Whoever insists gets it; whoever leaves the choice to us gets what is sure to work.
        Facts {
            trial: Trial::NoKernel,
            ..
        } if request == Request::Kvm => Ok(
            "it was asked for, and flag and device are there; there was no kernel to try it with",
        ),
        Facts {
            trial: Trial::NoKernel,
            ..
        } => Err("there is no kernel yet to try kvm with".to_owned()),
    };
    match (verdict, request) {
        (Ok(why), _) => Ok(Accel {
            chosen: Accelerator::Kvm,
            why: why.into(),
        }),
        (Err(why), Request::Kvm) => Err(MachineError::NoKvm { why }),
        (Err(why), _) => Ok(Accel {
            chosen: Accelerator::Tcg,
            why,
        }),
    }
}

/// Looks at the host and chooses. `kernel` is any bzImage for the trial; `cache` a directory where
/// the trial's outcome is remembered.
///
/// # Errors
/// [`MachineError::NoKvm`] when KVM was asked for and does not work; those of [`Qemu::find`] when
/// it comes to a trial.
pub async fn probe(
    request: Request,
    kernel: Option<&Path>,
    cache: &Path,
) -> Result<Accel, MachineError> {
    let mut facts = Facts {
        cpu_flag: cpu_flag(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        device: OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop)
            .map_err(|error| error.to_string()),
        trial: Trial::NoKernel,
    };
    let promising = request != Request::Tcg && facts.cpu_flag.is_some() && facts.device.is_ok();
    if promising && let Some(kernel) = kernel {
        facts.trial = remembered_trial(Qemu::find().await?, kernel, cache).await;
    }
    decide(request, &facts)
}

/// The virtualisation flag of the first processor in `/proc/cpuinfo`.
fn cpu_flag(cpuinfo: &str) -> Option<String> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    flags
        .split_whitespace()
        .find(|flag| matches!(*flag, "vmx" | "svm"))
        .map(str::to_owned)
}

/// What is remembered of a trial.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Memory {
    /// `/proc/sys/kernel/random/boot_id` of the host (random(4)): nested virtualisation may be
    /// switched on or off by a reboot.
    host_boot: String,
    qemu: String,
    trial: Trial,
}

async fn remembered_trial(qemu: &Qemu, kernel: &Path, cache: &Path) -> Trial {
    let file = cache.join("kvm-trial.json");
    let host_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let now = |trial| Memory {
        host_boot: host_boot.trim().into(),
        qemu: qemu.version.to_string(),
        trial,
    };
    if let Some(trial) = recall(&file, &now(Trial::NoKernel)) {
        return trial;
    }
    let memory = now(trial(qemu, kernel, TRIAL).await);
    // Not remembering costs a second next time, no more.
    std::fs::create_dir_all(cache)
        .and_then(|()| std::fs::write(&file, serde_json::to_vec_pretty(&memory)?))
        .unwrap_or_default();
    memory.trial
}

/// The trial in `file`, if it was made on the same boot of the host with the same QEMU.
fn recall(file: &Path, now: &Memory) -> Option<Trial> {
    let memory: Memory = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let same = memory.host_boot == now.host_boot && memory.qemu == now.qemu;
    (same && !now.host_boot.is_empty()).then_some(memory.trial)
}

/// Starts `kernel` on a small KVM machine and waits for its banner, at most `within`.
pub async fn trial(qemu: &Qemu, kernel: &Path, within: Duration) -> Trial {
    match banner(qemu, kernel, within).await {
        Ok(Ok(true)) => Trial::Banner,
        Ok(Ok(false)) => Trial::Failed("QEMU ended before the trial kernel said a word".into()),
        Ok(Err(late)) => Trial::Failed(format!("the trial kernel said nothing {late}")),
        Err(error) => Trial::Failed(error.to_string()),
    }
}

async fn banner(
    qemu: &Qemu,
    kernel: &Path,
    within: Duration,
) -> std::io::Result<Result<bool, Passed>> {
    let (read, write) = std::io::pipe()?;
    let child = Kept::new(&qemu.program)
        .args(trial_arguments(kernel))
        .stdout(write)
        .spawn()
        .await?;
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(read.into())?;
    let clock = Clock::of(vec![child.pid()], tokio::time::Instant::now());
    clock
        .timeout(within, speaks(pipe))
        .await
        .map_or_else(|late| Ok(Err(late)), |spoken| spoken.map(Ok))
}

/// Whether a Linux kernel says its banner before it ends.
async fn speaks(mut pipe: tokio::net::unix::pipe::Receiver) -> std::io::Result<bool> {
    let mut said: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = tokio::io::AsyncReadExt::read(&mut pipe, &mut buffer).await?;
        said.extend(&buffer[..count]);
        if said.windows(14).any(|window| window == b"Linux version ") {
            return Ok(true);
        }
        if count == 0 || said.len() > 1 << 20 {
            return Ok(false);
        }
    }
}

fn trial_arguments(kernel: &Path) -> Vec<String> {
    let kernel = PathBuf::from(kernel).display().to_string();
    [
        "-name",
        "vexfs-kvm-trial",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "q35",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "256M",
        "-serial",
        "stdio",
        "-no-reboot",
        "-kernel",
        &kernel,
        "-append",
        "console=ttyS0 earlyprintk=serial panic=-1",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(flag: bool, device: bool, trial: Trial) -> Facts {
        Facts {
            cpu_flag: flag.then(|| "vmx".into()),
            device: if device {
                Ok(())
            } else {
                Err("No such file or directory".into())
            },
            trial,
        }
    }

    /// All combinations: `k` is KVM, `t` TCG, `!` a refusal; per request auto, kvm, tcg.
    #[test]
    fn every_combination() {
        let hung = || Trial::Failed("the trial kernel said nothing within 10 s".into());
        let table = [
            (true, true, Trial::Banner, "kkt"),
            (true, true, hung(), "t!t"),
            (true, true, Trial::NoKernel, "tkt"),
            (true, false, Trial::Banner, "t!t"),
            (true, false, hung(), "t!t"),
            (true, false, Trial::NoKernel, "t!t"),
            (false, true, Trial::Banner, "t!t"),
            (false, true, hung(), "t!t"),
            (false, true, Trial::NoKernel, "t!t"),
            (false, false, Trial::Banner, "t!t"),
            (false, false, hung(), "t!t"),
            (false, false, Trial::NoKernel, "t!t"),
        ];
        for (flag, device, trial, expected) in table {
            let facts = facts(flag, device, trial);
            let got: String = [Request::Auto, Request::Kvm, Request::Tcg]
                .map(|request| match decide(request, &facts) {
                    Ok(Accel {
                        chosen: Accelerator::Kvm,
                        ..
                    }) => 'k',
                    Ok(Accel {
                        chosen: Accelerator::Tcg,
                        ..
                    }) => 't',
                    Err(_) => '!',
                })
                .iter()
                .collect();
            assert_eq!(got, expected, "{facts:?}");
        }
    }

    #[test]
    fn a_device_that_opens_but_does_not_work_is_told_plainly() {
        let facts = facts(
            true,
            true,
            Trial::Failed("the trial kernel said nothing within 10 s".into()),
        );
        let accel = decide(Request::Auto, &facts).expect("falls back");
        assert_eq!(
            accel.why,
            "/dev/kvm opens but does not work: the trial kernel said nothing within 10 s"
        );
        let error = decide(Request::Kvm, &facts).expect_err("refuses");
        assert_eq!(
            error.to_string(),
            "accelerator kvm was asked for, but /dev/kvm opens but does not work: the trial kernel \
             said nothing within 10 s; use `--accel auto` or `--accel tcg`"
        );
    }

    #[test]
    fn the_flag_is_a_word_of_its_own() {
        let line = "processor : 0\nflags\t\t: fpu vme svm_lock avic\nflags : svm\n";
        assert_eq!(cpu_flag(line), None);
        assert_eq!(cpu_flag("flags\t\t: fpu svm nrip").as_deref(), Some("svm"));
        assert_eq!(cpu_flag(""), None);
    }

    #[test]
    fn a_trial_is_remembered_until_reboot_or_upgrade() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("kvm-trial.json");
        let memory = |boot: &str, qemu: &str| Memory {
            host_boot: boot.into(),
            qemu: qemu.into(),
            trial: Trial::Banner,
        };
        assert_eq!(recall(&file, &memory("a", "7")), None);
        std::fs::write(&file, serde_json::to_vec(&memory("a", "7")).expect("JSON"))
            .expect("writes");
        assert_eq!(recall(&file, &memory("a", "7")), Some(Trial::Banner));
        assert_eq!(recall(&file, &memory("b", "7")), None);
        assert_eq!(recall(&file, &memory("a", "8")), None);
        std::fs::write(&file, "garbage").expect("writes");
        assert_eq!(recall(&file, &memory("a", "7")), None);
    }
}
