//! How long from power-on to the agent's answer, and to a settled system? And where did it go?

mod times;

use std::sync::Arc;
use std::time::Duration;

use super::machines::logs;
use crate::lab::{BOOT_DEADLINE, Failure, Guest, Setup};
use machine::{DirectKernel, Firmware, Machine, MachineSpec, admission};
use results::figures::{Direction, Metric, Waterfall};

/// A way to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// From the disk, by SeaBIOS.
    Bios,
    /// From the disk, by OVMF.
    Uefi,
    /// The image's kernel and initramfs, put into memory by QEMU.
    Direct(DirectKernel),
}

impl Way {
    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Way::Bios => "bios",
            Way::Uefi => "uefi",
            Way::Direct(_) => "direct",
        }
    }
}

/// What one boot showed.
#[derive(Debug, Clone)]
pub struct Boot {
    /// From power-on to the agent's answer.
    pub agent: Duration,
    /// From power-on until systemd was done.
    pub settled: Duration,
    /// Where it went.
    pub waterfall: Waterfall,
}

/// The ways an image can be booted here. The direct way needs the image's own kernel and initramfs, which
/// a fork is asked for; they are put into `dir`.
///
/// # Errors
/// When the fork does not come up.
pub async fn ways(setup: &Setup, dir: &std::path::Path) -> Result<Vec<Way>, Failure> {
    let guest = super::machines::fork(setup, "kernel").await?;
    let fetch = async |what: &str| -> Result<std::path::PathBuf, Failure> {
        let path = guest.sh(&format!("readlink -f /boot/{what}")).await?;
        let content = guest
            .client()
            .get_file(path.trim(), 256 << 20, Duration::from_secs(120));
        let content = guest.ask(&format!("fetch {what}"), content).await?;
        let to = dir.join(what);
        std::fs::write(&to, content.bytes)
            .map_err(|e| Failure::Host(format!("cannot write {}: {e}", to.display())))?;
        Ok(to)
    };
    let line = guest.sh("cat /proc/cmdline").await?;
    let words = line.split_whitespace();
    let words: Vec<&str> = words
        .filter(|word| !word.starts_with("BOOT_IMAGE="))
        .collect();
    let direct = DirectKernel {
        kernel: fetch("vmlinuz").await?,
        initrd: Some(fetch("initrd.img").await?),
        command_line: words.join(" "),
    };
    Ok(vec![Way::Bios, Way::Uefi, Way::Direct(direct)])
}

/// Boots a fresh overlay once. The machine's end is not part of the time.
///
/// # Errors
/// When it does not come up or does not settle.
pub async fn once(setup: &Setup, way: &Way) -> Result<Boot, Failure> {
    let spec = MachineSpec {
        accelerator: setup.host.accel.chosen,
        vsock: Some(setup.host.vsock.chosen),
        firmware: match way {
            Way::Uefi => Firmware::Uefi,
            Way::Bios | Way::Direct(_) => Firmware::Bios,
        },
        kernel: match way {
            Way::Direct(kernel) => Some(kernel.clone()),
            Way::Bios | Way::Uefi => None,
        },
        ..MachineSpec::new("perf-boot", &setup.image.disk, logs(setup, "boot"))
    };
    let ticket = admission::enter(&spec)
        .await
        .map_err(|e| Failure::Host(format!("cannot wait for room on this host: {e}")))?;
    let mut machine = Machine::boot(spec).await?;
    machine.hold(ticket);
    let machine = Arc::new(machine);
    let guest = Guest::meet(machine.clone(), setup.boot_deadline, BOOT_DEADLINE).await?;
    let agent = machine.age();
    guest.settle().await?;
    let settled = machine.age();
    let waterfall = waterfall(&guest, &machine, way, &setup.image.manifest.variant).await?;
    Ok(Boot {
        agent,
        settled,
        waterfall,
    })
}

async fn waterfall(
    guest: &Guest,
    machine: &Machine,
    way: &Way,
    variant: &str,
) -> Result<Waterfall, Failure> {
    // Both clocks at one moment; the middle of the question is nearest to when it was answered.
    let asked = machine.age();
    let uptime = guest.sh("cat /proc/uptime").await?;
    let answered = machine.age();
    let seconds = uptime.split(' ').next().and_then(|word| word.parse().ok());
    let up = Duration::from_secs_f64(seconds.unwrap_or_default());
    let kernel_log = guest.kernel_log_since(0).await?;
    let manager = guest
        .sh("systemctl show --property=UserspaceTimestampMonotonic,FinishTimestampMonotonic")
        .await?;
    let units = guest
        .sh("systemctl show '*' \
             --property=Id,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic")
        .await?;
    let console = machine.console().since(machine::Mark::START).0;
    let clues = times::Clues {
        console: &console,
        kernel_began: ((asked + answered) / 2).saturating_sub(up),
        kernel_log: &kernel_log,
        manager: &manager,
    };
    Ok(Waterfall {
        image: variant.to_owned(),
        firmware: way.name().to_owned(),
        stages: times::stages(&clues)
            .map_err(|why| Failure::check("boot", why, manager.clone()))?,
        units: times::slowest_units(&units),
    })
}

/// Boots each way `rounds` times, the ways in turn.
///
/// # Errors
/// When a boot fails.
pub async fn measure(
    setup: &Setup,
    rounds: usize,
) -> Result<(Vec<Metric>, Vec<Waterfall>), Failure> {
    let dir = tempfile::tempdir()
        .map_err(|e| Failure::Host(format!("cannot make a temporary folder: {e}")))?;
    let ways = ways(setup, dir.path()).await?;
    let subject = setup.image.manifest.variant.as_str();
    let mut metrics = Vec::new();
    for way in &ways {
        for what in ["agent", "settled"] {
            let name = format!("boot/{}_to_{what}", way.name());
            metrics.push(Metric::new(&name, subject, "s", Direction::Lower));
        }
    }
    let mut waterfalls = Vec::new();
    for round in 0..rounds {
        for (at, way) in ways.iter().enumerate() {
            let boot = once(setup, way).await?;
            metrics[2 * at].samples.push(boot.agent.as_secs_f64());
            metrics[2 * at + 1].samples.push(boot.settled.as_secs_f64());
            if round + 1 == rounds {
                waterfalls.push(boot.waterfall);
            }
        }
    }
    Ok((metrics, waterfalls))
}
