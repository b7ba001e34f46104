//! Load in every manner: fio with all ways to write and read, and every file system stressor that
//! stress-ng has.

use crate::lab::{Failure, Lab};

/// How data goes to a file and comes back. See fio(1).
const MANNERS: &[(&str, &str)] = &[
    ("buffered", "--ioengine=psync --direct=0"),
    ("direct", "--ioengine=psync --direct=1"),
    ("mmap", "--ioengine=mmap"),
];
/// In which order.
const ORDERS: &[(&str, &str)] = &[
    ("sequential", "--rw=write --bs=64k"),
    ("random", "--rw=randwrite --bs=4k"),
];

/// fio writes in every manner and order, verifies, and verifies again after a remount.
pub async fn fio_modes(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let fio = guest.tool(lab, "fio").await?;
    let mib = lab.count("fio_modes")?;
    let mount = guest.fresh_mount(lab).await?;
    let mut jobs = Vec::new();
    for (manner, how) in MANNERS {
        for (order, what) in ORDERS {
            jobs.push(format!(
                "{fio} --name={manner}-{order} --directory={} --size={mib}m {how} {what} \
                 --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed={} --output-format=terse",
                mount.path(),
                lab.seed()
            ));
        }
    }
    guest.sh(&jobs.join("\n")).await?;
    mount.unmount(&guest).await?;
    lab.point("unmounted", &guest).await?;
    let mount = guest.mount_again(lab).await?;
    let again: Vec<String> = jobs
        .iter()
        .map(|job| format!("{job} --verify_only=1"))
        .collect();
    guest.sh(&again.join("\n")).await?;
    lab.fact("fio-jobs", jobs.len());
    mount.unmount(&guest).await
}

/// How large the files of the larger stressors are: all of them together must fit on the disk, for some
/// stressors take a full one for a fault.
const SMALL: &[&str] = &[
    "fallocate",
    "fiemap",
    "hdd",
    "iomix",
    "readahead",
    "revio",
    "sync-file",
];

/// Stressors of that class that do nothing to the file system under test and something to the rest of
/// the system, which the ledger would tell: they mount binfmt_misc and binderfs, and Debian's kernel is
/// tainted by permission events of fanotify(7) (its patch "fanotify: Taint on use of
/// FANOTIFY_ACCESS_PERMISSION").
const ELSEWHERE: &str = "binderfs,fanotify,procfs,sysfs";

/// All of stress-ng's file system stressors at once: none finds fault, the kernel is silent, and the file
/// system works and is sound afterwards.
pub async fn stress_filesystem(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let stress = guest.tool(lab, "stress-ng").await?;
    let seconds = lab.count("stress_filesystem")?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    let small: String = SMALL
        .iter()
        .map(|name| format!("--{name}-bytes 8m "))
        .collect();
    // Its exit code also says that a stressor did not find what it needs; those are counted.
    let script = format!(
        "{stress} --class filesystem --all 1 --exclude {ELSEWHERE} --timeout {seconds} {small} --temp-path {dir} \
         --seed {} --metrics-brief 2>&1",
        lab.seed()
    );
    let output = guest.exec(["/bin/sh", "-euc", &script]).await?;
    let said = output.stdout_text();
    let lines = |word: &str| -> Vec<String> {
        let with = said.lines().filter(|line| line.contains(word));
        with.map(str::to_owned).collect()
    };
    let faults = lines("stress-ng: fail:");
    if let Some(first) = faults.first() {
        return Err(Failure::check("stress", first.clone(), said));
    }
    if !said.contains("run completed") {
        let title = format!("stress-ng {} before its end", output.ending());
        return Err(Failure::check("stress", title, said));
    }
    let gave_up = lines("aborted early");
    lab.fact("stressors-without-resources", gave_up.len());
    lab.point("stressed", &guest).await?;
    guest
        .sh(&format!(
            "echo alive > {dir}/probe; grep -qx alive {dir}/probe"
        ))
        .await?;
    // systemd mounts it for whoever looks into /proc, as some stressors do.
    guest
        .sh("! findmnt --types binfmt_misc || umount --types binfmt_misc /proc/sys/fs/binfmt_misc")
        .await?;
    mount.unmount(&guest).await?;
    guest.fsck_clean(lab).await
}
