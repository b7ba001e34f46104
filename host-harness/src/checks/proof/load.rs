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

/// All of stress-ng's file system stressors at once; what it is about is what the kernel says of that,
/// and that the file system works afterwards.
pub async fn stress_filesystem(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let stress = guest.tool(lab, "stress-ng").await?;
    let seconds = lab.count("stress_filesystem")?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    let said = guest
        .sh(&format!(
            "{stress} --class filesystem --all 1 --timeout {seconds} --temp-path {dir} \
             --seed {} --metrics-brief 2>&1",
            lab.seed()
        ))
        .await?;
    lab.fact(
        "stressors",
        said.lines().filter(|line| line.contains("metrc:")).count(),
    );
    lab.point("stressed", &guest).await?;
    guest
        .sh(&format!(
            "echo alive > {dir}/probe; grep -qx alive {dir}/probe"
        ))
        .await?;
    mount.unmount(&guest).await?;
    guest.fsck_clean(lab).await
}
