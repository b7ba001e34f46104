//! What a figure depends on besides what was measured.

use serde::{Deserialize, Serialize};

use super::HostKind;

/// The host, how machines run on it, and the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The host, and how machines run on it.
    #[serde(flatten)]
    pub host: HostKind,
    /// The guest kernel's release.
    pub guest_kernel: String,
    /// SHA-256 of the image's disk.
    pub image_sha256: String,
    /// The image's variant.
    pub variant: String,
}

impl Fingerprint {
    /// Refuses figures of unlike hosts.
    ///
    /// # Errors
    /// A sentence that names every difference and what to do.
    pub fn comparable(&self, other: &Fingerprint) -> Result<(), String> {
        let differences = self.host.differences(&other.host);
        if differences.is_empty() {
            return Ok(());
        }
        Err(format!(
            "these figures are of unlike hosts ({}), so that comparing them says nothing about what \
             was measured: measure both on one host, or add --across-hosts to see them all the same",
            differences.join("; ")
        ))
    }

    /// A word for the kind of host, for file names: equal for hosts whose figures are comparable.
    pub fn kind(&self) -> String {
        self.host.id()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Somewhere.
    pub(in crate::figures) fn somewhere() -> Fingerprint {
        Fingerprint {
            host: HostKind {
                cpu: "A".into(),
                cores: 2,
                accelerator: "tcg".into(),
                vsock: "user".into(),
                qemu: "7.2.22".into(),
                host_kernel: "6.1".into(),
            },
            guest_kernel: "6.1.0".into(),
            image_sha256: "00".into(),
            variant: "minimal".into(),
        }
    }

    #[test]
    fn unlike_hosts_are_refused_by_name_and_unlike_images_are_not() {
        let here = somewhere();
        let other_image = Fingerprint {
            image_sha256: "11".into(),
            guest_kernel: "6.12".into(),
            ..here.clone()
        };
        assert_eq!(here.comparable(&other_image), Ok(()));
        assert_eq!(here.kind(), other_image.kind());
        let elsewhere = Fingerprint {
            host: HostKind {
                cores: 64,
                accelerator: "kvm".into(),
                ..here.host.clone()
            },
            ..here.clone()
        };
        let said = here.comparable(&elsewhere).expect_err("refused");
        for part in ["cores: `2` and `64`", "`tcg` and `kvm`", "--across-hosts"] {
            assert!(said.contains(part), "{said}");
        }
        assert_ne!(here.kind(), elsewhere.kind());
    }
}
