//! The harness inside the guest: probes, boots a kernel with the agent in its initramfs, talks to it
//! over the kernel's vsock, freezes it, and talks to two forks of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_client::ExecSpec;
use anyhow::{Context, ensure};
use machine::snapshot::{DEFAULT_CAP, Recipe, Store, Watch};
use machine::{Accelerator, DirectKernel, Machine, MachineSpec, VsockBackend, vsock};

use agent_protocol::AGENT_PORT;
use tokio_vsock::{VsockAddr, VsockStream};

use super::bundle::BUSYBOX;

/// What must be said for the proof to count; nothing is printed before it is so.
pub const PROOFS: &[&str] = &[
    "probe chose kernel: /dev/vhost-vsock works",
    "the agent answered over AF_VSOCK, and the guest was frozen",
    "forks on private mappings of one memory",
    "a command ran in the inner guest: 42",
    "two guests of one host have CIDs of their own",
    "the killed guest has left the address",
];

/// Emulation inside emulation is slow.
const REQUEST: Duration = Duration::from_secs(120);

/// The modules between a bare cloud kernel and the agent.
const MODULES: &[&str] = &["virtio_pci", "vmw_vsock_virtio_transport", "qemu_fw_cfg"];

/// The first process of the inner guest: modules, the invitation out of SMBIOS as systemd would
/// read it (systemd.exec(5), "System Credentials"), and the agent.
const INIT: &str = "#!/bin/busybox sh
set -eu
/bin/busybox mkdir -p /proc /sys /dev /run/credentials /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t cgroup2 cgroup /sys/fs/cgroup
/bin/busybox --install -s /bin
modprobe -a virtio_pci vmw_vsock_virtio_transport
for entry in /sys/firmware/dmi/entries/11-*/raw; do
    tr '\\0' '\\n' < $entry | sed -n 's/^.*io.systemd.credential:vexfs.agent-secret=//p'
done > /run/credentials/vexfs.agent-secret
export CREDENTIALS_DIRECTORY=/run/credentials
echo 'init: starting the agent'
/bin/vexfs-agent
";

pub fn run() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(prove())
}

async fn prove() -> anyhow::Result<()> {
    let vsock = vsock::probe(None)?;
    ensure!(vsock.chosen == VsockBackend::Kernel, "chose {vsock:?}");
    println!("probe chose {}: {}", vsock.chosen, vsock.why);

    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let initrd = PathBuf::from("/tmp/initrd.cpio");
    initramfs(
        Path::new("/lib/modules").join(release.trim()).as_path(),
        &initrd,
    )?;
    let spec = |name: &str| MachineSpec {
        image: None,
        kernel: Some(DirectKernel {
            kernel: format!("/boot/vmlinuz-{}", release.trim()).into(),
            initrd: Some(initrd.clone()),
            command_line: "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off".into(),
        }),
        memory_mib: 256,
        cpus: 1,
        accelerator: Accelerator::Tcg,
        vsock: Some(vsock.chosen),
        ..MachineSpec::new(name, "", format!("/tmp/{name}"))
    };
    let begin = Instant::now();
    let recipe = Recipe {
        spec: spec("frozen"),
        image_digest: "none: it lives from its initramfs".into(),
        patience: machine::snapshot::SETTLING,
        agent_version: env!("CARGO_PKG_VERSION").into(),
    };
    let snapshot = Store::open("/tmp/snapshots", DEFAULT_CAP)?
        .snapshot(&recipe, &Watch::new(|stage, _| println!("{stage}")))
        .await?;
    println!(
        "the agent answered over AF_VSOCK, and the guest was frozen: {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    let first = snapshot.fork("first", Path::new("/tmp/first")).await?;
    let second = snapshot.fork("second", Path::new("/tmp/second")).await?;
    println!(
        "forks on private mappings of one memory: {:?}",
        first.timing
    );
    ensure!(first.timing.memory.is_zero(), "memory was copied");
    let cids = [cid(&first.machine).await?, cid(&second.machine).await?];
    ensure!(cids[0] != cids[1], "both have CID {}", cids[0]);
    println!("two guests of one host have CIDs of their own: {cids:?}");
    for fork in [&first, &second] {
        let script = ExecSpec::new([
            "/bin/sh",
            "-c",
            "[ ! -e /mark ] || exit 1; echo > /mark; echo $((6 * 7))",
        ]);
        let output = fork.agent.exec(script, REQUEST).await?;
        ensure!(output.success(), "forks see each other's files");
        println!(
            "a command ran in the inner guest: {}",
            output.stdout_text().trim()
        );
    }
    let cid = cids[0];
    first.machine.kill().await?;
    // ENODEV: nobody on this host has that address any more.
    let gone = VsockStream::connect(VsockAddr::new(cid, AGENT_PORT)).await;
    let why = gone.err().context("a killed guest still answers")?;
    println!("the killed guest has left the address: {why}");
    Ok(())
}

/// The guest's address, which QEMU knows.
async fn cid(machine: &Machine) -> anyhow::Result<u32> {
    let question = serde_json::json!({
        "path": "/machine/peripheral/vsock0",
        "property": "guest-cid",
    });
    let answer = machine.qmp().execute("qom-get", question).await?;
    let cid = answer.as_u64().context("a CID that is no number")?;
    Ok(u32::try_from(cid)?)
}

/// An initramfs in the kernel's format (Documentation/driver-api/early-userspace/buffer-format.rst).
fn initramfs(modules: &Path, to: &Path) -> anyhow::Result<()> {
    let mut files = vec![
        ("bin/busybox".to_owned(), fs::read(BUSYBOX)?),
        (
            "bin/vexfs-agent".into(),
            fs::read("/usr/lib/vexfs/vexfs-agent")?,
        ),
        ("init".into(), INIT.into()),
    ];
    let inside = modules.strip_prefix("/")?.display().to_string();
    let index = fs::read_to_string(modules.join("modules.dep"))?;
    for name in ["modules.dep", "modules.alias", "modules.symbols"] {
        files.push((format!("{inside}/{name}"), fs::read(modules.join(name))?));
    }
    for module in needed(&index) {
        files.push((
            format!("{inside}/{module}"),
            fs::read(modules.join(&module))?,
        ));
    }
    let mut dirs = BTreeSet::new();
    for (name, _) in &files {
        dirs.extend(
            Path::new(name)
                .ancestors()
                .skip(1)
                .map(|dir| dir.display().to_string()),
        );
    }
    dirs.remove("");
    let mut out = fs::File::create(to)?;
    let entry = |name: &str, mode| cpio::newc::Builder::new(name).mode(mode).nlink(1);
    for dir in dirs {
        entry(&dir, 0o040_755).write(&mut out, 0).finish()?;
    }
    for (name, content) in files {
        let mut writer = entry(&name, 0o100_755).write(&mut out, u32::try_from(content.len())?);
        writer.write_all(&content)?;
        writer.finish()?;
    }
    cpio::newc::trailer(out)?;
    Ok(())
}

/// The files of our modules and what they depend on (modules.dep(5)).
fn needed(index: &str) -> BTreeSet<String> {
    let stem = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or_default().replace('-', "_")
    };
    index
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(module, _)| MODULES.contains(&stem(module).as_str()))
        .flat_map(|(module, others)| std::iter::once(module).chain(others.split_whitespace()))
        .map(str::to_owned)
        .collect()
}
