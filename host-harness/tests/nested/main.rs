//! The kernel's vsock backend for real, on hosts that do not have it: in a guest whose kernel has
//! vhost_vsock, the machine room boots a machine of its own, a kernel and an initramfs with the
//! agent, and talks to it over AF_VSOCK.
//!
//! Emulation inside emulation is slow: a test of the nightly profile.

mod bundle;
mod inner;

use std::time::Duration;

use host_harness::lab::{BOOT_DEADLINE, Guest};
use image::Image;
use libtest_mimic::{Arguments, Failed, Trial};
use machine::{DiskContent, DiskFormat, ExtraDisk, Host, HostRequest, Machine, MachineSpec};
use results::Layout;

/// Argument that makes this program the harness inside the guest.
const INNER: &str = "__inner";

/// Serial of the disk with this program, QEMU and what they need.
const DISK: &str = "vexfs-nested";

/// How long the inner machine may take altogether.
const PATIENCE: Duration = Duration::from_secs(1500);

fn main() {
    machine::hook();
    if std::env::args().nth(1).is_some_and(|arg| arg == INNER) {
        if let Err(error) = inner::run() {
            eprintln!("inner: {error:#}");
            std::process::exit(1);
        }
        return;
    }
    let trials = vec![Trial::test(
        "nightly::kernel_vsock_carries_the_agent",
        || tokio::runtime::Runtime::new()?.block_on(outer()),
    )];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Boots the minimal image with the bundle, enters the bundle, and runs this program there.
async fn outer() -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let disk = work.path().join("nested.ext4");
    bundle::make(&work.path().join("tree"), &disk)?;

    let layout = Layout::find(None)?;
    let host = Host::probe(&layout.cache, HostRequest::default()).await?;
    let image = Image::find(&layout.out, "minimal")?
        .ok_or("there is no minimal image: run `cargo images build --variants minimal`")?;
    let logs = layout.machine_logs().join("nested-outer");
    let machine = Machine::boot(MachineSpec {
        accelerator: host.accel.chosen,
        vsock: Some(host.vsock.chosen),
        memory_mib: 2048,
        disks: vec![ExtraDisk {
            serial: DISK.into(),
            content: DiskContent::ReadOnly {
                path: disk,
                format: DiskFormat::Raw,
            },
        }],
        ..MachineSpec::new("nested", image.disk, logs)
    })
    .await?;
    let guest = Guest::meet(machine.into(), BOOT_DEADLINE, PATIENCE)
        .await
        .map_err(|e| format!("the outer machine: {e}"))?;
    // The agent is there before the names of the disks are.
    guest.settle().await.map_err(|e| e.to_string())?;
    let said = guest.sh(&entering()).await.map_err(|failure| {
        let evidence = match &failure {
            host_harness::lab::Failure::Check { detail, .. } => detail.clone(),
            _ => String::new(),
        };
        format!("{failure}\n{evidence}")
    })?;
    println!("{said}");
    for proof in inner::PROOFS {
        assert!(
            said.contains(proof),
            "the inner harness has not said `{proof}`"
        );
    }
    Ok(())
}

/// The way into the bundle: its own root, with the guest's kernel around it.
fn entering() -> String {
    format!(
        "modprobe vhost_vsock
         mkdir -p /run/nested
         mount -o ro /dev/disk/by-id/virtio-{DISK} /run/nested
         cd /run/nested
         for dir in dev proc sys boot lib/modules usr/lib/vexfs; do mount --rbind /$dir $dir; done
         for dir in tmp run; do mount -t tmpfs none $dir; done
         exec chroot . {} {INNER} 2>&1",
        bundle::PROGRAM
    )
}
