//! What a machine is made of, as plain data. Nothing here touches the host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The host kernel's virtualisation.
    Kvm,
    /// QEMU's own emulator; works everywhere.
    Tcg,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        })
    }
}

/// What carries vsock between host and guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VsockBackend {
    /// The host kernel's vhost-vsock; the host side is AF_VSOCK (vsock(7)).
    Kernel,
    /// The vsock device of our own (`vsock-device`) over vhost-user; the host side is a Unix socket.
    User,
}

impl std::fmt::Display for VsockBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            VsockBackend::Kernel => "kernel",
            VsockBackend::User => "user",
        })
    }
}

/// What runs first in the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS, which QEMU brings along.
    #[default]
    Bios,
    /// OVMF (Debian package `ovmf`), with a variable store of the machine's own.
    Uefi,
}

/// A kernel QEMU loads itself, instead of what is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DirectKernel {
    /// The bzImage.
    pub kernel: PathBuf,
    /// The initramfs, if any.
    pub initrd: Option<PathBuf>,
    /// The kernel command line.
    pub command_line: String,
}

/// How the bytes of a disk are laid out in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The disk, byte for byte.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl DiskFormat {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        }
    }
}

/// A disk besides the system disk. The guest finds it as `/dev/disk/by-id/virtio-SERIAL`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExtraDisk {
    /// Serial number, at most 20 bytes (the limit of virtio-blk).
    pub serial: String,
    /// Where its content comes from.
    pub content: DiskContent,
}

/// Where the content of an [`ExtraDisk`] comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DiskContent {
    /// A file nobody may write while the machine runs; the guest cannot write it either.
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: DiskFormat,
    },
    /// An empty disk, made for this machine and removed with it.
    Scratch {
        /// Its size in MiB.
        mib: u64,
    },
    /// A disk of somebody else's, raw, whose writes and flushes are also logged: from the log it can
    /// be worked out what a power cut leaves ([`super::WriteLog`]).
    Logged {
        /// The disk's file.
        file: PathBuf,
        /// The log, of QEMU's `blklogwrites`; begun anew by each machine.
        log: PathBuf,
    },
}

impl ExtraDisk {
    /// The disk with the test tools (fio, stress-ng).
    pub fn tools(path: impl Into<PathBuf>) -> ExtraDisk {
        ExtraDisk {
            serial: "vexfs-tools".into(),
            content: DiskContent::ReadOnly {
                path: path.into(),
                format: DiskFormat::Raw,
            },
        }
    }

    /// An empty disk to make a file system on.
    pub fn scratch(mib: u64) -> ExtraDisk {
        ExtraDisk {
            serial: "vexfs-scratch".into(),
            content: DiskContent::Scratch { mib },
        }
    }

    /// In place of the scratch disk, one whose writes are logged.
    pub fn logged(file: PathBuf, log: PathBuf) -> ExtraDisk {
        ExtraDisk {
            content: DiskContent::Logged { file, log },
            ..ExtraDisk::scratch(0)
        }
    }
}

/// How the guest reaches a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// No network card at all.
    #[default]
    None,
    /// QEMU's user-mode network, with host ports forwarded to the guest.
    User {
        /// Pairs of (TCP port on the host's loopback, TCP port in the guest).
        forward: Vec<(u16, u16)>,
    },
}

/// Everything that says what a machine is. Two machines of equal specs behave alike, except for
/// `name` and `log_dir`, which only say what to call it and where it leaves its logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// A word for process lists and messages, for example the check's name.
    pub name: String,
    /// The folder, of this machine alone, for `console.log`, `qemu.log`, `vsock.log` and
    /// `qemu.args`; made if missing, kept after the machine has gone.
    pub log_dir: PathBuf,
    /// The image with the system disk (qcow2, or raw). It is only ever read: the guest writes to
    /// an overlay. `None` for a machine that lives from an initramfs.
    pub image: Option<PathBuf>,
    /// Size of the system disk as the guest sees it, in bytes; `None`: as large as the image. The
    /// overlay can only be larger.
    pub disk_bytes: Option<u64>,
    /// A kernel to load directly; `None` boots from the system disk.
    pub kernel: Option<DirectKernel>,
    /// Whether the machine asks the image's boot loader for its second kernel.
    #[serde(default)]
    pub second_kernel: bool,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of virtual CPUs.
    pub cpus: u32,
    /// What executes the guest, as [`super::accel`] chose it.
    pub accelerator: Accelerator,
    /// The vsock device, as [`super::vsock`] chose it; `None` for a machine without one.
    pub vsock: Option<VsockBackend>,
    /// Further disks.
    pub disks: Vec<ExtraDisk>,
    /// Whether the guest gets the credential that makes its agent listen, and the settings that
    /// make a broken kernel talk.
    pub invite: bool,
    /// What runs first in the guest.
    pub firmware: Firmware,
    /// The network.
    pub network: Network,
    /// Whether the guest may reboot. If not, a reboot ends the machine, and a triple fault cannot
    /// turn into an endless loop.
    pub may_reboot: bool,
    /// Whether memory lives in a file that outlasts QEMU, so that the machine can be frozen into a
    /// snapshot.
    pub freezable: bool,
    /// Whether the guest gives pages it frees back to the host, by a balloon device: it keeps a frozen
    /// memory file small. For machines booted to be frozen and their forks only: kernels that break
    /// their virtio devices at shutdown (6.1.192) warn in `virtballoon_free_page_report` when a
    /// power-off meets a report under way.
    pub reports_free_pages: bool,
    /// Whether the guest's clocks count the instructions it has executed, one a nanosecond, instead of
    /// following the host's: time in the guest is then the work done, whatever else the host does.
    /// Only under emulation; the guest should have one processor, for several would share the count.
    #[serde(default)]
    pub counts_instructions: bool,
}

impl MachineSpec {
    /// The same machine without what belongs to others: logged disks are its own scratch disks then.
    #[must_use]
    pub fn alone(&self) -> MachineSpec {
        let mut spec = self.clone();
        for disk in &mut spec.disks {
            if let DiskContent::Logged { file, .. } = &disk.content {
                let bytes = std::fs::metadata(file).map_or(0, |meta| meta.len());
                disk.content = DiskContent::Scratch { mib: bytes >> 20 };
            }
        }
        spec
    }

    /// A machine for `image` with 1 GiB of memory, two CPUs, emulation, the user vsock backend and
    /// an invited agent. Everything else is off; set what differs with struct update syntax.
    pub fn new(
        name: impl Into<String>,
        image: impl Into<PathBuf>,
        log_dir: impl Into<PathBuf>,
    ) -> MachineSpec {
        MachineSpec {
            name: name.into(),
            log_dir: log_dir.into(),
            image: Some(image.into()),
            disk_bytes: None,
            kernel: None,
            second_kernel: false,
            memory_mib: 1024,
            cpus: 2,
            accelerator: Accelerator::Tcg,
            vsock: Some(VsockBackend::User),
            disks: Vec::new(),
            invite: true,
            firmware: Firmware::default(),
            network: Network::default(),
            may_reboot: true,
            freezable: false,
            reports_free_pages: false,
            counts_instructions: false,
        }
    }
}
