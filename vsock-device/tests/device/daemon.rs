//! A daemon as a process.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use keeper::{Child, Kept};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vsock_device::Settings;
use vsock_device::driver::CID;

/// Names another daemon to drive instead, with the command line of vhost-device-vsock 0.3.0.
const PEER: &str = "VEXFS_PEER_VSOCK";

pub struct Daemon {
    child: Child,
    // Drops after the child.
    _runtime: Runtime,
    pub settings: Settings,
    _dir: TempDir,
}

impl Daemon {
    pub fn start() -> io::Result<Daemon> {
        let dir = TempDir::new()?;
        let settings = Settings {
            cid: CID,
            vhost: dir.path().join("vhost"),
            socket: dir.path().join("vsock"),
        };
        let program = match std::env::var_os(PEER) {
            Some(peer) => Kept::new(peer).args([
                format!("--guest-cid={CID}"),
                format!("--socket={}", settings.vhost.display()),
                format!("--uds-path={}", settings.socket.display()),
            ]),
            None => Kept::new("/proc/self/exe").args(settings.arguments()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let child = runtime.block_on(program.spawn())?;
        let begin = Instant::now();
        while !settings.vhost.exists() {
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(io::Error::other("the daemon does not open its socket"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(Daemon {
            child,
            _runtime: runtime,
            settings,
            _dir: dir,
        })
    }

    /// Memory it has in use, in KiB.
    pub fn memory(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| io::Error::other("no VmRSS"))
    }

    /// The port's socket for connections from the guest.
    pub fn port(&self, port: u32) -> PathBuf {
        let mut path = self.settings.socket.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }
}
