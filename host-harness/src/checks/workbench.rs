//! A development image: what is in it can be worked on, in it, without network.

use crate::lab::{Failure, Lab};

/// The module in the image tells a debugger where it is in its source.
pub async fn debug_info(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let module = lab.source().module.clone();
    let sections = guest
        .sh(&format!(
            "readelf --section-headers --wide $(modinfo -n {module})"
        ))
        .await?;
    if !sections.contains(".debug_info") {
        return Err(Failure::check(
            "workbench",
            "the module has no debug information",
            sections,
        ));
    }
    Ok(())
}

/// `make vm-build` makes a module for this kernel.
pub async fn module_builds(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    lab.point("sources", &guest).await?;
    let known = guest.sh("dkms status").await?;
    guest
        .sh("cp -a /usr/src/vexfs /var/tmp/vexfs; make -C /var/tmp/vexfs -j2 vm-build")
        .await?;
    let vermagic = guest
        .sh("modinfo --field=vermagic /var/tmp/vexfs/vexfs.ko; uname -r")
        .await?;
    let release = vermagic.lines().last().unwrap_or_default();
    if !vermagic.starts_with(release) || !known.contains("vexfs") {
        return Err(Failure::check(
            "workbench",
            "the module was not built for this kernel, or dkms does not know it",
            format!("{vermagic}{known}"),
        ));
    }
    Ok(())
}

/// The control tool's tests pass.
pub async fn vexctl_builds(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    lab.point("sources", &guest).await?;
    let said = guest
        .sh("cd /usr/src/vexctl; export HOME=/root CARGO_TARGET_DIR=/var/tmp/target; cargo test --offline --quiet 2>&1")
        .await?;
    if !said.contains("test result: ok") {
        return Err(Failure::check("workbench", "no test of vexctl ran", said));
    }
    Ok(())
}
