//! The control tool answers, in words and in JSON.

use crate::lab::{Failure, Lab};

/// `vexctl --version`, and `vexctl status` of a mounted file system in both formats.
pub async fn status(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let control = lab.source().control.clone();
    let version = guest.sh(&format!("{control} --version")).await?;
    if !version
        .split_whitespace()
        .any(|word| word == lab.vexfs_version())
    {
        return Err(Failure::check(
            "vexctl",
            format!("`{control} --version` does not say {}", lab.vexfs_version()),
            version,
        ));
    }
    let mount = guest.fresh_mount(lab).await?;
    let human = guest
        .sh(&format!("{control} status {}", mount.path()))
        .await?;
    if !human.contains(mount.path()) {
        return Err(Failure::check(
            "vexctl",
            "status does not name the mount",
            human,
        ));
    }
    let json = guest
        .sh(&format!("{control} status {} --format json", mount.path()))
        .await?;
    let parsed: serde_json::Value = serde_json::from_str(&json)
        .map_err(|e| Failure::check("vexctl", format!("status is not JSON: {e}"), json.clone()))?;
    let text = parsed.to_string();
    if !text.contains(mount.path()) {
        return Err(Failure::check(
            "vexctl",
            "the JSON status does not name the mount",
            json,
        ));
    }
    mount.unmount(&guest).await
}
