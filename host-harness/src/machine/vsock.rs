//! Choosing what carries vsock, and connecting to a port of the guest.
//!
//! `kernel`: the host's vhost-vsock; our side is AF_VSOCK (vsock(7)). Guest addresses (CIDs) are
//! global on a host, so one is claimed on an open `/dev/vhost-vsock` before QEMU starts and handed
//! over open: the kernel refuses a CID twice, across all processes, and frees it with the last
//! descriptor.
//!
//! `user`: one `vhost-device-vsock` daemon per machine, which needs no kernel support. Our side is
//! a Unix socket where one writes `CONNECT PORT` first.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::gate::Gate;
use super::{MachineError, VsockBackend};

/// The daemon of the user backend.
const DAEMON: &str = "vhost-device-vsock";

/// How to get it.
const REMEDY: &str = "run `ci/setup`, or `cargo install --locked vhost-device-vsock@0.3.0`";

/// The CID the guest has with the user backend. Each daemon serves one machine: no conflicts.
pub(crate) const USER_CID: u32 = 3;

/// A connection to a guest, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The backend to use, and why that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vsock {
    /// The one to use.
    pub chosen: VsockBackend,
    /// One line for whoever reads the log.
    pub why: String,
}

/// Chooses: the kernel's when it works, else the daemon. `request` insists on one.
///
/// # Errors
/// [`MachineError::NoVsock`] with the reasons against both (or against the one asked for).
pub fn decide(
    request: Option<VsockBackend>,
    kernel: Result<(), String>,
    daemon: Result<PathBuf, String>,
) -> Result<Vsock, MachineError> {
    let asked = |backend| request.is_none_or(|wanted| wanted == backend);
    let not_asked = || "the other one was asked for".to_owned();
    let no_kernel = match kernel {
        Ok(()) if asked(VsockBackend::Kernel) => {
            let why = "/dev/vhost-vsock works".into();
            return Ok(Vsock {
                chosen: VsockBackend::Kernel,
                why,
            });
        }
        Ok(()) => not_asked(),
        Err(why) => why,
    };
    let user = match daemon {
        Ok(path) if asked(VsockBackend::User) => {
            let why = format!("{no_kernel}; using {}", path.display());
            return Ok(Vsock {
                chosen: VsockBackend::User,
                why,
            });
        }
        Ok(_) => not_asked(),
        Err(why) => why,
    };
    Err(MachineError::NoVsock {
        kernel: no_kernel,
        user,
    })
}

/// Looks at the host and chooses.
///
/// # Errors
/// See [`decide`].
pub fn probe(request: Option<VsockBackend>) -> Result<Vsock, MachineError> {
    decide(request, probe_kernel(), daemon())
}

/// Whether the kernel's backend works: the device opens, takes a CID, and AF_VSOCK exists.
fn probe_kernel() -> Result<(), String> {
    claim_cid().map_err(|error| format!("/dev/vhost-vsock does not work ({error})"))?;
    nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Vsock,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map(drop)
    .map_err(|error| format!("the kernel has no AF_VSOCK ({error})"))
}

/// Where the daemon is.
///
/// # Errors
/// A sentence with the remedy when it is in none of the places.
pub fn daemon() -> Result<PathBuf, String> {
    let places = places(
        std::env::var_os("VEXFS_TOOLS").map(PathBuf::from),
        &std::env::current_dir().unwrap_or_default(),
        image_builder::cargo_home(),
    );
    places
        .into_iter()
        .map(|place| place.join(DAEMON))
        .find(|path| path.is_file())
        .or_else(|| super::find_program(Path::new(DAEMON)))
        .ok_or_else(|| format!("`{DAEMON}` is not installed: {REMEDY}"))
}

/// Directories to look in before `PATH`, in order.
fn places(tools: Option<PathBuf>, here: &Path, cargo: Option<PathBuf>) -> Vec<PathBuf> {
    let workspace = here
        .ancestors()
        .find(|dir| dir.join("Cargo.lock").is_file());
    tools
        .map(|dir| dir.join("bin"))
        .into_iter()
        .chain(workspace.map(|root| root.join("out/tools/bin")))
        .chain(cargo.map(|dir| dir.join("bin")))
        .collect()
}

mod ioctl {
    // `_IOW(VHOST_VIRTIO, 0x60, __u64)` of <linux/vhost.h>.
    nix::ioctl_write_ptr!(set_guest_cid, 0xaf, 0x60, u64);
}

