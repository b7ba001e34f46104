//! Choosing what carries vsock, and connecting to a port of the guest.
//!
//! `kernel`: the host's vhost-vsock; our side is AF_VSOCK (vsock(7)). Guest addresses (CIDs) are
//! global on a host, so one is claimed on an open `/dev/vhost-vsock` before QEMU starts and handed
//! over open: the kernel refuses a CID twice, across all processes, and frees it with the last
//! descriptor.
//!
//! `user`: one `vsock-device` daemon per machine, which needs no kernel support. Our side is a Unix
//! socket where one writes `CONNECT PORT` first.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{MachineError, VsockBackend};

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

/// Chooses: the kernel's when it works, else the device of our own. `request` insists on one.
///
/// # Errors
/// [`MachineError::NoVsock`] when the kernel's was asked for and does not work.
pub fn decide(
    request: Option<VsockBackend>,
    kernel: Result<(), String>,
) -> Result<Vsock, MachineError> {
    let ours = |why: &str| Vsock {
        chosen: VsockBackend::User,
        why: format!("{why}; using the vsock device of our own"),
    };
    match (request, kernel) {
        (Some(VsockBackend::User), _) => Ok(ours("it was asked for")),
        (_, Ok(())) => Ok(Vsock {
            chosen: VsockBackend::Kernel,
            why: "/dev/vhost-vsock works".into(),
        }),
        (None, Err(why)) => Ok(ours(&why)),
        (Some(VsockBackend::Kernel), Err(why)) => Err(MachineError::NoVsock { why }),
    }
}

/// Looks at the host and chooses.
///
/// # Errors
/// See [`decide`].
pub fn probe(request: Option<VsockBackend>) -> Result<Vsock, MachineError> {
    decide(request, probe_kernel())
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
        /// Where it listens for us.
        socket: PathBuf,
    },
}

impl Dialer {
    /// Connects to a port of the guest once, waiting at most `within` for the guest's answer.
    ///
    /// # Errors
    /// `ConnectionRefused` or `ConnectionReset` when nobody listens on the port, `TimedOut` when the
    /// guest does not answer at all, or has not set up its vsock device.
    pub async fn connect(&self, port: u32, within: Duration) -> io::Result<Box<dyn Stream>> {
        let attempt = async {
            match self {
                Dialer::Kernel { cid } => {
                    let address = tokio_vsock::VsockAddr::new(*cid, port);
                    let stream = tokio_vsock::VsockStream::connect(address).await?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
                Dialer::User { socket } => {
                    let mut stream = UnixStream::connect(socket).await?;
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_kernel_is_chosen_when_it_works_and_ours_otherwise() {
        let no = || Err("/dev/vhost-vsock does not work (No such file or directory)".to_owned());
        let (kernel, user) = (Some(VsockBackend::Kernel), Some(VsockBackend::User));
        let chosen = |request, kernel| decide(request, kernel).map(|v| v.chosen).ok();
        assert_eq!(chosen(None, Ok(())), kernel);
        assert_eq!(chosen(None, no()), user);
        assert_eq!(chosen(kernel, Ok(())), kernel);
        assert_eq!(chosen(kernel, no()), None);
        assert_eq!(chosen(user, Ok(())), user);
        assert_eq!(chosen(user, no()), user);
        assert_eq!(
            decide(None, no()).expect("ours").why,
            "/dev/vhost-vsock does not work (No such file or directory); using the vsock device of \
             our own"
        );
        assert_eq!(
            decide(kernel, no()).expect_err("none").to_string(),
            "vsock backend kernel was asked for, but /dev/vhost-vsock does not work (No such file \
             or directory); use `--vsock user`"
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
