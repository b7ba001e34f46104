//! From a spec to QEMU's command line. Pure; pinned by the golden files in `golden/qemu/`.
//!
//! Addresses on the PCI bus are written out: a fork restores device state by address, so the
//! layout must not depend on the order in which QEMU happens to see the devices.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::spec::{
    Accelerator, DiskContent, DiskFormat, Firmware, MachineSpec, Network, VsockBackend,
};

/// The SKU number in SMBIOS by which a machine asks the image's boot menu for the second kernel. The menu is the
/// image builder's, which has the same word; a test of the host-harness holds them together.
pub const SECOND_KERNEL_SKU: &str = "vexfs-second-kernel";

/// What only this run of the machine knows: where its files and sockets are.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// The machine's id; part of the process name.
    pub id: String,
    /// Folder of the sockets and files below.
    pub dir: PathBuf,
    /// Where memory lives.
    pub ram: Ram,
    /// How the vsock device is attached; `None` leaves its root port empty, for hot-plug.
    pub vsock: Option<VsockWire>,
    /// The file that holds the SMBIOS type 11 string which invites the agent.
    pub invitation: Option<PathBuf>,
    /// OVMF's code and this machine's variable store, for [`Firmware::Uefi`].
    pub uefi: Option<(PathBuf, PathBuf)>,
    /// Wait to be told where the state of a snapshot comes from, instead of booting.
    pub incoming: bool,
    /// Whether this QEMU was built with seccomp.
    pub sandbox: bool,
}

/// Where the guest's memory lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ram {
    /// In anonymous memory that can be handed to a vhost-user daemon.
    Memfd,
    /// In ordinary private memory.
    Private,
    /// In a file.
    File {
        /// The file, on a tmpfs.
        path: PathBuf,
        /// Whether what the guest writes goes to the file. Needed for a vhost-user daemon and to
        /// freeze; a private mapping lets many forks share one file.
        shared: bool,
    },
}

/// How the vsock device reaches the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VsockWire {
    /// The kernel's vhost-vsock.
    Kernel {
        /// The guest's CID, already claimed on `fd`.
        cid: u32,
        /// `/dev/vhost-vsock`, opened by us and inherited by QEMU under this number.
        fd: i32,
    },
    /// A vhost-user daemon.
    User,
}

/// Names of the sockets and files in [`Wiring::dir`].
pub mod files {
    /// QEMU connects here with its serial console.
    pub const CONSOLE: &str = "console.sock";
    /// QEMU connects here with QMP.
    pub const QMP: &str = "qmp.sock";
    /// The vsock daemon listens here for QEMU.
    pub const VHOST: &str = "vhost.sock";
    /// The vsock daemon listens here for us; it appends `_PORT` for connections to us.
    pub const VSOCK: &str = "v.sock";
    /// The system disk's overlay.
    pub const OVERLAY: &str = "system.qcow2";
    /// OVMF's variables.
    pub const UEFI_VARS: &str = "uefi-vars.fd";
}

/// Names of QEMU objects that are spoken of after the start.
pub mod ids {
    /// The vsock device.
    pub const VSOCK: &str = "vsock0";
    /// The character device to the vsock daemon.
    pub const VSOCK_CHARDEV: &str = "vsock-wire";
    /// The root port the vsock device is plugged into.
    pub const VSOCK_PORT: &str = "vsock-port";
    /// The system disk's device.
    pub const SYSTEM: &str = "system";
    /// Guest memory.
    pub const RAM: &str = "ram";
}

/// Slot of each device on `pcie.0`; extra disks follow from `DISKS` on.
mod slot {
    pub(super) const VSOCK_PORT: u8 = 0x02;
    pub(super) const RNG: u8 = 0x03;
    pub(super) const PVPANIC: u8 = 0x04;
    pub(super) const BALLOON: u8 = 0x05;
    pub(super) const NET: u8 = 0x06;
    pub(super) const SYSTEM: u8 = 0x08;
    pub(super) const DISKS: u8 = 0x09;
}

/// Translated-code buffer in MiB. QEMU's default grows to 1 GiB per machine, too much when many
/// run side by side; a booted Debian fills about 100 MiB.
const TB_SIZE_MIB: u32 = 256;

/// The whole command line after the program's name.
pub fn arguments(spec: &MachineSpec, wiring: &Wiring) -> Vec<String> {
    let mut out = Arguments::default();
    out.basics(spec, wiring);
    out.memory(spec, wiring);
    out.boot(spec, wiring);
    out.channels(wiring);
    out.disks(spec, wiring);
    out.devices(spec, wiring);
    if wiring.incoming {
        out.add("-incoming", "defer");
    }
    out.0
}