/// Claims a guest CID nobody else on this host has. It is ours until the returned device (and
/// every copy of its descriptor) is closed.
///
/// # Errors
/// When `/dev/vhost-vsock` is missing, closed to us, or out of CIDs.
pub fn claim_cid() -> io::Result<(u32, File)> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/vhost-vsock")?;
    let start = u32::from_ne_bytes(super::random()?);
    let cid = first_free(start, |cid| {
        let cid = u64::from(cid);
        // SAFETY: the descriptor is open, and the ioctl only reads the u64 it is pointed to.
        #[allow(unsafe_code)]
        unsafe { ioctl::set_guest_cid(device.as_raw_fd(), &cid) }.map(drop)
    })?;
    Ok((cid, device))
}

/// The first CID from `start` on that `claim` gets. 0, 1, 2 and the highest number are not for
/// guests (vsock(7)).
fn first_free(start: u32, claim: impl Fn(u32) -> nix::Result<()>) -> io::Result<u32> {
    const FIRST: u32 = 3;
    const COUNT: u32 = u32::MAX - FIRST;
    for step in 0..10_000 {
        let cid = FIRST + (start % COUNT).wrapping_add(step) % COUNT;
        match claim(cid) {
            Ok(()) => return Ok(cid),
            Err(nix::Error::EADDRINUSE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "ten thousand guest CIDs in a row are taken",
    ))
}

/// How to reach the ports of one guest.
#[derive(Debug, Clone)]
pub(crate) enum Dialer {
    /// Through the host's kernel.
    Kernel {
        /// The guest's CID.
        cid: u32,
    },
    /// Through the daemon's socket.
    User {
        /// The daemon's `--uds-path`.
        socket: PathBuf,
        /// Says when it may be used.
        gate: Arc<Gate>,
    },
}

impl Dialer {
    /// Connects to a port of the guest once, waiting at most `within` for the guest's answer.
    ///
    /// # Errors
    /// `NotConnected` when the guest has not set up its vsock device, `ConnectionRefused` or
    /// `ConnectionReset` when nobody listens on the port, `TimedOut` when the guest does not answer
    /// at all.
    pub async fn connect(&self, port: u32, within: Duration) -> io::Result<Box<dyn Stream>> {
        let attempt = async {
            match self {
                Dialer::Kernel { cid } => {
                    let address = tokio_vsock::VsockAddr::new(*cid, port);
                    let stream = tokio_vsock::VsockStream::connect(address).await?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
                Dialer::User { gate, .. } if !gate.open() => Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "the guest has not set up its vsock device",
                )),
                Dialer::User { socket, gate } => {
                    let mut stream = gate.guard(UnixStream::connect(socket).await?);
                    greet(&mut stream, port).await?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
            }
        };
        tokio::time::timeout(within, attempt)
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the guest does not answer",
                ))
            })
    }
}

/// Asks the daemon for a port; it answers `OK NUMBER` when the guest has accepted, and hangs up
/// when it has not.
async fn greet<S: Stream>(stream: &mut S, port: u32) -> io::Result<()> {
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the newline belongs to the guest's own conversation.
    while answer.len() < 32 {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            break;
        }
        if byte[0] == b'\n' {
            return match answer.starts_with(b"OK ") {
                true => Ok(()),
                false => Err(odd(&answer)),
            };
        }
        answer.push(byte[0]);
    }
    match answer.is_empty() {
        true => Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nobody in the guest listens on that port",
        )),
        false => Err(odd(&answer)),
    }
}

fn odd(answer: &[u8]) -> io::Error {
    let answer = String::from_utf8_lossy(answer);
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the vsock daemon answered {answer:?}"),
    )
}

