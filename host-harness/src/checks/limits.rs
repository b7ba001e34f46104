//! Where file systems end or grow long: full disks, huge directories, sparse files beyond 32 bits,
//! deep trees, many hands in one tree, a module that comes and goes.

use crate::lab::{Failure, Guest, Lab, Mount, SCRATCH};

/// Unmounts and has the source tree's own checker look at the disk.
async fn unmount_clean(lab: &Lab, guest: &Guest, mount: Mount) -> Result<(), Failure> {
    mount.unmount(guest).await?;
    guest.fsck_clean(lab).await
}

/// Fills the disk until ENOSPC, deletes everything, and finds all room free again.
pub async fn enospc(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    let before = guest.room_when_warm(&mount).await?;
    // Most of it by fallocate(1), for writing half a gigabyte takes a minute under emulation; a file
    // system without preallocation is filled by writing alone.
    let full = guest
        .sh(&format!(
            "export LC_ALL=C; cd {dir}; number=0; mkdir full
             fallocate -l 400M full/large || rm -f full/large
             while head -c 8M /dev/zero 2>/dev/null | dd of=full/$number bs=1M status=none 2>/run/said; do
               number=$((number + 1))
             done
             cat /run/said"
        ))
        .await?;
    if !full.contains("No space left on device") {
        let title = "a full disk says something else than ENOSPC";
        return Err(Failure::check("enospc", title, full));
    }
    guest
        .sh(&format!(
            "cd {dir}; ! {{ head -c 64K /dev/zero > one-more; }} 2>/dev/null; rm -rf full one-more
             sync; echo 2 > /proc/sys/vm/drop_caches"
        ))
        .await?;
    lab.point("deleted", &guest).await?;
    let kept = guest.room_kept(&mount, before).await?;
    if let Some(first) = kept.first() {
        return Err(Failure::check("enospc", first.clone(), kept.join("\n")));
    }
    unmount_clean(lab, &guest, mount).await
}

/// Ten thousand names in one directory, all found again after a remount, and none after deleting.
pub async fn many_names(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let names = lab.count("many_names")?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    guest
        .sh(&format!(
            "mkdir {dir}/many; cd {dir}/many
             for n in $(seq {names}); do : > some-rather-long-name-$n; done"
        ))
        .await?;
    mount.unmount(&guest).await?;
    lab.point("unmounted", &guest).await?;
    let mount = guest.mount_again(lab).await?;
    let seen = guest
        .sh(&format!(
            "cd {dir}/many
             for n in 1 2 {names} $(( {names} / 2 )); do [ -e some-rather-long-name-$n ]; done
             [ ! -e some-rather-long-name-0 ]
             ls -U | sort -u | wc -l"
        ))
        .await?;
    if seen.trim() != names.to_string() {
        return Err(Failure::check(
            "directory",
            format!("{} of {names} names are listed", seen.trim()),
            String::new(),
        ));
    }
    guest.sh(&format!("rm -r {dir}/many")).await?;
    unmount_clean(lab, &guest, mount).await
}

