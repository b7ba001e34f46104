//! Requests side by side on one stream: who waits for what, and the windows.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use agent_protocol::frame::{self, FrameError};
use agent_protocol::{Event, Fault, FromAgent, Input, Reply, Request, RequestId, ToAgent, WINDOW};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::AgentError;

/// Frames on their way out.
const QUEUE: usize = 64;

/// Messages about abandoned requests that a connection survives. What is under way when a request is
/// dropped is bounded by its window; without end it is a flood, in which nothing else gets through.
const STRAYS: u32 = 1 << 16;

/// What arrives for a request.
pub(super) enum Arrival {
    Event(Event),
    Reply(Result<Reply, Fault>),
}

/// Where arrivals for one request go.
struct Slot {
    arrivals: mpsc::UnboundedSender<Arrival>,
    /// Weight of the events the caller has not granted again. Never above the window, which bounds
    /// the channel.
    outstanding: Arc<AtomicU32>,
    credit: Arc<Semaphore>,
}

/// State shared by the client, its two tasks and its calls.
pub(super) struct Shared {
    slots: Mutex<HashMap<RequestId, Slot>>,
    next_id: AtomicU64,
    /// Messages so far about requests that are over.
    strays: AtomicU32,
    outgoing: mpsc::Sender<Vec<u8>>,
    /// Why the connection ended, from then on.
    ended: OnceLock<AgentError>,
}

/// A connection past its handshake. Dropped, it closes.
pub(super) struct Wire {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub(super) fn new<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            slots: Mutex::default(),
            next_id: AtomicU64::new(1),
            strays: AtomicU32::new(0),
            outgoing,
            ended: OnceLock::new(),
        });
        let both = Arc::clone(&shared);
        // One task, so that the end of either half closes the stream.
        let task = tokio::spawn(async move {
            let error = tokio::select! {
                error = read(reader, &both) => error,
                never = write(writer, queue, &both) => match never {},
            };
            both.end(error);
        });
        Self { shared, task }
    }

    /// Sends a request, which the guest is to end by itself after `within`.
    pub(super) async fn call(
        &self,
        request: Request,
        within: Duration,
    ) -> Result<Call, AgentError> {
        let shared = &self.shared;
        let id = RequestId(shared.next_id.fetch_add(1, Ordering::Relaxed));
        let (sender, arrivals) = mpsc::unbounded_channel();
        let outstanding = Arc::new(AtomicU32::new(0));
        let credit = Arc::new(Semaphore::new(WINDOW as usize));
        let slot = Slot {
            arrivals: sender,
            outstanding: Arc::clone(&outstanding),
            credit: Arc::clone(&credit),
        };
        shared.slots().insert(id, slot);
        // From here on its drop tidies up.
        let call = Call {
            arrivals,
            outstanding,
            consumed: 0,
            input: CallInput {
                id,
                shared: Arc::clone(shared),
                credit,
            },
            replied: false,
        };
        // The connection may have ended before the slot was there to be told.
        shared.check()?;
        let deadline_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        shared
            .send(&ToAgent::Request {
                id,
                deadline_ms,
                request,
            })
            .await?;
        Ok(call)
    }
}

impl Shared {
    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), AgentError> {
        self.ended.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn lost(&self) -> AgentError {
        let closed = || AgentError::Lost("it was closed".to_owned());
        self.ended.get().cloned().unwrap_or_else(closed)
    }

    /// Wakes all who wait, with the first reason given.
    fn end(&self, error: AgentError) {
        // A later reason only follows from the first.
        let _ = self.ended.set(error);
        for (_, slot) in self.slots().drain() {
            slot.credit.close();
        }
    }

    async fn send(&self, message: &ToAgent) -> Result<(), AgentError> {
        let bytes = frame::to_bytes(message)
            .map_err(|error| AgentError::Garbage(format!("our own request: {error}")))?;
        self.outgoing.send(bytes).await.map_err(|_| self.lost())
    }

    fn deliver(&self, message: FromAgent) -> Result<(), AgentError> {
        let (id, arrival) = match message {
            FromAgent::Reply { id, result } => (id, Arrival::Reply(result)),
            FromAgent::Event { id, event } => (id, Arrival::Event(event)),
            FromAgent::Grant { id, bytes } => return self.granted(id, bytes),
        };
        let mut slots = self.slots();
        let Some(slot) = slots.get(&id) else {
            return self.stray(id);
        };
        match arrival {
            Arrival::Event(event) => {
                let weight = event.weight();
                let before = slot.outstanding.fetch_add(weight, Ordering::Relaxed);
                if before.saturating_add(weight) > WINDOW {
                    return Err(garbage(id, "sent more than it was granted"));
                }
                // Nobody takes it any more: the call is being dropped.
                let _ = slot.arrivals.send(Arrival::Event(event));
            }
            Arrival::Reply(result) => {
                let _ = slot.arrivals.send(Arrival::Reply(result));
                // Whoever waits to send it more input need not.
                slot.credit.close();
                slots.remove(&id);
            }
        }
        Ok(())
    }

    fn granted(&self, id: RequestId, bytes: u32) -> Result<(), AgentError> {
        let slots = self.slots();
        let Some(slot) = slots.get(&id) else {
            return self.stray(id);
        };
        if slot.credit.available_permits() + bytes as usize > WINDOW as usize {
            return Err(garbage(id, "granted more than there is"));
        }
        slot.credit.add_permits(bytes as usize);
        Ok(())
    }

    /// A message for a request we do not know: fine when it was one of ours that was abandoned.
    fn stray(&self, id: RequestId) -> Result<(), AgentError> {
        if !(1..self.next_id.load(Ordering::Relaxed)).contains(&id.0) {
            return Err(garbage(id, "was never asked"));
        }
        if self.strays.fetch_add(1, Ordering::Relaxed) >= STRAYS {
            return Err(AgentError::Garbage(format!(
                "more than {STRAYS} messages about requests that are over"
            )));
        }
        Ok(())
    }
}

