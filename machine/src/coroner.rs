//! Finding out that a machine is dead, and of what.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use keeper::Child;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use super::arguments::ids;
use super::start::tail;
use super::{Console, Death, MachineEvent, Qmp, QmpEvent};

/// How long a panicked guest goes on: until its console has been quiet this long, and at the most.
/// A trace of all CPUs under emulation takes about half a second.
const LAST_WORDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long what a QEMU that has ended said may take to be read: it is in its sockets, and without it a
/// power-off in good order would look like a QEMU that was killed. A host that is busy may need its time.
const LAST_EVENTS: Duration = Duration::from_secs(30);

/// A child whose end a task waits for while its owner may kill it at any time.
pub(super) type Shared = Arc<Mutex<Option<Child>>>;

pub(super) fn take(child: &Shared) -> Option<Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Waits for the end of a child that may be taken away meanwhile: then this is `None`, or never
/// resolves.
pub(super) async fn ended(child: Shared) -> Option<std::io::Result<ExitStatus>> {
    std::future::poll_fn(|context| {
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.as_mut() {
            // `Child::wait` may be dropped and called again; the waker stays registered.
            Some(child) => std::pin::pin!(child.wait()).poll(context).map(Some),
            None => Poll::Ready(None),
        }
    })
    .await
}

/// Watches for the end and pronounces it, once.
#[derive(Clone)]
pub(super) struct Coroner {
    pub(super) events: broadcast::Sender<MachineEvent>,
    pub(super) death: watch::Sender<Option<Death>>,
    pub(super) console: Console,
    pub(super) qmp: Qmp,
    pub(super) last_shutdown: Arc<Mutex<Option<String>>>,
    /// How often the guest has reset the machine.
    pub(super) resets: Arc<AtomicU32>,
}

impl Coroner {
    /// The first cause is the one that counts.
    pub(super) fn pronounce(&self, death: Death) {
        let first = self.death.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(death.clone());
            }
            first
        });
        if first {
            self.tell(MachineEvent::Died(death));
        }
    }

    fn tell(&self, event: MachineEvent) {
        // No receiver is no error.
        self.events.send(event).map(drop).unwrap_or_default();
    }

    /// Turns QMP events into ours until QEMU hangs up.
    pub(super) async fn follow(self, mut events: mpsc::UnboundedReceiver<QmpEvent>) {
        while let Some(QmpEvent { name, data }) = events.recv().await {
            let guest = data["guest"].as_bool().unwrap_or_default();
            let reason = data["reason"].as_str().unwrap_or_default().to_owned();
            match name.as_str() {
                "GUEST_PANICKED" => {
                    self.tell(MachineEvent::GuestPanicked);
                    let (quiet, limit) = LAST_WORDS;
                    self.console.settled(quiet, limit).await;
                    // QEMU may have ended meanwhile: the panic is still the cause.
                    self.qmp
                        .execute("stop", json!({}))
                        .await
                        .map(drop)
                        .unwrap_or_default();
                    self.pronounce(Death::GuestPanicked);
                }
                "SHUTDOWN" => {
                    *self
                        .last_shutdown
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
                    self.tell(MachineEvent::Shutdown { guest, reason });
                }
                "RESET" => {
                    if guest {
                        self.resets.fetch_add(1, Ordering::Relaxed);
                    }
                    self.tell(MachineEvent::Reset { guest, reason });
                }
                "BLOCK_IO_ERROR" => self.disk_error(&data),
                _ => self.tell(MachineEvent::Other { name, data }),
            }
        }
    }

    /// QEMU's default stops the guest when the host's disk is full, and tells it of other errors;
    /// both would look like the guest's fault.
    fn disk_error(&self, data: &Value) {
        let word = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
        let disk = match word("node-name") {
            name if name.is_empty() => ids::SYSTEM.to_owned(),
            name => name,
        };
        let full = data["nospace"].as_bool().unwrap_or_default();
        self.pronounce(Death::DiskError {
            disk,
            full,
            reason: word("reason"),
        });
    }

    /// Waits for the end of the vsock device: it ends when somebody kills it.
    pub(super) async fn watch_daemon(self, daemon: Shared, log: PathBuf) {
        // Taken away by whoever ends the machine.
        if ended(daemon).await.is_none() {
            return;
        }
        // When QEMU goes at the same moment, that is the cause.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let tail = tail(&log);
        self.pronounce(Death::VsockLost { tail });
    }

    pub(super) async fn wait_for_qemu(self, qemu: Shared, told: JoinHandle<()>) {
        let Some(status) = ended(qemu).await else {
            return;
        };
        // Its last events and the last of its console are still in the sockets.
        let rest = async {
            told.await.unwrap_or_default();
            self.console.ended().await;
        };
        tokio::time::timeout(LAST_EVENTS, rest)
            .await
            .unwrap_or_default();
        let reason = self
            .last_shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.pronounce(Death::Exited {
            status: status.ok(),
            reason,
        });
    }
}
