//! The file system as a user meets it: make it, mount it, trust it with data.

use crate::lab::{Failure, Lab, SCRATCH};

/// A fresh file system mounts by its type name, is empty, and unmounts.
pub async fn mkfs_mount(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    let fstype = lab.source().fstype.clone();
    let seen = guest
        .sh(&format!(
            "findmnt --noheadings --output FSTYPE {}",
            mount.path()
        ))
        .await?;
    if seen.trim() != fstype {
        return Err(Failure::check(
            "mount",
            format!("mounted as `{}`, not `{fstype}`", seen.trim()),
            seen,
        ));
    }
    let inside = guest.sh(&format!("ls -A {}", mount.path())).await?;
    if !inside.lines().all(|name| name == "lost+found") {
        return Err(Failure::check(
            "mount",
            "a fresh file system is not empty",
            inside,
        ));
    }
    mount.unmount(&guest).await
}

/// Files of awkward sizes, directories and names survive a remount, byte by byte.
pub async fn write_remount_compare(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    // Sizes around the page and block edges, an empty file, and one of many pages; random data,
    // so that a block read from elsewhere cannot look right.
    guest
        .sh(&format!(
            "cd {dir}
             mkdir -p deep/er/est 'name with spaces'
             for size in 0 1 511 4095 4096 4097 65536 1000001 8388609; do
               head -c $size /dev/urandom > deep/er/file-$size
             done
             printf 'VEXFS-CHECK-MARK\\n' > 'name with spaces/mark'
             find . -type f -exec sha256sum {{}} + | sort > /run/before
             sync"
        ))
        .await?;
    mount.unmount(&guest).await?;
    lab.point("unmounted", &guest).await?;
    let mount = guest.mount_again(lab).await?;
    let differences = guest
        .exec([
            "/bin/sh",
            "-euc",
            &format!(
                "cd {dir}; echo 3 > /proc/sys/vm/drop_caches
                 find . -type f -exec sha256sum {{}} + | sort > /run/after
                 cmp -s /run/before /run/after || {{ comm -3 /run/before /run/after; exit 1; }}"
            ),
        ])
        .await?;
    if !differences.success() {
        return Err(Failure::check(
            "content",
            "content differs after a remount",
            format!("{}{}", differences.stdout_text(), differences.stderr_text()),
        ));
    }
    mount.unmount(&guest).await
}

/// Mounts, finds what all earlier rounds wrote, writes one line more, unmounts; many times.
pub async fn mount_cycles(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let rounds = lab.count("mount_cycles")?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    guest.sh(&format!(": > {dir}/rounds")).await?;
    mount.unmount(&guest).await?;
    let half = rounds / 2;
    for (from, to) in [(1, half), (half + 1, rounds)] {
        let again = lab.source().mount_command(SCRATCH, &dir);
        guest
            .sh(&format!(
                "for round in $(seq {from} {to}); do
                   {again}
                   seen=$(wc -l < {dir}/rounds)
                   [ $seen -eq $((round - 1)) ] || {{ echo \"round $round finds $seen lines\"; exit 1; }}
                   echo $round >> {dir}/rounds
                   umount {dir}
                 done"
            ))
            .await?;
        lab.point("halfway", &guest).await?;
    }
    Ok(())
}
