//! What this host offers a machine, decided once per run and said out loud.

mod kind;

use std::path::{Path, PathBuf};

use results::Layout;

use crate::machine::{Accel, MachineError, Qemu, Vsock, VsockBackend, accel, vsock};

/// What was asked of the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostRequest {
    /// The accelerator.
    pub accel: accel::Request,
    /// The vsock backend; `None` leaves the choice to the probe.
    pub vsock: Option<VsockBackend>,
}

/// How machines run here.
#[derive(Debug, Clone)]
pub struct Host {
    /// What executes guests, and why.
    pub accel: Accel,
    /// What carries vsock, and why.
    pub vsock: Vsock,
    /// The emulator.
    pub qemu: &'static Qemu,
}

impl Host {
    /// Looks and chooses. Both choices are good for as long as the host does not reboot.
    ///
    /// # Errors
    /// When there is no QEMU, no vsock at all, or not the accelerator that was asked for.
    pub async fn probe(layout: &Layout, request: HostRequest) -> Result<Host, MachineError> {
        let qemu = Qemu::find().await?;
        let accel = Host::accelerator(layout, request.accel).await?;
        let vsock = vsock::probe(request.vsock)?;
        Ok(Host { accel, vsock, qemu })
    }

    /// The accelerator alone.
    ///
    /// # Errors
    /// When KVM was asked for and does not work.
    pub async fn accelerator(
        layout: &Layout,
        request: accel::Request,
    ) -> Result<Accel, MachineError> {
        let kernel = trial_kernel(&layout.cache);
        accel::probe(request, kernel.as_deref(), &layout.cache).await
    }

    /// The choices as name and value, for the head of a report.
    pub fn facts(&self) -> Vec<(String, String)> {
        let fact = |name: &str, value: String| (name.to_owned(), value);
        vec![
            fact(
                "accelerator",
                format!("{} ({})", self.accel.chosen, self.accel.why),
            ),
            fact(
                "vsock",
                format!("{} ({})", self.vsock.chosen, self.vsock.why),
            ),
            fact("qemu", self.qemu.version.to_string()),
            fact("harness", env!("CARGO_PKG_VERSION").to_owned()),
        ]
    }
}

/// Any kernel to try KVM with: the host's own, else the one a build has left in the cache.
fn trial_kernel(cache: &Path) -> Option<PathBuf> {
    [Path::new("/boot"), &cache.join("kernel")]
        .into_iter()
        .find_map(|dir| {
            let mut kernels: Vec<PathBuf> = std::fs::read_dir(dir)
                .ok()?
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| {
                    path.file_name()
                        .is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz"))
                })
                .filter(|path| std::fs::File::open(path).is_ok())
                .collect();
            kernels.sort();
            kernels.pop()
        })
}