/// Data beyond 4 GiB in a file of holes stays where it was written, and the holes stay holes.
pub async fn sparse_file(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    let file = format!("{}/sparse", mount.path());
    // Positions in 4 KiB blocks: the first, the last before 4 GiB, the first after, and further.
    guest
        .sh(&format!(
            "truncate -s 5G {file}
             for block in 0 1048575 1048576 1200000; do
               echo block-$block | dd of={file} bs=4k seek=$block conv=notrunc status=none
             done"
        ))
        .await?;
    mount.unmount(&guest).await?;
    lab.point("unmounted", &guest).await?;
    let mount = guest.mount_again(lab).await?;
    let wrong = guest
        .sh(&format!(
            "for block in 0 1048575 1048576 1200000; do
               seen=$(dd if={file} bs=4k skip=$block count=1 status=none | tr -d '\\0')
               [ \"$seen\" = block-$block ] || echo \"block $block holds '$seen'\"
             done
             [ $(stat --format %s {file}) = 5368709120 ] || stat {file}
             hole=$(dd if={file} bs=4k skip=500000 count=16 status=none | tr -d '\\0' | wc -c)
             [ $hole = 0 ] || echo \"$hole bytes in a hole\"
             [ $(stat --format %b {file}) -le 2048 ] || echo \"$(stat --format %b {file}) sectors for four blocks\""
        ))
        .await?;
    if !wrong.is_empty() {
        let title = "a sparse file over 4 GiB is not what was written";
        return Err(Failure::check("sparse", title, wrong));
    }
    unmount_clean(lab, &guest, mount).await
}

/// A path far longer than PATH_MAX, walked step by step, survives a remount.
pub async fn deep_paths(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    // 60 names of 200 bytes: three times PATH_MAX (4,096, limits.h(0p)).
    let down = "for step in $(seq 60); do cd -P $(printf '%0200d' $step); done";
    guest
        .sh(&format!(
            "cd {dir}; for step in $(seq 60); do name=$(printf '%0200d' $step); mkdir $name; cd -P $name; done
             echo bottom > mark"
        ))
        .await?;
    mount.unmount(&guest).await?;
    lab.point("unmounted", &guest).await?;
    let mount = guest.mount_again(lab).await?;
    let mark = guest.sh(&format!("cd {dir}; {down}; cat mark")).await?;
    if mark.trim() != "bottom" {
        let title = "what lies at the end of a deep path has changed";
        return Err(Failure::check("depth", title, mark));
    }
    guest.sh(&format!("rm -r {dir}/0*")).await?;
    unmount_clean(lab, &guest, mount).await
}

/// Sixteen processes rename in one tree; names are neither lost nor doubled.
pub async fn rename_storm(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let rounds = lab.count("rename_storm")?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    // Each process moves its own file between two directories all share, under names others use
    // too: RENAME_NOREPLACE by `mv --no-clobber` would hide a lost file, so none may collide.
    guest
        .sh(&format!(
            "cd {dir}; mkdir a b
             for hand in $(seq 16); do echo $hand > a/file-$hand; done
             for hand in $(seq 16); do
               ( for round in $(seq {rounds}); do
                   mv a/file-$hand b/moved-$hand; mv b/moved-$hand a/file-$hand
                 done ) &
             done; wait"
        ))
        .await?;
    lab.point("renamed", &guest).await?;
    let seen = guest
        .sh(&format!(
            "cd {dir}; ls -A b; for hand in $(seq 16); do
               [ \"$(cat a/file-$hand)\" = $hand ] || echo \"file-$hand is wrong\"
             done; [ $(ls -A a | wc -l) = 16 ] || ls -A a"
        ))
        .await?;
    if !seen.is_empty() {
        let title = "renaming by sixteen processes lost or doubled names";
        return Err(Failure::check("rename", title, seen));
    }
    unmount_clean(lab, &guest, mount).await
}

/// The beginning of a script during which the system is busy: memory, and traffic on the root file system.
pub(super) fn busy(stress: &str) -> String {
    format!(
        "{stress} --quiet --temp-path /var/tmp --hdd 1 --hdd-bytes 8m --vm 1 --vm-bytes 64m &
         load=$!
         trap 'kill $load; wait $load 2>/dev/null || true' EXIT"
    )
}

/// The module is loaded, used and unloaded again and again while the system is busy.
pub async fn module_reload(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let rounds = lab.count("module_reload")?;
    let stress = guest.tool(lab, "stress-ng").await?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    guest.sh(&format!("echo 0 > {dir}/round")).await?;
    mount.unmount(&guest).await?;
    let module = lab.source().module.clone();
    let again = lab.source().mount_command(SCRATCH, &dir);
    let busy = busy(&stress);
    guest
        .sh(&format!(
            "{busy}
             for round in $(seq {rounds}); do
               rmmod {module}; [ ! -d /sys/module/{module} ]
               modprobe {module}
               {again}
               [ $(cat {dir}/round) = $((round - 1)) ] || {{ echo \"round $round finds $(cat {dir}/round)\"; exit 1; }}
               echo $round > {dir}/round
               umount {dir}
             done"
        ))
        .await?;
    lab.point("reloaded", &guest).await?;
    let mount = guest.mount_again(lab).await?;
    let last = guest.sh(&format!("cat {dir}/round")).await?;
    if last.trim() != rounds.to_string() {
        return Err(Failure::check(
            "module",
            format!(
                "after {rounds} reloads the disk remembers round {}",
                last.trim()
            ),
            String::new(),
        ));
    }
    unmount_clean(lab, &guest, mount).await
}
