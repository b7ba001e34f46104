//! What makes two snapshots the same.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::arguments::{Ram, Wiring, arguments};
use crate::{Accelerator, DirectKernel, DiskContent, ExtraDisk, Firmware, MachineSpec, Version};

/// Raise it when what is frozen, or how, changes.
const FORMAT: u32 = 3;

/// What a snapshot is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The machine to boot. Its name and log folder are those of the machine that is frozen; forks
    /// have their own.
    pub spec: MachineSpec,
    /// SHA-256 of the image, as its manifest has it.
    pub image_digest: String,
    /// Version of the agent in the image, as its manifest has it; empty if it has none.
    pub agent_version: String,
    /// From power-on to rest, at most; twice [`SETTLING`] for a kernel half as fast.
    pub patience: Duration,
}

/// How long a guest may take to come to rest: under emulation, on a busy host.
pub const SETTLING: Duration = Duration::from_secs(300);

/// Names a snapshot: 24 hex digits, equal for equal recipes on equal QEMUs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub(super) String);

impl Key {
    /// The name of a snapshot that nobody looks up.
    pub(super) fn of_no_store(machine: &str) -> Key {
        Key(format!("machine-{machine}"))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Recipe {
    /// The key on this host with this QEMU.
    pub fn key(&self, qemu: &Version) -> Key {
        let processor = match self.spec.accelerator {
            // A guest under KVM has seen the host's processor and would miss what another lacks.
            Accelerator::Kvm => {
                processor(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
            }
            Accelerator::Tcg => String::new(),
        };
        self.key_with(qemu, &processor)
    }

    fn key_with(&self, qemu: &Version, processor: &str) -> Key {
        let spec = &self.spec;
        // Every field is named: a new one in the spec does not compile until it is decided here
        // whether it matters. Those passed over are in the command line, or do not matter.
        let MachineSpec {
            name: _,
            log_dir: _,
            image,
            disk_bytes,
            kernel,
            second_kernel: _,
            memory_mib: _,
            cpus: _,
            accelerator: _,
            vsock,
            disks,
            invite,
            firmware: _,
            network: _,
            may_reboot: _,
            freezable: _,
            reports_free_pages: _,
            counts_instructions: _,
        } = spec;
        let kernel = kernel.as_ref().map(
            |DirectKernel {
                 kernel,
                 initrd,
                 command_line,
             }| {
                (
                    identity(kernel),
                    initrd.as_deref().map(identity),
                    command_line,
                )
            },
        );
        let disks: Vec<_> = disks
            .iter()
            .map(|ExtraDisk { serial, content }| match content {
                DiskContent::ReadOnly { path, format } => {
                    (serial, identity(path), format.name().into())
                }
                DiskContent::Scratch { mib } => (serial, String::new(), mib.to_string()),
                DiskContent::Logged { file, .. } => (serial, identity(file), "logged".into()),
            })
            .collect();
        let text = serde_json::json!({
            "format": FORMAT,
            "image": image.is_some().then_some(&self.image_digest),
            "agent": self.agent_version,
            "qemu": qemu,
            "processor": processor,
            "kernel": kernel,
            "disk bytes": disk_bytes,
            "disks": disks,
            "vsock": vsock,
            "invite": invite,
            "shape": shape(spec),
        })
        .to_string();
        Key(hex::encode(&Sha256::digest(text)[..12]))
    }
}

/// QEMU's command line with made-up paths: state can only be restored into the machine it came
/// from, so whatever changes the machine, in the spec or in our code, changes the key.
fn shape(spec: &MachineSpec) -> Vec<String> {
    let spec = MachineSpec {
        name: String::new(),
        freezable: true,
        reports_free_pages: true,
        ..spec.clone()
    };
    let uefi = (spec.firmware == Firmware::Uefi).then(|| ("/code".into(), "/vars".into()));
    let wiring = Wiring {
        id: String::new(),
        dir: "/".into(),
        ram: Ram::File {
            path: "/ram".into(),
            shared: true,
        },
        vsock: None,
        invitation: spec.invite.then(|| "/invitation".into()),
        uefi,
        incoming: true,
        sandbox: true,
    };
    arguments(&spec, &wiring)
}

/// Stands for a file's content without reading it: path, size and time of change.
pub(super) fn identity(path: &Path) -> String {
    let state = std::fs::metadata(path)
        .map(|meta| format!("{} {}.{}", meta.len(), meta.mtime(), meta.mtime_nsec()));
    format!("{} {}", path.display(), state.unwrap_or_default())
}

/// Model and flags of the first processor in `/proc/cpuinfo`.
fn processor(cpuinfo: &str) -> String {
    let lines = cpuinfo.lines().take_while(|line| !line.is_empty());
    lines
        .filter(|line| {
            ["vendor_id", "cpu family", "model", "stepping", "flags"]
                .iter()
                .any(|name| line.split('\t').next().is_some_and(|field| field == *name))
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Network, VsockBackend};

    fn recipe() -> Recipe {
        Recipe {
            spec: MachineSpec {
                disks: vec![ExtraDisk::scratch(64)],
                ..MachineSpec::new("a", "/images/a.qcow2", "/logs/a")
            },
            image_digest: "00".into(),
            agent_version: "1.0.0".into(),
            patience: SETTLING,
        }
    }

    fn qemu() -> Version {
        Version {
            number: (7, 2, 22),
            package: "Debian 1".into(),
        }
    }

    #[test]
    fn what_matters_changes_the_key_and_nothing_else_does() {
        let key = |recipe: &Recipe| recipe.key_with(&qemu(), "");
        let base = key(&recipe());
        let changed = |change: fn(&mut Recipe)| {
            let mut recipe = recipe();
            change(&mut recipe);
            key(&recipe) != base
        };
        assert!(!changed(|_| ()));
        assert!(!changed(|r| r.spec.name = "b".into()));
        assert!(!changed(|r| r.spec.log_dir = "/logs/b".into()));
        assert!(
            !changed(|r| r.spec.image = Some("/moved/a.qcow2".into())),
            "the digest counts"
        );
        assert!(changed(|r| r.image_digest = "01".into()));
        assert!(changed(|r| r.agent_version = "1.0.1".into()));
        assert!(changed(|r| r.spec.memory_mib += 1));
        assert!(changed(|r| r.spec.cpus += 1));
        assert!(changed(|r| r.spec.accelerator = Accelerator::Kvm));
        assert!(changed(|r| r.spec.vsock = Some(VsockBackend::Kernel)));
        assert!(changed(|r| r.spec.firmware = Firmware::Uefi));
        assert!(changed(|r| r.spec.disks = vec![ExtraDisk::scratch(65)]));
        assert!(changed(|r| r.spec.invite = false));
        assert!(changed(|r| r.spec.may_reboot = false));
        assert!(changed(|r| r.spec.counts_instructions = true));
        assert!(changed(|r| r.spec.network = Network::User {
            forward: vec![(1, 2)]
        }));
        let other = Version {
            package: "Debian 2".into(),
            ..qemu()
        };
        assert_ne!(recipe().key_with(&other, ""), base);
        assert_ne!(recipe().key_with(&qemu(), "another processor"), base);
    }

    #[test]
    fn a_changed_tools_disk_changes_the_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let tools = dir.path().join("tools.ext4");
        std::fs::write(&tools, "one").expect("writes");
        let mut recipe = recipe();
        recipe.spec.disks.push(ExtraDisk::tools(&tools));
        let before = recipe.key_with(&qemu(), "");
        assert_eq!(recipe.key_with(&qemu(), ""), before);
        std::fs::write(&tools, "three").expect("writes");
        assert_ne!(recipe.key_with(&qemu(), ""), before);
    }

    #[test]
    fn the_processor_is_known_by_model_and_flags() {
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: X\ncpu MHz\t\t: 1.5\nflags\t\t: a b\n\n\
                    processor\t: 1\nmodel\t\t: 2\n";
        assert_eq!(processor(text), "model\t\t: 1\nflags\t\t: a b");
    }
}
