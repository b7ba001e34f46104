//! What must be alike for figures to be comparable.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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
    /// One line that names all of it.
    pub fn label(&self) -> String {
        format!(
            "{} cores of {}, {}, vsock {}, QEMU {}, Linux {}",
            self.cores, self.cpu, self.accelerator, self.vsock, self.qemu, self.host_kernel
        )
    }

    /// What makes two hosts unlike, as name, here and there.
    pub fn differences(&self, other: &HostKind) -> Vec<String> {
        let rows = [
            ("processor", self.cpu.clone(), other.cpu.clone()),
            ("cores", self.cores.to_string(), other.cores.to_string()),
            (
                "accelerator",
                self.accelerator.clone(),
                other.accelerator.clone(),
            ),
            ("vsock backend", self.vsock.clone(), other.vsock.clone()),
            ("QEMU", self.qemu.clone(), other.qemu.clone()),
            (
                "host kernel",
                self.host_kernel.clone(),
                other.host_kernel.clone(),
            ),
        ];
        let unlike = rows.into_iter().filter(|(_, mine, theirs)| mine != theirs);
        unlike
            .map(|(name, mine, theirs)| format!("{name}: `{mine}` and `{theirs}`"))
            .collect()
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
