//! The kernel module: it loads, is what it says it is, and leaves nothing when it goes.

use crate::lab::{Failure, Lab};

/// Loads by name, as a user would, and compares the loaded version with the image's manifest.
pub async fn load(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let module = lab.source().module.clone();
    // The image's service has loaded it at boot: that would make any modprobe a success. rmmod(8)
    // does not ask whether modprobe would find it again.
    guest
        .sh(&format!("systemctl stop vexfs.service; rmmod {module}"))
        .await?;
    guest.expect_module(&module, false).await?;
    guest.sh(&format!("modprobe {module}")).await?;
    guest.expect_module(&module, true).await?;
    let shown = guest
        .sh(&format!("cat /sys/module/{module}/version"))
        .await?;
    let wanted = lab.vexfs_version();
    if shown.trim() != wanted {
        return Err(Failure::check(
            "module",
            format!(
                "{module} shows version {}, the image is of {wanted}",
                shown.trim()
            ),
            guest.sh(&format!("modinfo {module}")).await?,
        ));
    }
    let registered = guest.sh("cat /proc/filesystems").await?;
    let fstype = &lab.source().fstype;
    if !registered.split_whitespace().any(|word| word == fstype) {
        return Err(Failure::check(
            "module",
            format!("no file system `{fstype}` after loading"),
            registered,
        ));
    }
    Ok(())
}

/// Loads, uses, unloads; the runner's second judge then looks at what the kernel said.
pub async fn unload(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let module = lab.source().module.clone();
    guest.sh(&format!("modprobe {module}")).await?;
    let mark = guest.kernel_log_mark().await?;
    let mount = guest.fresh_mount(lab).await?;
    guest
        .sh(&format!("echo kept > {0}/file; cat {0}/file", mount.path()))
        .await?;
    mount.unmount(&guest).await?;
    lab.point("unmounted", &guest).await?;
    guest.sh(&format!("modprobe --remove {module}")).await?;
    guest.expect_module(&module, false).await?;
    // A module may say that it goes; warnings and worse are not its business here.
    let noise = guest.kernel_log_since(mark).await?;
    let loud: Vec<String> = noise
        .iter()
        .filter(|r| r.level <= 4)
        .map(|r| r.text.clone())
        .collect();
    if !loud.is_empty() {
        return Err(Failure::check(
            "module",
            "unloading was not silent",
            loud.join("\n"),
        ));
    }
    Ok(())
}
