//! Requests about the system as a whole, as far as they harm nobody here. The others run in a VM.

use std::time::Duration;

use agent_protocol::FaultKind;
use agent_protocol::message::{MountFlags, MountRequest, UnmountFlags};

use super::{AMPLE, Pair, pair};

#[tokio::test]
async fn ping_and_facts() {
    let Pair { client, .. } = pair().await;
    let pong = client.ping(AMPLE).await.unwrap();
    assert_eq!(pong.agent_version, env!("CARGO_PKG_VERSION"));
    assert!(pong.agent_resident > 0);
    let info = client.info(AMPLE).await.unwrap();
    let read = |path: &str| std::fs::read_to_string(path).unwrap().trim_end().to_owned();
    assert_eq!(info.kernel_release, read("/proc/sys/kernel/osrelease"));
    assert_eq!(info.boot_id, read("/proc/sys/kernel/random/boot_id"));
    assert_eq!(info.cmdline, read("/proc/cmdline"));
    assert!(info.memory_total >= info.memory_available && info.memory_available > 0);
    assert!(info.cpus > 0 && info.uptime_ms > 0);
    assert!(
        info.mounts
            .iter()
            .any(|mount| mount.target.as_bytes() == b"/")
    );
}

#[tokio::test]
async fn what_the_kernel_refuses_comes_back_with_its_errno() {
    let Pair { client, .. } = pair().await;
    let mount = MountRequest {
        source: "none".into(),
        target: "/no/such/mount/point".into(),
        fstype: "tmpfs".into(),
        flags: MountFlags::RDONLY | MountFlags::NODEV,
        data: String::new(),
    };
    let error = client.mount(mount.clone(), AMPLE).await.unwrap_err();
    assert!(
        error.to_string().contains("/no/such/mount/point"),
        "{error}"
    );
    let flags = MountFlags(1 << 60);
    let error = client
        .mount(MountRequest { flags, ..mount }, AMPLE)
        .await
        .unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::Invalid), "{error}");
    let error = client
        .unmount("/proc/1", UnmountFlags::default(), AMPLE)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("unmount /proc/1"), "{error}");
    let error = client
        .unload_module("no_such_module", AMPLE)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no_such_module"), "{error}");
    let error = client
        .load_module_file("/no/such/file.ko", "", AMPLE)
        .await
        .unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::NotFound), "{error}");
    let error = client.sysrq(b'\n', AMPLE).await.unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::Invalid), "{error}");
    let error = client.add_entropy(Vec::new(), AMPLE).await.unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::Invalid), "{error}");
}

#[tokio::test]
async fn a_deadline_of_nothing_has_passed() {
    let Pair { client, .. } = pair().await;
    let error = client.info(Duration::ZERO).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    client.ping(AMPLE).await.unwrap();
}
