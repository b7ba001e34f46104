//! Golden command lines.

use super::*;
use crate::{DirectKernel, ExtraDisk};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/qemu");

fn spec() -> MachineSpec {
    MachineSpec {
        disks: vec![
            ExtraDisk::tools("/images/tools.ext4"),
            ExtraDisk::scratch(256),
        ],
        ..MachineSpec::new("quick::mount", "/images/minimal.qcow2", "/logs")
    }
}

fn wiring() -> Wiring {
    Wiring {
        id: "0123456789".into(),
        dir: "/tmp/vexfs-0123456789".into(),
        ram: Ram::Memfd,
        vsock: Some(VsockWire::User),
        invitation: Some("/tmp/vexfs-0123456789/invitation.smbios".into()),
        uefi: None,
        incoming: false,
        sandbox: true,
    }
}

fn kernel_vsock(spec: MachineSpec, wiring: Wiring) -> (MachineSpec, Wiring) {
    let vsock = Some(VsockWire::Kernel { cid: 4711, fd: 1 });
    (
        MachineSpec {
            vsock: Some(VsockBackend::Kernel),
            ..spec
        },
        Wiring {
            vsock,
            ram: Ram::Private,
            ..wiring
        },
    )
}

fn uninvited(spec: MachineSpec, wiring: Wiring) -> (MachineSpec, Wiring) {
    (
        MachineSpec {
            invite: false,
            ..spec
        },
        Wiring {
            invitation: None,
            ..wiring
        },
    )
}

fn kvm(spec: MachineSpec) -> MachineSpec {
    MachineSpec {
        accelerator: Accelerator::Kvm,
        ..spec
    }
}

fn uefi(spec: MachineSpec, wiring: Wiring) -> (MachineSpec, Wiring) {
    let code = "/usr/share/OVMF/OVMF_CODE_4M.fd".into();
    let vars = wiring.dir.join(files::UEFI_VARS);
    (
        MachineSpec {
            firmware: Firmware::Uefi,
            ..spec
        },
        Wiring {
            uefi: Some((code, vars)),
            ..wiring
        },
    )
}

fn fork(spec: MachineSpec, wiring: Wiring, shared: bool) -> (MachineSpec, Wiring) {
    let path = "/dev/shm/vexfs-0123456789.ram".into();
    let ram = Ram::File { path, shared };
    (
        MachineSpec {
            freezable: true,
            reports_free_pages: true,
            ..spec
        },
        Wiring {
            ram,
            vsock: None,
            incoming: true,
            ..wiring
        },
    )
}

fn cases() -> Vec<(&'static str, (MachineSpec, Wiring))> {
    let direct = MachineSpec {
        image: None,
        disks: vec![],
        kernel: Some(DirectKernel {
            kernel: "/boot/vmlinuz".into(),
            initrd: Some("/boot/initrd.img".into()),
            command_line: "console=ttyS0 panic=-1".into(),
        }),
        may_reboot: false,
        ..spec()
    };
    let bare = MachineSpec {
        vsock: None,
        disks: vec![],
        ..spec()
    };
    let network = Network::User {
        forward: vec![(2222, 22), (8080, 80)],
    };
    let (kernel_spec, kernel_wiring) = kernel_vsock(spec(), wiring());
    let logged = MachineSpec {
        disks: vec![ExtraDisk::logged("/cut/disk.raw".into(), "/cut/log".into())],
        ..spec()
    };
    vec![
        ("tcg-user-invited-bios", (spec(), wiring())),
        ("logged-disk", fork(logged, wiring(), true)),
        ("tcg-user-uninvited-bios", uninvited(spec(), wiring())),
        ("tcg-kernel-invited-bios", kernel_vsock(spec(), wiring())),
        ("kvm-user-invited-bios", (kvm(spec()), wiring())),
        (
            "kvm-kernel-invited-bios",
            kernel_vsock(kvm(spec()), wiring()),
        ),
        ("kvm-kernel-uninvited-uefi", {
            let (spec, wiring) = kernel_vsock(kvm(spec()), wiring());
            let (spec, wiring) = uefi(spec, wiring);
            uninvited(spec, wiring)
        }),
        ("tcg-user-invited-uefi", uefi(spec(), wiring())),
        ("direct-kernel", (direct, wiring())),
        ("to-be-frozen", {
            let (spec, wiring) = fork(spec(), wiring(), true);
            (
                spec,
                Wiring {
                    vsock: Some(VsockWire::User),
                    incoming: false,
                    ..wiring
                },
            )
        }),
        ("freezable", {
            let (spec, wiring) = fork(spec(), wiring(), true);
            (
                MachineSpec {
                    reports_free_pages: false,
                    ..spec
                },
                Wiring {
                    vsock: Some(VsockWire::User),
                    incoming: false,
                    ..wiring
                },
            )
        }),
        ("fork-user", fork(spec(), wiring(), true)),
        ("fork-counts-instructions", {
            let spec = MachineSpec {
                counts_instructions: true,
                cpus: 1,
                ..spec()
            };
            fork(spec, wiring(), true)
        }),
        ("fork-kernel", fork(kernel_spec, kernel_wiring, false)),
        ("network-no-vsock-no-sandbox", {
            let (spec, wiring) = uninvited(MachineSpec { network, ..bare }, wiring());
            (
                spec,
                Wiring {
                    vsock: None,
                    ram: Ram::Private,
                    sandbox: false,
                    ..wiring
                },
            )
        }),
    ]
}

