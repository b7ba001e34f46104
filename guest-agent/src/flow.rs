//! The way in and out of one request, with a window each way.
//!
//! The peer counts too: who sends past its window breaks the protocol and is cut off, so what a
//! connection can make the agent hold is bounded whatever it sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use agent_protocol::message::KilledBecause;
use agent_protocol::{Event, FromAgent, Input, RequestId, WINDOW, codec::CodecError, frame};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Frames that wait for the connection to take them. Few: each may be [`agent_protocol::CHUNK`]
/// long, and the agent is to stay small.
pub const QUEUE: usize = 8;

/// One encoded frame on its way out.
pub struct Outgoing {
    /// Length prefix and message.
    pub bytes: Vec<u8>,
    /// Told when the connection has taken all of it.
    pub taken: Option<oneshot::Sender<()>>,
}

/// The connection is gone, and with it any reason to go on.
#[derive(Debug)]
pub struct Gone;

/// The queue to the peer, shared by all requests of a connection.
#[derive(Clone)]
pub struct Queue(pub mpsc::Sender<Outgoing>);

impl Queue {
    /// Queues a message; waits while the queue is full.
    ///
    /// # Errors
    /// The outer one when the connection is gone, the inner one when the message fits no frame.
    pub async fn send(&self, message: &FromAgent) -> Result<Result<(), CodecError>, Gone> {
        let bytes = match frame::to_bytes(message) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        self.0
            .send(Outgoing { bytes, taken: None })
            .await
            .map_err(|_| Gone)?;
        Ok(Ok(()))
    }

    /// Queues a message and waits until the connection has taken it.
    pub async fn send_through(&self, message: &FromAgent) {
        let Ok(bytes) = frame::to_bytes(message) else {
            return;
        };
        let (taken, wait) = oneshot::channel();
        if self
            .0
            .send(Outgoing {
                bytes,
                taken: Some(taken),
            })
            .await
            .is_ok()
        {
            // An error means the connection is gone: there is nothing to wait for.
            let _ = wait.await;
        }
    }
}

/// Where a request sends its events.
pub struct Outlet {
    id: RequestId,
    credit: Arc<Semaphore>,
    queue: Queue,
}

impl Outlet {
    /// Sends one event when the host has room for it.
    ///
    /// # Errors
    /// [`Gone`] when the connection is, or the event is larger than a frame.
    pub async fn send(&self, event: Event) -> Result<(), Gone> {
        let weight = event.weight();
        self.credit
            .acquire_many(weight)
            .await
            .map_err(|_| Gone)?
            .forget();
        let message = FromAgent::Event { id: self.id, event };
        self.queue.send(&message).await?.map_err(|_| Gone)
    }
}

/// Where a request takes its inputs.
pub struct Inlet {
    id: RequestId,
    inputs: mpsc::UnboundedReceiver<Input>,
    outstanding: Arc<AtomicU32>,
    consumed: u32,
    queue: Queue,
}

impl Inlet {
    /// The next input; `None` when there will be none. Taking one says that those before it have
    /// been used up. Cancel-safe.
    pub async fn next(&mut self) -> Option<Input> {
        // Granted in quarters, not for every keystroke.
        if self.consumed >= WINDOW / 4 {
            self.outstanding.fetch_sub(self.consumed, Ordering::Relaxed);
            let grant = FromAgent::Grant {
                id: self.id,
                bytes: std::mem::take(&mut self.consumed),
            };
            self.queue.send(&grant).await.ok()?.ok()?;
        }
        let input = self.inputs.recv().await?;
        self.consumed += input.weight();
        Some(input)
    }
}

/// Says when a request must end before its time.
pub struct Stop {
    cancelled: Arc<Notify>,
    deadline: Instant,
}

impl Stop {
    /// Waits for the deadline or for the host to cancel.
    pub async fn wait(&self) -> KilledBecause {
        tokio::select! {
            () = self.cancelled.notified() => KilledBecause::Cancelled,
            () = sleep_until(self.deadline) => KilledBecause::Deadline,
        }
    }
}

/// What a running request needs of its connection.
pub struct Context {
    /// Events.
    pub outlet: Outlet,
    /// Inputs.
    pub inlet: Inlet,
    /// Its end.
    pub stop: Stop,
}

/// The connection's handle on a running request.
pub struct Running {
    credit: Arc<Semaphore>,
    inputs: mpsc::UnboundedSender<Input>,
    outstanding: Arc<AtomicU32>,
    cancelled: Arc<Notify>,
}

/// The host sent more than it was allowed to, or granted more than there is.
#[derive(Debug, thiserror::Error)]
#[error("request {0:?}: the host overran the window")]
pub struct Overrun(RequestId);

impl Running {
    /// Both ends of a new request.
    #[must_use]
    pub fn begin(id: RequestId, deadline: Instant, queue: &Queue) -> (Self, Context) {
        let credit = Arc::new(Semaphore::new(WINDOW as usize));
        let cancelled = Arc::new(Notify::new());
        let outstanding = Arc::new(AtomicU32::new(0));
        let (sender, inputs) = mpsc::unbounded_channel();
        let context = Context {
            outlet: Outlet {
                id,
                credit: Arc::clone(&credit),
                queue: queue.clone(),
            },
            inlet: Inlet {
                id,
                inputs,
                outstanding: Arc::clone(&outstanding),
                consumed: 0,
                queue: queue.clone(),
            },
            stop: Stop {
                cancelled: Arc::clone(&cancelled),
                deadline,
            },
        };
        (
            Self {
                credit,
                inputs: sender,
                outstanding,
                cancelled,
            },
            context,
        )
    }

    /// Hands an input over.
    ///
    /// # Errors
    /// [`Overrun`].
    pub fn input(&self, id: RequestId, input: Input) -> Result<(), Overrun> {
        let weight = input.weight();
        let before = self.outstanding.fetch_add(weight, Ordering::Relaxed);
        if before.saturating_add(weight) > WINDOW {
            return Err(Overrun(id));
        }
        // A request that takes no input, or has just ended, drops it.
        let _ = self.inputs.send(input);
        Ok(())
    }

    /// Lets the request send more.
    ///
    /// # Errors
    /// [`Overrun`].
    pub fn grant(&self, id: RequestId, bytes: u32) -> Result<(), Overrun> {
        if self.credit.available_permits() + bytes as usize > WINDOW as usize {
            return Err(Overrun(id));
        }
        self.credit.add_permits(bytes as usize);
        Ok(())
    }

    /// Asks it to end.
    pub fn cancel(&self) {
        self.cancelled.notify_one();
    }
}
