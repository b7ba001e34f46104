//! What a machine makes of the image when it starts for the first time, wherever it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::boot::settled;
use crate::lab::{Boot, Failure, Guest, Lab};

/// How far a clock may be off, in seconds: an RTC knows whole seconds only, and a busy host answers late.
const CLOCK_TOLERANCE: f64 = 3.0;
/// How much larger than the image a disk is made, in bytes.
const GROWTH: u64 = 4 << 30;

/// The same disk starts under UEFI.
pub async fn boots_uefi(lab: &mut Lab) -> Result<(), Failure> {
    let boot = match lab.breaks("firmware") {
        true => Boot::invited(),
        false => Boot::invited().by_uefi(),
    };
    let guest = lab.boot(boot).await?;
    settled(&guest).await?;
    let firmware = guest.exec(["test", "-d", "/sys/firmware/efi"]).await?;
    if !firmware.success() {
        return Err(Failure::check(
            "boot",
            "the system came up, but not by UEFI",
            guest.sh("ls /sys/firmware; dmesg | head -n 20").await?,
        ));
    }
    let module = lab.source().module.clone();
    guest.sh(&format!("modprobe {module}")).await?;
    guest.power_off().await
}

/// What must be different on every machine: a name, and how a guest shows it.
const IDENTITY: &[(&str, &str)] = &[
    ("machine id", "cat /etc/machine-id"),
    ("SSH host key", "cat /etc/ssh/ssh_host_*_key.pub"),
    ("random seed", "sha256sum </var/lib/systemd/random-seed"),
];

/// Two machines made of one image are two machines.
pub async fn first_boot_keys(lab: &mut Lab) -> Result<(), Failure> {
    let one = lab.guest().await?;
    let other = lab.boot(Boot::invited()).await?;
    settled(&other).await?;
    for guest in [&one, &other] {
        lab.point("asked", guest).await?;
    }
    for (what, script) in IDENTITY {
        let (a, b) = (one.sh(script).await?, other.sh(script).await?);
        if a == b || a.trim().is_empty() || b.trim().is_empty() {
            return Err(Failure::check(
                "identity",
                format!("two machines have one {what}, or none"),
                format!("{a}{b}"),
            ));
        }
    }
    other.power_off().await
}

/// The clock is right after a boot without network.
pub async fn clock(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.boot(Boot::invited()).await?;
    lab.point("booted", &guest).await?;
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or(Duration::ZERO).as_secs_f64()
    };
    let before = now();
    let said = guest.sh("date +%s.%N").await?;
    let after = now();
    let guests: f64 = said.trim().parse().unwrap_or(0.0);
    let off = if guests < before {
        guests - before
    } else {
        (guests - after).max(0.0)
    };
    lab.fact("clock-offset-seconds", format!("{off:.1}"));
    if off.abs() > CLOCK_TOLERANCE {
        return Err(Failure::check(
            "clock",
            format!("the clock is off by {off:.0} s after a boot"),
            format!("host {before}..{after}, guest {said}"),
        ));
    }
    guest.power_off().await
}

/// On a larger disk the root file system is larger.
pub async fn disk_grows(lab: &mut Lab) -> Result<(), Failure> {
    let image = lab.manifest().disk.virtual_bytes.unwrap_or_default();
    let boot = match lab.breaks("small disk") {
        true => Boot::invited(),
        false => Boot::invited().on_disk_of(image + GROWTH),
    };
    let guest = lab.boot(boot).await?;
    settled(&guest).await?;
    let blocks = guest.sh("stat --file-system --format='%b %S' /").await?;
    let bytes: u64 = blocks
        .split_whitespace()
        .filter_map(|word| word.parse::<u64>().ok())
        .product();
    // ext4 keeps some for itself.
    if bytes < (image + GROWTH) / 100 * 95 {
        return Err(Failure::check(
            "disk",
            format!("on a disk of {} bytes the root file system has {bytes}", image + GROWTH),
            guest.sh("lsblk --bytes; journalctl --boot --no-pager -u systemd-repart -u 'systemd-growfs*'").await?,
        ));
    }
    guest.power_off().await
}

/// The seed the check gives.
const USER_DATA: &str = "#cloud-config
hostname: seeded
users:
  - name: ann
    ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ann]
write_files:
  - path: /etc/seeded.conf
    permissions: '0640'
    content: |
      from the seed
runcmd:
  - echo ran >>/etc/seeded.log
";
/// What it must have done, a shell test each.
const SEEDED: &[(&str, &str)] = &[
    ("the host name", "[ \"$(hostname)\" = seeded ]"),
    ("the user", "id ann"),
    (
        "the user's key",
        "grep -q AAAAC3NzaC1lZDI1NTE5 /home/ann/.ssh/authorized_keys",
    ),
    (
        "the file",
        "grep -qx 'from the seed' /etc/seeded.conf && [ \"$(stat -c %a /etc/seeded.conf)\" = 640 ]",
    ),
    ("the command, once", "[ \"$(cat /etc/seeded.log)\" = ran ]"),
    (
        "once and for all",
        "systemctl restart 'vexfs-seed@*' && [ \"$(cat /etc/seeded.log)\" = ran ]",
    ),
];

/// A NoCloud seed on a disk is carried out at the first boot.
pub async fn seeded(lab: &mut Lab) -> Result<(), Failure> {
    let label = if lab.breaks("seed") {
        "NODATA"
    } else {
        "CIDATA"
    };
    let disk = lab.seed_disk(label, USER_DATA).await?;
    let guest = lab.boot(Boot::invited().with_disk(disk)).await?;
    settled(&guest).await?;
    for (what, test) in SEEDED {
        let done = guest.exec(["/bin/sh", "-c", test]).await?;
        if !done.success() {
            return Err(Failure::check(
                "seed",
                format!("the seed was not carried out: {what}"),
                journal_of_seed(&guest).await?,
            ));
        }
    }
    guest.power_off().await
}

async fn journal_of_seed(guest: &Guest) -> Result<String, Failure> {
    guest
        .sh("lsblk --output NAME,LABEL,FSTYPE; journalctl --boot --no-pager --unit 'vexfs-seed@*' || true")
        .await
}
