//! What a figure depends on besides what was measured.

use std::path::Path;

use image_builder::Image;
use serde::{Deserialize, Serialize};

use crate::history::HostKind;
use crate::host::Host;

/// The host, how machines run on it, and the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The host processor's model.
    pub cpu: String,
    /// How many of them this process may use.
    pub cores: usize,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// `kernel` or `user`.
    pub vsock: String,
    /// QEMU's version.
    pub qemu: String,
    /// The host kernel's release.
    pub host_kernel: String,
    /// The guest kernel's release.
    pub guest_kernel: String,
    /// SHA-256 of the image's disk.
    pub image_sha256: String,
    /// The image's variant.
    pub variant: String,
}

impl Fingerprint {
    /// Of this host and that image.
    pub fn of(host: &Host, image: &Image) -> Fingerprint {
        let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        let manifest = &image.manifest;
        Fingerprint {
            cpu: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            accelerator: host.accel.chosen.to_string(),
            vsock: host.vsock.chosen.to_string(),
            qemu: host.qemu.version.to_string(),
            host_kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            guest_kernel: manifest.kernel.release.clone(),
            image_sha256: manifest.disk.sha256.clone(),
            variant: manifest.variant.clone(),
        }
    }

    /// What makes two hosts unlike, as name, here and there. What was measured (the image, its
    /// kernel) does not count: that is what one compares.
    pub fn differences(&self, other: &Fingerprint) -> Vec<String> {
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

    /// Refuses figures of unlike hosts.
    ///
    /// # Errors
    /// A sentence that names every difference and what to do.
    pub fn comparable(&self, other: &Fingerprint) -> Result<(), String> {
        let differences = self.differences(other);
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
        HostKind::of_fingerprint(self).id()
    }
}

/// The model of this host's processor.
pub(crate) fn processor() -> String {
    model(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The first processor's model in `/proc/cpuinfo` (proc(5)).
fn model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(
        || "unknown".to_owned(),
        |(_, model)| model.trim().to_owned(),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Somewhere.
    pub(in crate::perf) fn somewhere() -> Fingerprint {
        Fingerprint {
            cpu: "A".into(),
            cores: 2,
            accelerator: "tcg".into(),
            vsock: "user".into(),
            qemu: "7.2.22".into(),
            host_kernel: "6.1".into(),
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
            cores: 64,
            accelerator: "kvm".into(),
            ..here.clone()
        };
        let said = here.comparable(&elsewhere).expect_err("refused");
        for part in ["cores: `2` and `64`", "`tcg` and `kvm`", "--across-hosts"] {
            assert!(said.contains(part), "{said}");
        }
        assert_ne!(here.kind(), elsewhere.kind());
    }

    #[test]
    fn the_model_is_read() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: X 1\n\nmodel name\t: Y"),
            "X 1"
        );
        assert_eq!(model(""), "unknown");
    }
}
