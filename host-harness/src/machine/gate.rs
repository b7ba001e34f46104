//! Keeping the vsock daemon alive.
//!
//! `vhost-device-vsock` 0.3.0 has one thread that serves the rings, and that thread ends, silently
//! and for good, when anything happens on a host connection while the guest has no rings set up:
//! `process_tx` fails with `IterateQueue`, and vhost-user-backend's event loop takes any error for
//! its end. So before a guest's driver is ready, and after a reset, nobody may touch the daemon's
//! socket: not connect, not write, and not even close. With a retry loop that connects every few
//! milliseconds, one fork in ten was lost to this.
//!
//! The daemon does not tell whether there are rings, but the kernel does: for each ring it watches
//! an eventfd, and proc(5) shows in `/proc/PID/fdinfo` what an epoll instance watches. The rings'
//! entries carry the numbers 0 (to the guest) and 1 (from the guest) as data; all others carry
//! larger ones.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Name of the daemon's thread that serves the rings.
const WORKER: &str = "vring_worker";

/// Watches one daemon, and closes connections that a reset of the guest has made void.
#[derive(Debug)]
pub(crate) struct Gate {
    /// `/proc/PID` of the daemon.
    proc: PathBuf,
    /// Descriptor of the epoll instance that watches the rings, once known; 0 is not.
    epoll: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Cancelled by the next reset of the guest.
    epoch: CancellationToken,
    /// Connections nobody uses any more, which must not be closed yet.
    parked: Vec<UnixStream>,
}

impl Gate {
    pub(crate) fn new(pid: u32) -> Gate {
        Gate {
            proc: PathBuf::from(format!("/proc/{pid}")),
            epoll: AtomicU32::new(0),
            state: Mutex::default(),
        }
    }

    /// Whether the guest's driver has its rings set up, so that the socket may be used.
    pub(crate) fn open(&self) -> bool {
        let watches = |number: u32| {
            std::fs::read_to_string(self.proc.join("fdinfo").join(number.to_string()))
                .is_ok_and(|info| watches_rings(&info))
        };
        match self.epoll.load(Ordering::Relaxed) {
            0 => {
                let numbers = std::fs::read_dir(self.proc.join("fdinfo"))
                    .into_iter()
                    .flatten();
                let mut numbers = numbers
                    .flatten()
                    .filter_map(|e| e.file_name().to_str()?.parse().ok());
                let found = numbers.find(|number| watches(*number));
                self.epoll.store(found.unwrap_or(0), Ordering::Relaxed);
                found.is_some()
            }
            number => watches(number),
        }
    }

    /// Whether the thread that serves the rings has ended. The daemon has to be replaced then, and
    /// that takes a new machine.
    pub(crate) fn broken(&self) -> bool {
        let tasks = std::fs::read_dir(self.proc.join("task"))
            .into_iter()
            .flatten()
            .flatten();
        let names: Vec<String> = tasks
            .flat_map(|task| std::fs::read_to_string(task.path().join("comm")))
            .collect();
        // No thread at all: the daemon as a whole has ended, which is somebody else's concern.
        !names.is_empty() && !names.iter().any(|name| name.trim_end() == WORKER)
    }

    /// The guest was reset, or its device taken away: its end of all connections has gone.
    pub(crate) fn reset(&self) {
        std::mem::take(&mut self.state().epoch).cancel();
    }