/// The daemon's arguments.
pub(crate) fn daemon_arguments(vhost: &Path, vsock: &Path) -> Vec<String> {
    vec![
        format!("--guest-cid={USER_CID}"),
        format!("--socket={}", vhost.display()),
        format!("--uds-path={}", vsock.display()),
    ]
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_kernel_is_chosen_when_it_works_and_the_daemon_otherwise() {
        let no = || Err("/dev/vhost-vsock does not work (No such file or directory)".to_owned());
        let here = || Ok(PathBuf::from("/bin/vhost-device-vsock"));
        let nowhere = || Err("`vhost-device-vsock` is not installed: run `ci/setup`".to_owned());
        let (kernel, user) = (Some(VsockBackend::Kernel), Some(VsockBackend::User));
        let chosen =
            |request, kernel, daemon| decide(request, kernel, daemon).map(|v| v.chosen).ok();
        assert_eq!(chosen(None, Ok(()), here()), kernel);
        assert_eq!(chosen(None, Ok(()), nowhere()), kernel);
        assert_eq!(chosen(None, no(), here()), user);
        assert_eq!(chosen(kernel, Ok(()), here()), kernel);
        assert_eq!(chosen(kernel, no(), here()), None);
        assert_eq!(chosen(user, Ok(()), here()), user);
        assert_eq!(chosen(user, Ok(()), nowhere()), None);
        let error = decide(None, no(), nowhere()).expect_err("neither");
        assert_eq!(
            error.to_string(),
            "no way to speak vsock to a guest: /dev/vhost-vsock does not work (No such file or \
             directory), and `vhost-device-vsock` is not installed: run `ci/setup`"
        );
    }

    #[test]
    fn a_cid_that_is_taken_is_passed_over() {
        let tried = RefCell::new(Vec::new());
        let taken = |cid| {
            tried.borrow_mut().push(cid);
            if cid < 12 {
                Err(nix::Error::EADDRINUSE)
            } else {
                Ok(())
            }
        };
        assert_eq!(first_free(7, taken).expect("free"), 12);
        assert_eq!(*tried.borrow(), [10, 11, 12]);
        let reserved = |cid| match cid {
            0..=2 | u32::MAX => panic!("{cid} is not for guests"),
            cid if cid > 100 => Err(nix::Error::EADDRINUSE),
            _ => Ok(()),
        };
        assert_eq!(first_free(u32::MAX - 5, reserved).expect("wraps"), 3);
        let denied = first_free(3, |_| Err(nix::Error::EACCES)).expect_err("denied");
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert!(first_free(3, |_| Err(nix::Error::EADDRINUSE)).is_err());
    }

    #[test]
    fn the_daemon_is_looked_for_in_order() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::write(root.path().join("Cargo.lock"), "").expect("writes");
        let below = root.path().join("host-harness/src");
        let places = places(Some("/tools".into()), &below, Some("/home/u/.cargo".into()));
        let expected = [
            PathBuf::from("/tools/bin"),
            root.path().join("out/tools/bin"),
            "/home/u/.cargo/bin".into(),
        ];
        assert_eq!(places, expected);
    }

    async fn answered(answer: &'static [u8]) -> io::Result<()> {
        let (mut ours, mut daemon) = UnixStream::pair()?;
        let daemon = async move {
            let mut request = [0; 13];
            daemon.read_exact(&mut request).await?;
            assert_eq!(&request, b"CONNECT 5000\n");
            daemon.write_all(answer).await
        };
        tokio::join!(daemon, greet(&mut ours, 5000)).1
    }

    #[tokio::test]
    async fn the_daemons_answers_are_understood() {
        answered(b"OK 1024\n").await.expect("accepted");
        let kind = |result: io::Result<()>| result.expect_err("refused").kind();
        assert_eq!(kind(answered(b"").await), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(answered(b"NO\n").await), io::ErrorKind::InvalidData);
        assert_eq!(
            kind(answered(&[b'x'; 64]).await),
            io::ErrorKind::InvalidData
        );
    }

    #[tokio::test]
    async fn the_daemon_is_left_alone_until_the_guest_is_ready() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("v.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("binds");
        let gate = Arc::new(Gate::new(u32::MAX));
        let dialer = Dialer::User { socket, gate };
        let error = dialer
            .connect(5000, Duration::from_secs(1))
            .await
            .err()
            .expect("closed");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        let soon = Duration::from_millis(10);
        assert!(
            tokio::time::timeout(soon, listener.accept()).await.is_err(),
            "it connected"
        );
    }

    /// On a host with vhost-vsock the claim is real; elsewhere the reason is the system's own.
    #[test]
    fn two_claims_never_share_a_cid() {
        match (claim_cid(), claim_cid()) {
            (Ok((one, _held)), Ok((two, _too))) => assert_ne!(one, two),
            (Err(one), Err(two)) => assert_eq!(one.kind(), two.kind()),
            odd => panic!("{odd:?}"),
        }
    }
}
