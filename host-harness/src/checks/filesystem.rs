//! The file system as a user meets it: make it, mount it, trust it with data.

use super::limits::busy;
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
    lab.point("mounted", &guest).await?;
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
        let lines = differences.stdout_text();
        let said = format!("{lines}{}", differences.stderr_text());
        let what = content_difference(&lines);
        return Err(Failure::check(
            "content",
            format!("content differs after a remount: {what}"),
            said,
        ));
    }
    mount.unmount(&guest).await
}

/// On a busy system: mounts, finds what all earlier rounds wrote, writes one line more, unmounts; many times.
pub async fn mount_cycles(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let rounds = lab.count("mount_cycles")?;
    let busy = busy(&guest.tool(lab, "stress-ng").await?);
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    guest.sh(&format!(": > {dir}/rounds")).await?;
    mount.unmount(&guest).await?;
    let half = rounds / 2;
    for (from, to) in [(1, half), (half + 1, rounds)] {
        let again = lab.source().mount_command(SCRATCH, &dir);
        guest
            .sh(&format!(
                "{busy}
                 for round in $(seq {from} {to}); do
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

/// The first file of what `comm -3` of two lists of sha256sum(1) shows, and what became of it: the
/// second list's lines begin with a tab.
fn content_difference(lines: &str) -> String {
    let file = |line: &str| {
        let name = line.trim_start().split_once("  ").map(|(_, name)| name);
        name.unwrap_or(line).to_owned()
    };
    let (after, before): (Vec<&str>, Vec<&str>) =
        lines.lines().partition(|line| line.starts_with('\t'));
    let after: Vec<String> = after.into_iter().map(file).collect();
    let before: Vec<String> = before.into_iter().map(file).collect();
    let first = |what: &str, files: &mut dyn Iterator<Item = &String>| {
        files.next().map(|name| format!("{name} {what}"))
    };
    first(
        "is lost",
        &mut before.iter().filter(|name| !after.contains(name)),
    )
    .or_else(|| first("is not what was written", &mut before.iter()))
    .or_else(|| first("was never written", &mut after.iter()))
    .unwrap_or_else(|| "the files cannot be read".into())
}

/// What files took is free again when they are deleted and the disk has been told. Blocks and
/// inodes are counted in the same mount, so that only what the file system keeps for itself (a log,
/// a bitmap) is beside the point.
pub async fn space_returns(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    let before = guest.room_when_warm(&mount).await?;
    guest
        .sh(&format!(
            "cd {dir}; mkdir tree
             for n in 1 2 3 4 5 6 7 8; do head -c 300000 /dev/zero > tree/$n; done
             sync"
        ))
        .await?;
    lab.point("written", &guest).await?;
    guest
        .sh(&format!(
            "cd {dir}; rm -r tree; sync; echo 2 > /proc/sys/vm/drop_caches"
        ))
        .await?;
    let kept = guest.room_kept(&mount, before).await?;
    if let Some(first) = kept.first() {
        return Err(Failure::check("space", first.clone(), kept.join("\n")));
    }
    mount.unmount(&guest).await
}

#[cfg(test)]
mod tests {
    use super::content_difference;

    #[test]
    fn the_first_difference_is_named() {
        let says = content_difference;
        assert_eq!(says("aa  ./a b\n"), "./a b is lost");
        assert_eq!(says("aa  ./a\n\tbb  ./a\n"), "./a is not what was written");
        assert_eq!(says("aa  ./a\n\tbb  ./a\ncc  ./c\n"), "./c is lost");
        assert_eq!(says("\tbb  ./new\n"), "./new was never written");
        assert_eq!(says(""), "the files cannot be read");
    }
}