    /// A connection that has been made while the gate was open.
    pub(crate) fn guard(self: &Arc<Gate>, stream: UnixStream) -> Guarded {
        let mut state = self.state();
        // The rings are there: those who waited for it can go.
        state.parked.clear();
        Guarded {
            void: Box::pin(state.epoch.clone().cancelled_owned()),
            stream: Some(stream),
            gate: self.clone(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an epoll instance with this fdinfo watches both rings. Its lines are, in proc(5)'s words,
/// `tfd: NUMBER events: MASK data: HEX`.
fn watches_rings(fdinfo: &str) -> bool {
    let data = |wanted: &str| {
        fdinfo
            .lines()
            .filter(|line| line.starts_with("tfd:"))
            .any(|line| {
                let mut words = line.split_whitespace().skip_while(|word| *word != "data:");
                words.nth(1) == Some(wanted)
            })
    };
    data("0") && data("1")
}

/// A connection to the guest that ends when the guest is reset, and is closed only when that does
/// no harm.
pub(crate) struct Guarded {
    stream: Option<UnixStream>,
    void: Pin<Box<WaitForCancellationFutureOwned>>,
    gate: Arc<Gate>,
}

impl Guarded {
    /// The stream, unless the guest has been reset.
    fn live(&mut self, context: &mut Context<'_>) -> Option<Pin<&mut UnixStream>> {
        match self.void.as_mut().poll(context) {
            Poll::Ready(()) => None,
            Poll::Pending => self.stream.as_mut().map(Pin::new),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.live(context) {
            Some(stream) => stream.poll_read(context, buffer),
            None => Poll::Ready(Err(void())),
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.live(context) {
            Some(stream) => stream.poll_write(context, bytes),
            None => Poll::Ready(Err(void())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.live(context) {
            Some(stream) => stream.poll_flush(context),
            None => Poll::Ready(Err(void())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.live(context) {
            Some(stream) => stream.poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        if !self.gate.open() {
            self.gate.state().parked.push(stream);
        }
    }
}

fn void() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the guest was reset, or its vsock device removed",
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const READY: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\n\
        tfd:        4 events:       19 data:                4  pos:0 ino:421 sdev:d\n\
        tfd:       17 events:       19 data:                0  pos:0 ino:421 sdev:d\n\
        tfd:       18 events:       19 data:                1  pos:0 ino:421 sdev:d\n";

    #[test]
    fn rings_are_seen_in_what_the_kernel_shows() {
        assert!(watches_rings(READY));
        assert!(!watches_rings(
            &READY.replace("data:                1 ", "data:               10 ")
        ));
        assert!(!watches_rings("pos:\t0\nflags:\t02\neventfd-count: 0\n"));
    }

    /// A process that does not exist has no rings and no threads: closed, and not broken.
    fn closed() -> Arc<Gate> {
        Arc::new(Gate::new(u32::MAX))
    }

    #[test]
    fn a_daemon_without_its_worker_is_broken() {
        assert!(
            Gate::new(std::process::id()).broken(),
            "no thread of ours serves rings"
        );
        assert!(!closed().broken());
        assert!(!closed().open());
    }

    #[tokio::test]
    async fn a_reset_ends_connections_but_does_not_close_them() {
        let gate = closed();
        let (ours, mut daemon) = UnixStream::pair().expect("a socket pair");
        let mut stream = gate.guard(ours);
        stream.write_all(b"hello").await.expect("writes");
        let mut read = [0; 5];
        daemon.read_exact(&mut read).await.expect("reads");

        let waiting = tokio::spawn(async move {
            let error = stream.read_u8().await.expect_err("reset").kind();
            let write = stream
                .write_all(b"too late")
                .await
                .expect_err("reset")
                .kind();
            (error, write)
        });
        tokio::task::yield_now().await;
        gate.reset();
        let kinds = waiting.await.expect("joins");
        assert_eq!(
            kinds,
            (
                io::ErrorKind::ConnectionReset,
                io::ErrorKind::ConnectionReset
            )
        );
        // The daemon sees neither the late write nor the end.
        let quiet = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(quiet, daemon.read_u8()).await.is_err());

        // When there are rings again, the old connection is closed, and new ones work.
        let (ours, _) = UnixStream::pair().expect("a socket pair");
        let mut stream = gate.guard(ours);
        assert_eq!(daemon.read(&mut read).await.expect("reads"), 0);
        assert!(
            stream
                .read_u8()
                .await
                .expect_err("the other end has gone")
                .kind()
                != io::ErrorKind::ConnectionReset
        );
    }
}
