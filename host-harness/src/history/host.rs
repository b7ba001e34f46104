//! What must be alike for figures to be comparable.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::host::Host;
use crate::perf::{Fingerprint, processor};

/// The kind of a host: figures of two runs are comparable when this is the same. What was measured (an
/// image, its kernel) is no part of it: that is what one compares.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostKind {
    /// The processor's model.
    pub cpu: String,
    /// How many of them a process may use.
    pub cores: usize,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// `kernel` or `user`.
    pub vsock: String,
    /// QEMU's version.
    pub qemu: String,
    /// The host kernel's release.
    pub host_kernel: String,
}

impl HostKind {
    /// This host.
    pub fn of(host: &Host) -> HostKind {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        HostKind {
            cpu: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            accelerator: host.accel.chosen.to_string(),
            vsock: host.vsock.chosen.to_string(),
            qemu: host.qemu.version.to_string(),
            host_kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// The host of a fingerprint.
    pub fn of_fingerprint(print: &Fingerprint) -> HostKind {
        HostKind {
            cpu: print.cpu.clone(),
            cores: print.cores,
            accelerator: print.accelerator.clone(),
            vsock: print.vsock.clone(),
            qemu: print.qemu.clone(),
            host_kernel: print.host_kernel.clone(),
        }
    }

    /// One line that names all of it.
    pub fn label(&self) -> String {
        format!(
            "{} cores of {}, {}, vsock {}, QEMU {}, Linux {}",
            self.cores, self.cpu, self.accelerator, self.vsock, self.qemu, self.host_kernel
        )
    }

    /// A word for it, equal for hosts whose figures are comparable.
    pub fn id(&self) -> String {
        let text = serde_json::json!([
            self.cpu,
            self.cores,
            self.accelerator,
            self.vsock,
            self.qemu,
            self.host_kernel
        ]);
        hex::encode(&Sha256::digest(text.to_string())[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counts() {
        let here = HostKind {
            cores: 2,
            ..HostKind::default()
        };
        let there = HostKind {
            host_kernel: "7".into(),
            ..here.clone()
        };
        assert_ne!(here.id(), there.id());
        assert_eq!(here.id(), here.clone().id());
    }
}
