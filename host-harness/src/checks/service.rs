//! `vexfs.service`: mounts what the configuration names, and unmounts it.

use crate::lab::{Failure, Lab};

/// Starts with nothing to mount, starts with an fstab entry and mounts it, stops and unmounts.
pub async fn mounts_and_stops(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let fstype = lab.source().fstype.clone();
    guest
        .sh("systemctl is-enabled vexfs.service && systemctl is-active vexfs.service")
        .await?;
    let disk = guest.fresh_disk(lab).await?;
    guest
        .sh(&format!(
            "mkdir -p /srv/vexfs
             echo '{disk} /srv/vexfs {fstype} defaults,nofail 0 0' >> /etc/fstab
             systemctl restart vexfs.service"
        ))
        .await?;
    lab.point("started", &guest).await?;
    let mounted = guest
        .exec([
            "findmnt",
            "--noheadings",
            "--output",
            "FSTYPE",
            "/srv/vexfs",
        ])
        .await?;
    if mounted.stdout_text().trim() != fstype {
        return Err(Failure::check(
            "service",
            "vexfs.service did not mount what fstab names",
            guest
                .sh("systemctl status --no-pager --full vexfs.service; cat /etc/fstab")
                .await?,
        ));
    }
    guest
        .sh("echo served > /srv/vexfs/file && systemctl stop vexfs.service")
        .await?;
    if guest.exec(["findmnt", "/srv/vexfs"]).await?.success() {
        return Err(Failure::check(
            "service",
            "vexfs.service stopped and left its mount",
            guest
                .sh("journalctl --no-pager --unit vexfs.service")
                .await?,
        ));
    }
    guest.sh("systemctl start vexfs.service && grep -qx served /srv/vexfs/file && systemctl stop vexfs.service").await?;
    Ok(())
}
