//! What must be alike for figures to be comparable.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::host::Host;

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
            cpu: model(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            accelerator: host.accel.chosen.to_string(),
            vsock: host.vsock.chosen.to_string(),
            qemu: host.qemu.version.to_string(),
            host_kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// One line that names all of it.
    pub fn label(&self) -> String {
        format!(
            "{} cores of {}, {}, vsock {}, QEMU {}, Linux {}",
            self.cores, self.cpu, self.accelerator, self.vsock, self.qemu, self.host_kernel
        )
    }

    /// A short word for it, equal for hosts whose figures are comparable.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.label())[..4])
    }
}

/// The first processor's model in `/proc/cpuinfo` (proc(5)).
fn model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(
        || "unknown processor".to_owned(),
        |(_, model)| model.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_read_and_everything_counts() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: X 1\n\nmodel name\t: Y"),
            "X 1"
        );
        assert_eq!(model(""), "unknown processor");
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