/// The arguments of the QMP command `device_add` that plugs the vsock device in later. With
/// [`VsockWire::User`] the character device has to be added first.
pub fn vsock_device(wire: &VsockWire) -> Value {
    let mut device = match wire {
        VsockWire::Kernel { cid, fd } => {
            json!({"driver": "vhost-vsock-pci", "guest-cid": cid, "vhostfd": fd.to_string()})
        }
        VsockWire::User => {
            json!({"driver": "vhost-user-vsock-pci", "chardev": ids::VSOCK_CHARDEV})
        }
    };
    device["id"] = ids::VSOCK.into();
    device["bus"] = ids::VSOCK_PORT.into();
    device
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    fn device(&mut self, slot: u8, driver: &str, rest: &str) {
        let comma = if rest.is_empty() { "" } else { "," };
        self.add(
            "-device",
            format!("{driver},bus=pcie.0,addr={slot:#04x}{comma}{rest}"),
        );
    }

    fn basics(&mut self, spec: &MachineSpec, wiring: &Wiring) {
        let name: String = spec
            .name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        self.add(
            "-name",
            format!("vexfs-{}-{name},debug-threads=on", wiring.id),
        );
        self.flag("-nodefaults");
        self.flag("-no-user-config");
        self.add("-display", "none");
        self.add(
            "-machine",
            // Without graphics SeaBIOS speaks on the serial console: that no disk could be booted is
            // said by nobody else.
            format!("q35,memory-backend={},vmport=off,graphics=off", ids::RAM),
        );
        match spec.accelerator {
            Accelerator::Tcg => {
                let thread = if spec.counts_instructions {
                    // While the guest sleeps its clock follows the host's: `sleep=off` would jump to
                    // the next timer and make every wait for a disk look endless.
                    self.add("-icount", "shift=0,sleep=on");
                    "single"
                } else {
                    "multi"
                };
                self.add(
                    "-accel",
                    format!("tcg,thread={thread},tb-size={TB_SIZE_MIB}"),
                );
                // Five-level page tables cost the emulator a fifth memory access per TLB miss and
                // serve no guest of ours; svm makes guests load KVM, to no use.
                self.add("-cpu", "max,la57=off,svm=off");
            }
            Accelerator::Kvm => {
                self.add("-accel", "kvm");
                self.add("-cpu", "host");
            }
        }
        self.add(
            "-smp",
            format!("{0},sockets=1,cores={0},threads=1", spec.cpus),
        );
        if wiring.sandbox {
            self.add(
                "-sandbox",
                "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            );
        }
        // A panicked guest goes on for a moment: what it says from an NMI reaches the console only
        // after pvpanic was told. It is then stopped by us.
        let reboot = if spec.may_reboot { "reset" } else { "shutdown" };
        self.add("-action", format!("panic=none,reboot={reboot}"));
    }

    fn memory(&mut self, spec: &MachineSpec, wiring: &Wiring) {
        let (id, mib) = (ids::RAM, spec.memory_mib);
        self.add("-m", format!("{mib}M"));
        self.add(
            "-object",
            match &wiring.ram {
                Ram::Memfd => format!("memory-backend-memfd,id={id},size={mib}M,share=on"),
                Ram::Private => format!("memory-backend-ram,id={id},size={mib}M"),
                Ram::File { path, shared } => format!(
                    "memory-backend-file,id={id},size={mib}M,share={},mem-path={}",
                    if *shared { "on" } else { "off" },
                    comma(path)
                ),
            },
        );
    }

    fn boot(&mut self, spec: &MachineSpec, wiring: &Wiring) {
        if let Some((code, vars)) = &wiring.uefi
            && spec.firmware == Firmware::Uefi
        {
            self.add(
                "-drive",
                format!(
                    "if=pflash,unit=0,format=raw,readonly=on,file={}",
                    comma(code)
                ),
            );
            self.add(
                "-drive",
                format!("if=pflash,unit=1,format=raw,file={}", comma(vars)),
            );
        }
        if let Some(direct) = &spec.kernel {
            self.add("-kernel", direct.kernel.display().to_string());
            if let Some(initrd) = &direct.initrd {
                self.add("-initrd", initrd.display().to_string());
            }
            self.add("-append", direct.command_line.clone());
        }
        if spec.second_kernel {
            self.add("-smbios", format!("type=1,sku={SECOND_KERNEL_SKU}"));
        }
        if let Some(invitation) = &wiring.invitation {
            self.add("-smbios", format!("type=11,path={}", comma(invitation)));
        }
    }

    fn channels(&mut self, wiring: &Wiring) {
        // QEMU connects to us: no waiting for a socket to appear, and no connection to miss.
        let socket = |id: &str, file: &str| {
            format!(
                "socket,id={id},path={},server=off",
                comma(&wiring.dir.join(file))
            )
        };
        self.add("-chardev", socket("console", files::CONSOLE));
        self.add("-serial", "chardev:console");
        self.add("-chardev", socket("qmp", files::QMP));
        self.add("-mon", "chardev=qmp,mode=control");
    }

    fn disks(&mut self, spec: &MachineSpec, wiring: &Wiring) {
        if spec.image.is_some() {
            let overlay = wiring.dir.join(files::OVERLAY);
            self.disk(
                slot::SYSTEM,
                ids::SYSTEM,
                &overlay,
                DiskFormat::Qcow2,
                false,
            );
        }
        for (slot, disk) in (slot::DISKS..).zip(&spec.disks) {
            match &disk.content {
                DiskContent::ReadOnly { path, format } => {
                    self.disk(slot, &disk.serial, path, *format, true);
                }
                DiskContent::Scratch { .. } => {
                    let path = scratch_file(&wiring.dir, &disk.serial);
                    self.disk(slot, &disk.serial, &path, DiskFormat::Raw, false);
                }
                DiskContent::Logged { file, log } => {
                    self.logged_disk(slot, &disk.serial, file, log);
                }
            }
        }
    }

    fn disk(&mut self, slot: u8, name: &str, path: &Path, format: DiskFormat, read_only: bool) {
        // `cache=unsafe` in the words of -blockdev: nothing of a machine outlives the host.
        let node = json!({
            "node-name": name,
            "driver": format.name(),
            "read-only": read_only,
            "discard": "unmap",
            "cache": {"direct": false, "no-flush": true},
            "file": {"driver": "file", "filename": path},
        });
        self.disk_device(slot, name, &node);
    }

    /// Here flushes count: they are written into the log. That they reach the host's disk is as
    /// needless as ever.
    fn logged_disk(&mut self, slot: u8, name: &str, file: &Path, log: &Path) {
        let plain = |path: &Path| {
            json!({
                "driver": "file",
                "filename": path,
                "cache": {"direct": false, "no-flush": true},
            })
        };
        let node = json!({
            "node-name": name,
            "driver": "blklogwrites",
            "read-only": false,
            "cache": {"direct": false, "no-flush": false},
            "file": {"driver": "raw", "file": plain(file),
                     "cache": {"direct": false, "no-flush": true}},
            "log": plain(log),
        });
        self.disk_device(slot, name, &node);
    }

    fn disk_device(&mut self, slot: u8, name: &str, node: &Value) {
        self.add("-blockdev", node.to_string());
        let boot = if name == ids::SYSTEM {
            ",bootindex=1"
        } else {
            ""
        };
        self.device(
            slot,
            "virtio-blk-pci",
            &format!("id={name},drive={name},serial={name},write-cache=on{boot}"),
        );
    }

    fn devices(&mut self, spec: &MachineSpec, wiring: &Wiring) {
        if spec.vsock.is_some() {
            // A port of its own makes the device hot-pluggable: vhost-user-vsock cannot be
            // migrated, so a snapshot is taken without it.
            self.device(
                slot::VSOCK_PORT,
                "pcie-root-port",
                &format!("id={},chassis=1", ids::VSOCK_PORT),
            );
        }
        match &wiring.vsock {
            Some(VsockWire::Kernel { cid, fd }) => self.add(
                "-device",
                format!(
                    "vhost-vsock-pci,id={},bus={},guest-cid={cid},vhostfd={fd}",
                    ids::VSOCK,
                    ids::VSOCK_PORT
                ),
            ),
            Some(VsockWire::User) => {
                self.add(
                    "-chardev",
                    format!(
                        "socket,id={},path={},server=off",
                        ids::VSOCK_CHARDEV,
                        comma(&wiring.dir.join(files::VHOST))
                    ),
                );
                self.add(
                    "-device",
                    format!(
                        "vhost-user-vsock-pci,id={},bus={},chardev={}",
                        ids::VSOCK,
                        ids::VSOCK_PORT,
                        ids::VSOCK_CHARDEV
                    ),
                );
            }
            None => {}
        }
        self.add("-object", "rng-random,id=entropy,filename=/dev/urandom");
        self.device(slot::RNG, "virtio-rng-pci", "rng=entropy");
        self.device(slot::PVPANIC, "pvpanic-pci", "");
        if spec.reports_free_pages && spec.vsock == Some(VsockBackend::User) {
            // Pages the guest frees are cut out of the memory file, which keeps snapshots and the
            // copies forks make of them small. Not where forks map the snapshot's own file
            // privately: QEMU would cut holes into what they share.
            self.device(
                slot::BALLOON,
                "virtio-balloon-pci",
                "free-page-reporting=on",
            );
        }
        // A fork wakes with a new generation id; kernels from 6.x on reseed when they see it.
        self.add("-device", "vmgenid,guid=auto");
        if let Network::User { forward } = &spec.network {
            let forward: String = forward
                .iter()
                .map(|(host, guest)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"))
                .collect();
            self.add("-netdev", format!("user,id=net0{forward}"));
            // An empty ROM: SeaBIOS would spend seconds in iPXE.
            self.device(slot::NET, "virtio-net-pci", "netdev=net0,romfile=");
        }
    }
}

/// Where a scratch disk's file is.
pub fn scratch_file(dir: &Path, serial: &str) -> PathBuf {
    dir.join(format!("{serial}.raw"))
}

/// A path inside one of QEMU's comma-separated options, where a comma is written twice.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests;
