//! The door: who may connect, and carrying on whatever happens to the device.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::AGENT_PORT;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::{Agent, connection, log, raw};

/// Connections at once. The host needs one; a few more while one that died is still being noticed.
const MOST_CONNECTIONS: usize = 16;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Whether a peer is the host. Everyone else on vsock is a program inside this machine that came
/// over the loopback transport (CID 1, or our own), or a machine nested in it: vsock(7).
#[must_use]
pub fn is_host(cid: u32) -> bool {
    cid == VMADDR_CID_HOST
}

/// Something that accepts connections; a vsock listener, or a test's.
pub trait Door {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and the CID it comes from. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, u32)>>;

    /// Becomes ready when the ground is pulled from under a connection in a way that reading from it
    /// does not show.
    fn broken(stream: &Self::Stream) -> impl Future<Output = ()> + Send + 'static;
}

impl Door for VsockListener {
    type Stream = VsockStream;

    async fn accept(&self) -> io::Result<(VsockStream, u32)> {
        let (stream, address) = Self::accept(self).await?;
        Ok((stream, address.cid()))
    }

    /// When the vsock device is unplugged, the kernel reports an error on its connections and nothing
    /// else (virtio_vsock_reset_sock of 6.1: no hang-up, not readable), and tokio wakes no reader for
    /// that. What the host had started would run on.
    fn broken(stream: &VsockStream) -> impl Future<Output = ()> + Send + 'static {
        let watched = stream
            .as_fd()
            .try_clone_to_owned()
            .and_then(|fd| raw::watch(fd, Interest::ERROR));
        async move {
            match watched {
                // An error here is one of the runtime's own, and it says nothing of the connection.
                Ok(fd) if fd.ready(Interest::ERROR).await.is_ok() => {}
                _ => std::future::pending().await,
            }
        }
    }
}

/// Listens on vsock port [`AGENT_PORT`] for ever.
///
/// A listener on `VMADDR_CID_ANY` belongs to no device: it stays when the vsock device is unplugged
/// and serves the next one, which is what a snapshot and its forks do to us.
pub async fn listen(agent: Arc<Agent>) -> Infallible {
    let bind = || VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, AGENT_PORT));
    listen_at(bind, agent).await
}

/// [`listen`] at any door: when it cannot be opened or fails, it is opened again after a while.
pub async fn listen_at<D: Door>(
    mut open: impl FnMut() -> io::Result<D>,
    agent: Arc<Agent>,
) -> Infallible {
    let mut connections = JoinSet::new();
    let mut wait = FIRST_WAIT;
    loop {
        match open() {
            Ok(door) => {
                log::info(format_args!("listening on vsock port {AGENT_PORT}"));
                let error = serve_all(&door, &agent, &mut connections, &mut wait).await;
                log::warn(format_args!("accept: {error}; listening again"));
            }
            Err(error) => log::warn(format_args!("listen on vsock port {AGENT_PORT}: {error}")),
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn serve_all<D: Door>(
    door: &D,
    agent: &Arc<Agent>,
    connections: &mut JoinSet<()>,
    wait: &mut Duration,
) -> io::Error {
    loop {
        let (stream, cid) = tokio::select! {
            accepted = door.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => return error,
            },
            Some(_) = connections.join_next() => continue,
        };
        *wait = FIRST_WAIT;
        if !is_host(cid) {
            log::warn(format_args!(
                "refused a peer with CID {cid}: only the host may connect"
            ));
            continue;
        }
        if connections.len() >= MOST_CONNECTIONS {
            log::warn(format_args!(
                "refused a connection: {MOST_CONNECTIONS} are open"
            ));
            continue;
        }
        let agent = Arc::clone(agent);
        let broken = D::broken(&stream);
        connections.spawn(async move {
            tokio::select! {
                ending = connection::serve(stream, agent) => if let Err(ending) = ending {
                    log::warn(format_args!("connection closed: {ending}"));
                },
                () = broken => log::info("connection closed: the device is gone"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use agent_protocol::{Secret, handshake};
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;

    #[test]
    fn only_the_host_is_the_host() {
        assert!(is_host(2));
        for cid in [0, 1, 3, 42, u32::MAX] {
            assert!(!is_host(cid), "CID {cid}");
        }
    }

    /// A door with a script: what each accept gives. When it runs out, nobody comes.
    struct Scripted(Mutex<Vec<io::Result<(DuplexStream, u32)>>>);

    impl Door for Scripted {
        type Stream = DuplexStream;

        async fn accept(&self) -> io::Result<(DuplexStream, u32)> {
            let next = self.0.lock().unwrap().pop();
            match next {
                Some(accepted) => accepted,
                None => std::future::pending().await,
            }
        }

        fn broken(_: &DuplexStream) -> impl Future<Output = ()> + Send + 'static {
            std::future::pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_that_fails_is_opened_again_and_strangers_stay_outside() {
        let secret = Secret::from_bytes([1; 32]);
        let (mut host, for_host) = tokio::io::duplex(4096);
        let (mut local, for_local) = tokio::io::duplex(4096);
        let gone = || io::Error::from_raw_os_error(nix::libc::ENODEV);
        // Opened three times: no device yet; one that fails at once; one that works.
        let mut doors = vec![
            Ok(Scripted(Mutex::new(vec![
                Ok((for_host, 2)),
                Ok((for_local, 1)),
            ]))),
            Ok(Scripted(Mutex::new(vec![Err(gone())]))),
            Err(gone()),
        ];
        let open = move || doors.pop().unwrap_or_else(|| Err(gone()));
        tokio::spawn(listen_at(open, Arc::new(Agent::new(secret.clone()))));

        let refused = local.read(&mut [0; 1]).await.unwrap();
        assert_eq!(
            refused, 0,
            "a local peer is hung up on before a byte is said"
        );
        handshake::connect(&mut host, &secret).await.unwrap();
    }
}
