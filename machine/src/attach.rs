//! Making the host's half of a vsock device.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clock::Whose;
use keeper::{Child, Kept};
use vsock_device::Settings;

use super::arguments::{VsockWire, files};
use super::start::{COMING_UP, create, ended_early, unlink};
use super::vsock::{self, Dialer};
use super::{MachineError, VsockBackend};

/// The host's half of a vsock device.
pub(crate) struct Attached {
    pub(crate) wire: VsockWire,
    pub(crate) dialer: Dialer,
    /// The daemon of the user backend and its log.
    pub(crate) daemon: Option<(Child, PathBuf)>,
    /// The claimed device of the kernel backend, until QEMU has it.
    pub(crate) device: Option<File>,
}

/// Descriptor under which QEMU inherits the claimed vhost-vsock device: its standard output.
const VHOST_FD: i32 = 1;

pub(crate) async fn attach(
    backend: VsockBackend,
    dir: &Path,
    log: &Path,
) -> Result<Attached, MachineError> {
    match backend {
        VsockBackend::Kernel => {
            let (cid, device) = vsock::claim_cid()
                .map_err(MachineError::io("cannot claim a CID on /dev/vhost-vsock"))?;
            Ok(Attached {
                wire: VsockWire::Kernel { cid, fd: VHOST_FD },
                dialer: Dialer::Kernel { cid },
                daemon: None,
                device: Some(device),
            })
        }
        VsockBackend::User => {
            let (vhost, socket) = (dir.join(files::VHOST), dir.join(files::VSOCK));
            for path in [&vhost, &socket] {
                unlink(path)?;
            }
            let out = create(log)?;
            let again = out
                .try_clone()
                .map_err(MachineError::io(format!("cannot use {}", log.display())))?;
            let settings = Settings {
                cid: vsock::USER_CID.into(),
                vhost: vhost.clone(),
                socket: socket.clone(),
            };
            let mut daemon = Kept::new("/proc/self/exe")
                .args(settings.arguments())
                .stdout(out)
                .stderr(again)
                .spawn()
                .await
                .map_err(MachineError::io("cannot start the vsock device"))?;
            let deadline = Instant::now() + COMING_UP;
            while !listening(&vhost) {
                if Instant::now() >= deadline {
                    return Err(MachineError::Slow {
                        what: "opening of the vsock device's socket".into(),
                        whose: Whose::Host,
                        within: COMING_UP,
                        log: log.to_owned(),
                    });
                }
                if tokio::time::timeout(Duration::from_millis(1), daemon.wait())
                    .await
                    .is_ok()
                {
                    return Err(ended_early("the vsock device", &mut daemon, log).await);
                }
            }
            Ok(Attached {
                wire: VsockWire::User,
                dialer: Dialer::User { socket },
                daemon: Some((daemon, log.to_owned())),
                device: None,
            })
        }
    }
}

/// Whether somebody listens on a Unix socket, without connecting to it (the daemon would take us
/// for QEMU). proc(5), `/proc/net/unix`: flag 0x10000 is `__SO_ACCEPTCON`.
fn listening(socket: &Path) -> bool {
    socket.exists()
        && std::fs::read_to_string("/proc/net/unix").is_ok_and(|table| {
            let socket = socket.to_string_lossy();
            table.lines().any(|line| {
                line.split_whitespace().nth(3) == Some("00010000")
                    && line.ends_with(socket.as_ref())
            })
        })
}
