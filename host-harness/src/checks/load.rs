//! Load from public tools, brought on the tools disk: fio with verification, and stress-ng.

use crate::lab::{Failure, Lab};

/// The fio job: random writes checked by checksum, small enough for emulation. See fio(1),
/// "Verification".
const FIO: &str = "--name=verify --directory=DIR --size=8m --bs=4k --rw=randwrite --ioengine=psync \
                   --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=64 --randseed=SEED --output-format=terse";

/// The stress: fixed stressors, worker counts and operation counts, so that two runs did the same
/// work. See stress-ng(1).
const STRESS: &str = "--temp-path DIR --hdd 1 --hdd-bytes 4m --hdd-ops 200 --dir 1 --dir-ops 200 \
                      --rename 1 --rename-ops 300 --seed SEED --timeout 60 --metrics-brief --verify";

/// fio writes, syncs, and reads back with checksums; then once more after a remount.
pub async fn fio_verify(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let fio = guest.tool(lab, "fio").await?;
    let mount = guest.fresh_mount(lab).await?;
    let job = FIO
        .replace("DIR", mount.path())
        .replace("SEED", &lab.seed().to_string());
    guest.sh(&format!("{fio} {job}")).await?;
    mount.unmount(&guest).await?;
    lab.point("unmounted", &guest).await?;
    let mount = guest.mount_again(lab).await?;
    guest.sh(&format!("{fio} {job} --verify_only=1")).await?;
    mount.unmount(&guest).await
}

/// stress-ng's file-system stressors; the mount must still work and come off afterwards.
pub async fn stress(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let stress = guest.tool(lab, "stress-ng").await?;
    let mount = guest.fresh_mount(lab).await?;
    let job = STRESS
        .replace("DIR", mount.path())
        .replace("SEED", &lab.seed().to_string());
    guest.sh(&format!("{stress} {job}")).await?;
    lab.point("stressed", &guest).await?;
    guest
        .sh(&format!(
            "echo alive > {0}/probe; grep -qx alive {0}/probe",
            mount.path()
        ))
        .await?;
    mount.unmount(&guest).await
}