fn garbage(id: RequestId, what: &str) -> AgentError {
    AgentError::Garbage(format!("request {} {what}", id.0))
}

/// Delivers what comes until nothing does, and says why.
async fn read<S: AsyncRead>(mut reader: ReadHalf<S>, shared: &Shared) -> AgentError {
    loop {
        match frame::read::<FromAgent, _>(&mut reader).await {
            Ok(Some(message)) => {
                if let Err(error) = shared.deliver(message) {
                    return error;
                }
            }
            Ok(None) => return AgentError::Lost("the guest closed it".to_owned()),
            Err(error @ (FrameError::Truncated | FrameError::Io(_))) => {
                return AgentError::Lost(error.to_string());
            }
            Err(error) => return AgentError::Garbage(error.to_string()),
        }
    }
}

/// Sends what is queued. When that fails it is not the end yet: what the guest said before it hung
/// up is still to be read.
async fn write<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    shared: &Shared,
) -> Infallible {
    while let Some(bytes) = queue.recv().await {
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            // A reason given before is the better one.
            let _ = shared.ended.set(AgentError::Lost(error.to_string()));
            break;
        }
    }
    drop(queue);
    std::future::pending().await
}

/// A request under way. Dropped before its reply, it is cancelled in the guest.
pub(super) struct Call {
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    outstanding: Arc<AtomicU32>,
    consumed: u32,
    input: CallInput,
    replied: bool,
}

/// Where input for a request goes.
#[derive(Clone)]
pub(super) struct CallInput {
    id: RequestId,
    shared: Arc<Shared>,
    credit: Arc<Semaphore>,
}

impl Call {
    /// What arrives next. Cancel-safe. After the reply there is nothing more.
    pub(super) async fn next(&mut self) -> Result<Arrival, AgentError> {
        let shared = &self.input.shared;
        if self.consumed >= WINDOW / 4 {
            // First the account, then the grant: the guest may use it at once.
            let bytes = std::mem::take(&mut self.consumed);
            self.outstanding.fetch_sub(bytes, Ordering::Relaxed);
            shared
                .send(&ToAgent::Grant {
                    id: self.input.id,
                    bytes,
                })
                .await?;
        }
        match self.arrivals.recv().await {
            Some(Arrival::Event(event)) => {
                self.consumed += event.weight();
                Ok(Arrival::Event(event))
            }
            Some(reply) => {
                self.replied = true;
                Ok(reply)
            }
            None => Err(shared.lost()),
        }
    }

    pub(super) fn input(&self) -> CallInput {
        self.input.clone()
    }

    /// Asks the agent to end it; the reply still comes.
    pub(super) async fn cancel(&self) -> Result<(), AgentError> {
        self.input
            .shared
            .send(&ToAgent::Cancel { id: self.input.id })
            .await
    }
}

impl CallInput {
    /// Sends input when the guest has room for it. Fails when the request is over.
    pub(super) async fn send(&self, input: Input) -> Result<(), AgentError> {
        let permit = self.credit.acquire_many(input.weight()).await;
        permit
            .map_err(|_| AgentError::Lost("the request is over".to_owned()))?
            .forget();
        self.shared
            .send(&ToAgent::Input { id: self.id, input })
            .await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let CallInput { id, shared, .. } = &self.input;
        shared.slots().remove(id);
        if self.replied {
            return;
        }
        let Ok(bytes) = frame::to_bytes(&ToAgent::Cancel { id: *id }) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(bytes)) = shared.outgoing.try_send(bytes)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let outgoing = shared.outgoing.clone();
            // The connection may be gone by then, and with it what was to be cancelled.
            runtime.spawn(async move { outgoing.send(bytes).await });
        }
    }
}
