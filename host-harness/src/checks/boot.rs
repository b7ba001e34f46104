//! The image comes up, and comes up the same every time.

use std::time::Instant;

use crate::lab::{Boot, Failure, Guest, Lab};

/// Every unit that should run runs, and systemd says that it is done. The report says when that was,
/// by the host's clock from power-on and by the guest's from its kernel's start; how long it may take is
/// the deadline's to say.
pub async fn settles(lab: &mut Lab) -> Result<(), Failure> {
    let begin = Instant::now();
    let guest = lab.boot(Boot::invited()).await?;
    lab.fact(
        "agent-seconds",
        format!("{:.1}", begin.elapsed().as_secs_f64()),
    );
    lab.point("booted", &guest).await?;
    settled(&guest).await?;
    lab.fact(
        "settled-seconds",
        format!("{:.1}", begin.elapsed().as_secs_f64()),
    );
    let finished = guest
        .sh("systemctl show --property=FinishTimestampMonotonic --value")
        .await?;
    match finished.trim().parse::<f64>() {
        Ok(microseconds) if microseconds > 0.0 => {
            lab.fact(
                "settled-guest-seconds",
                format!("{:.1}", microseconds / 1e6),
            );
        }
        _ => {
            return Err(Failure::check(
                "boot",
                "systemd does not say when the boot was over",
                finished,
            ));
        }
    }
    guest.power_off().await
}

/// Waits for systemd's own word on the boot.
pub(super) async fn settled(guest: &Guest) -> Result<(), Failure> {
    let state = guest
        .exec(["systemctl", "is-system-running", "--wait"])
        .await?;
    let failed = guest
        .sh("systemctl list-units --failed --plain --no-legend")
        .await?;
    if state.stdout_text().trim() != "running" || !failed.trim().is_empty() {
        let journal = guest
            .sh("journalctl --boot --priority warning --no-pager --lines 40")
            .await?;
        return Err(Failure::check(
            "boot",
            format!(
                "the system is `{}`, not `running`",
                state.stdout_text().trim()
            ),
            format!("failed units:\n{failed}\njournal:\n{journal}"),
        ));
    }
    Ok(())
}

/// What a boot leaves that must not depend on which boot it was. Left out: `systemd-fsckd`, which
/// ends by itself half a minute after the checks of the disks, the mounts of credentials, and the order of
/// mounts: systemd makes those of fstab side by side. udev goes on loading modules after
/// systemd is done, so it is waited for.
async fn portrait(guest: &Guest) -> Result<String, Failure> {
    guest
        .sh("udevadm settle --timeout=60
             uname -r
             sed 's/ *$//' /proc/cmdline
             findmnt --real --list --noheadings --output TARGET,FSTYPE,OPTIONS | sort
             lsblk --noheadings --output NAME,SIZE,FSTYPE /dev/vda
             systemctl list-units --type service,socket,mount --state active,failed --plain --no-legend \
               | awk '{print $1}' | grep -v -e '^run-credentials' -e '^systemd-fsckd' | sort
             lsmod | awk 'NR > 1 {print $1}' | sort
             dpkg-query -W | sha256sum")
        .await
}

/// Boots an overlay of the image twice: the same system comes up, under different boot ids, and
/// the image itself has not changed by a byte.
pub async fn boots_twice(lab: &mut Lab) -> Result<(), Failure> {
    let before = lab.image_digest().await?;
    let mut portraits = Vec::new();
    let mut boots = Vec::new();
    for _ in 0..2 {
        let guest = lab.boot(Boot::invited()).await?;
        settled(&guest).await?;
        lab.point("booted", &guest).await?;
        portraits.push(portrait(&guest).await?);
        boots.push(guest.boot_id().to_owned());
        guest.power_off().await?;
        drop(guest);
    }
    if boots[0] == boots[1] {
        return Err(Failure::check(
            "boot",
            "both boots have one boot id",
            boots[0].clone(),
        ));
    }
    if portraits[0] != portraits[1] {
        return Err(Failure::check(
            "boot",
            "the second boot is not like the first",
            crate::lab::line_difference(&portraits[0], &portraits[1]),
        ));
    }
    let after = lab.image_digest().await?;
    if before != after {
        return Err(Failure::check(
            "image",
            "booting changed the image",
            format!("{before} -> {after}"),
        ));
    }
    Ok(())
}

/// What VexFS says when it finds a file system as a crash leaves it.
const REPLAYED: &str = "not unmounted in order, replaying the journal";
/// Where the file system under test is mounted at every boot.
const KEPT: &str = "/srv/kept";

/// What was written is there after a reboot and after a power-off, each in good order, and the file
/// system that `/etc/fstab` names is mounted again without anybody's help.
pub async fn power_cycle(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.boot(Boot::invited()).await?;
    settled(&guest).await?;
    let disk = guest.fresh_disk(lab).await?;
    let fstype = lab.source().fstype.clone();
    guest
        .sh(&format!(
            "mkdir -p {KEPT}
             echo '{disk} {KEPT} {fstype} defaults,nofail 0 0' >> /etc/fstab
             systemctl daemon-reload; systemctl restart vexfs.service
             findmnt {KEPT}
             head -c 3000001 /dev/urandom > {KEPT}/first; sha256sum {KEPT}/first > /etc/kept.sha256"
        ))
        .await?;
    lab.point("written", &guest).await?;
    let guest = lab.reboot(guest).await?;
    still_kept(&guest, "a reboot").await?;
    guest
        .sh(&format!(
            "head -c 40961 /dev/urandom > {KEPT}/second; sha256sum {KEPT}/second >> /etc/kept.sha256"
        ))
        .await?;
    lab.point("rebooted", &guest).await?;
    guest.power_off().await?;
    let guest = lab.power_up(guest).await?;
    still_kept(&guest, "a power-off").await?;
    unmounted_in_order(&guest, lab).await?;
    guest.power_off().await
}

/// The shutdown unmounted the file system: nothing was left to the journal.
async fn unmounted_in_order(guest: &Guest, lab: &Lab) -> Result<(), Failure> {
    // Others say it in other words.
    if lab.source().lacks("vexfs-format") {
        return Ok(());
    }
    let log = guest.kernel_log_since(0).await?;
    match log.iter().find(|line| line.text.contains(REPLAYED)) {
        None => Ok(()),
        Some(line) => Err(Failure::check(
            "power",
            "the power-off left the file system mounted",
            line.text.clone(),
        )),
    }
}

async fn still_kept(guest: &Guest, after: &str) -> Result<(), Failure> {
    settled(guest).await?;
    let look = format!("findmnt {KEPT} && sha256sum --check --quiet /etc/kept.sha256");
    let look = guest.exec(["/bin/sh", "-euc", &look]).await?;
    if look.success() {
        return Ok(());
    }
    Err(Failure::check(
        "content",
        format!("what was written is not there after {after}"),
        format!("{}{}", look.stdout_text(), look.stderr_text()),
    ))
}