/// `UPDATE_GOLDEN=1 cargo nextest run golden` writes the files anew; the diff is for review.
#[test]
fn command_lines_are_the_golden_ones() {
    let mut wrong = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (name, (spec, wiring)) in cases() {
        let path = PathBuf::from(GOLDEN).join(format!("{name}.args"));
        let mut text = String::new();
        for argument in arguments(&spec, &wiring) {
            let separator = match argument.starts_with('-') {
                true if text.is_empty() => "",
                true => "\n",
                false => " ",
            };
            text.push_str(separator);
            text.push_str(&argument);
        }
        text.push('\n');
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(GOLDEN).expect("the golden folder");
            std::fs::write(&path, &text).expect("a golden file");
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", path.display()));
        }
        names.push(format!("{name}.args"));
    }
    assert!(
        wrong.is_empty(),
        "not as in the golden files:\n{}",
        wrong.join("\n")
    );
    for file in std::fs::read_dir(GOLDEN)
        .expect("the golden folder")
        .flatten()
    {
        let name = file.file_name().to_string_lossy().into_owned();
        assert!(names.contains(&name), "golden file without a case: {name}");
    }
}

#[test]
fn every_pci_address_is_used_once() {
    for (name, (spec, wiring)) in cases() {
        let arguments = arguments(&spec, &wiring);
        let mut addresses: Vec<&str> = arguments
            .iter()
            .filter_map(|a| a.split_once(",addr=")?.1.get(..4))
            .collect();
        let count = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), count, "{name}: {arguments:?}");
    }
}

#[test]
fn commas_and_odd_names_do_not_become_options() {
    let spec = MachineSpec {
        name: "a,b c=d".into(),
        ..spec()
    };
    let wiring = Wiring {
        dir: "/tmp/x,y".into(),
        ..wiring()
    };
    let arguments = arguments(&spec, &wiring);
    assert!(arguments.contains(&"vexfs-0123456789-a-b-c-d,debug-threads=on".to_owned()));
    assert!(
        arguments
            .iter()
            .any(|a| a.contains("path=/tmp/x,,y/qmp.sock,"))
    );
    assert!(
        arguments
            .iter()
            .any(|a| a.contains("\"/tmp/x,y/system.qcow2\""))
    );
}

#[test]
fn a_hot_plugged_device_says_where_it_goes() {
    let user = vsock_device(&VsockWire::User);
    assert_eq!(
        user.to_string(),
        r#"{"bus":"vsock-port","chardev":"vsock-wire","driver":"vhost-user-vsock-pci","id":"vsock0"}"#
    );
    let kernel = vsock_device(&VsockWire::Kernel { cid: 9, fd: 1 });
    assert_eq!(kernel["vhostfd"], "1");
    assert_eq!(kernel["guest-cid"], 9);
}
