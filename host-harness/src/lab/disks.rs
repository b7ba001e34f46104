//! The disks of a guest as a story uses them: the file system under test on the scratch disk, and
//! the programs on the tools disk.

use std::time::Duration;

use agent_protocol::FaultKind;
use agent_protocol::message::UnmountFlags;

use super::ledger::Room;
use super::{Failure, Guest, Lab};

/// Serial of the scratch disk, as `/dev/disk/by-id` shows it.
pub const SCRATCH: &str = "/dev/disk/by-id/virtio-vexfs-scratch";

/// Where the tools disk is mounted.
pub(super) const TOOLS: &str = "/run/vexfs-tools";

/// How long unmounting the tools disk may take.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A mounted file system under test.
#[derive(Debug, Clone)]
pub struct Mount {
    path: String,
}

impl Guest {
    /// A fresh file system under test on the scratch disk; returns its device.
    ///
    /// # Errors
    /// When mkfs fails.
    pub async fn fresh_disk(&self, lab: &Lab) -> Result<String, Failure> {
        let mkfs = lab.source().mkfs.join(" ");
        self.sh(&format!("{mkfs} {SCRATCH}")).await?;
        Ok(SCRATCH.to_owned())
    }

    /// A fresh file system under test, mounted.
    ///
    /// # Errors
    /// When mkfs or mount fails.
    pub async fn fresh_mount(&self, lab: &Lab) -> Result<Mount, Failure> {
        self.fresh_disk(lab).await?;
        self.mount_again(lab).await
    }

    /// The scratch disk's file system mounted once more.
    ///
    /// # Errors
    /// When mount(8) fails.
    pub async fn mount_again(&self, lab: &Lab) -> Result<Mount, Failure> {
        let source = lab.source();
        let path = format!("/mnt/{}", source.fstype);
        let mount = source.mount_command(SCRATCH, &path);
        self.sh(&format!("mkdir -p {path}; {mount}")).await?;
        Ok(Mount { path })
    }

    /// A fresh ext4 of 300 MiB, mounted beside it, in a file of the root file system; the file goes with the machine.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn ext4_beside(&self) -> Result<Mount, Failure> {
        let (file, path) = ("/var/tmp/beside.ext4", "/mnt/ext4");
        self.sh(&format!(
            "truncate -s 300M {file}; mkfs.ext4 -q -F {file}; mkdir -p {path}; mount -o loop {file} {path}"
        ))
        .await?;
        Ok(Mount {
            path: path.to_owned(),
        })
    }

    /// Has the source tree's own checker look at the unmounted scratch disk.
    ///
    /// # Errors
    /// When it finds anything.
    pub async fn fsck_clean(&self, lab: &Lab) -> Result<(), Failure> {
        let fsck = lab.source().fsck.join(" ");
        let script = format!("{fsck} {SCRATCH}");
        let output = self.exec(["/bin/sh", "-euc", &script]).await?;
        if output.success() {
            return Ok(());
        }
        Err(Failure::check(
            "fsck",
            format!("`{fsck}` after unmounting {}", output.ending()),
            format!("{}{}", output.stdout_text(), output.stderr_text()),
        ))
    }

    /// Free room on a fresh mount, after the first directory and the first file have made the file
    /// system set up what it then keeps.
    ///
    /// # Errors
    /// As [`Guest::sh`].
    pub async fn room_when_warm(&self, mount: &Mount) -> Result<Room, Failure> {
        self.sh(&format!(
            "cd {}; mkdir warm; echo up > warm/file; rm -r warm; sync",
            mount.path()
        ))
        .await?;
        self.room(mount).await
    }

    /// Free room on a mount.
    ///
    /// # Errors
    /// When the guest does not tell.
    pub async fn room(&self, mount: &Mount) -> Result<Room, Failure> {
        let said = self
            .sh(&format!(
                "stat --file-system --format='%S %f %d' {}",
                mount.path
            ))
            .await?;
        Room::parse(&said).map_err(|e| Failure::check("ledger", e.to_string(), said))
    }

    /// What a mount has less room for than before, as sentences. What a file system frees in the
    /// background is waited for, a second at most.
    ///
    /// # Errors
    /// When the guest does not tell.
    pub async fn room_kept(&self, mount: &Mount, before: Room) -> Result<Vec<String>, Failure> {
        let mut kept = before.lost(self.room(mount).await?);
        for _ in 0..4 {
            if kept.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            kept = before.lost(self.room(mount).await?);
        }
        Ok(kept)
    }

    /// The folder with the programs of the tools disk.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub async fn tools(&self, _lab: &Lab) -> Result<String, Failure> {
        self.mount_tools().await
    }

    /// As [`Guest::tools`], for one who has no lab.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub async fn mount_tools(&self) -> Result<String, Failure> {
        self.sh(&format!(
            "mkdir -p {TOOLS}
             mountpoint -q {TOOLS} || mount -o ro /dev/disk/by-id/virtio-vexfs-tools {TOOLS}"
        ))
        .await?;
        self.tools_mounted(true);
        Ok(format!("{TOOLS}/bin"))
    }

    /// Unmounts the tools disk if the lab has mounted it. One that is still busy stays, and the ledger
    /// names it.
    ///
    /// # Errors
    /// With the kernel's errno.
    pub(super) async fn leave_tools(&self) -> Result<(), Failure> {
        if self.tools_mounted(false) {
            let away = async {
                let flags = UnmountFlags::default();
                match self.client().unmount(TOOLS, flags, AT_ONCE).await {
                    Err(busy) if busy.fault_kind() == Some(FaultKind::Busy) => Ok(()),
                    told => told,
                }
            };
            self.ask("unmount the tools disk", away).await?;
        }
        Ok(())
    }

    /// The path of one program of the tools disk.
    ///
    /// # Errors
    /// [`Failure::UndeclaredSkip`] when it is not there: the check cannot be asked then, and
    /// nobody said so beforehand.
    pub async fn tool(&self, lab: &Lab, name: &str) -> Result<String, Failure> {
        let path = format!("{}/{name}", self.tools(lab).await?);
        let there = self.exec(["test", "-x", &path]).await?;
        match there.success() {
            true => Ok(path),
            false => Err(Failure::UndeclaredSkip(format!(
                "{name} is not on the tools disk; it is listed in image-builder's tools disk stage"
            ))),
        }
    }
}

impl Mount {
    /// The mount point.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Unmounts, which must work at once: nothing of the check may hold it.
    ///
    /// # Errors
    /// When umount(8) fails.
    pub async fn unmount(self, guest: &Guest) -> Result<(), Failure> {
        guest.sh(&format!("umount {}", self.path)).await.map(drop)
    }
}
