//! One connection: the handshake, then requests side by side until the peer is gone.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::frame::{self, FrameError};
use agent_protocol::handshake::{self, HandshakeError};
use agent_protocol::{Fault, FaultKind, FromAgent, RequestId, ToAgent};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::flow::{Outgoing, Overrun, QUEUE, Queue, Running};
use crate::{Agent, dispatch};

/// A stranger holds a place no longer than this. Generous, because an emulated processor shared with
/// a compiler is slow.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Requests at once on one connection.
const MOST_REQUESTS: usize = 64;

/// Why a connection ended otherwise than by the host closing it.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    /// It was no host of ours.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It did not say who it is in time.
    #[error("no handshake within {} s", HANDSHAKE.as_secs())]
    Silent,
    /// Its frames were broken.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It sent more than it was granted.
    #[error(transparent)]
    Overrun(#[from] Overrun),
    /// It used the name of a running request again.
    #[error("request id {0:?} is in use")]
    Reused(RequestId),
    /// It asked for more than it takes answers.
    #[error("more than {MOST_REQUESTS} requests at once, and the answers are not being read")]
    Overloaded,
}

/// Serves one peer to its end. Everything its requests started is gone soon after the return, and
/// when the future is dropped.
///
/// # Errors
/// [`Ending`] when it was not the peer that closed the connection.
pub async fn serve<S>(mut stream: S, agent: Arc<Agent>) -> Result<(), Ending>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(HANDSHAKE, handshake::accept(&mut stream, &agent.secret))
        .await
        .map_err(|_| Ending::Silent)??;
    let (reader, writer) = tokio::io::split(stream);
    let (sender, receiver) = mpsc::channel(QUEUE);
    // Whichever ends first ends the other, and with them the connection and its requests.
    let ending = tokio::select! {
        ending = read(reader, Queue(sender), agent) => ending,
        ending = write(writer, receiver) => ending.map_err(|error| Ending::Frame(error.into())),
    };
    match ending {
        // A host that has heard enough may close while something is still on its way to it.
        Err(Ending::Frame(FrameError::Io(error)))
            if matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        ending => ending,
    }
}

async fn write<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut queue: mpsc::Receiver<Outgoing>,
) -> std::io::Result<()> {
    while let Some(Outgoing { bytes, taken }) = queue.recv().await {
        writer.write_all(&bytes).await?;
        writer.flush().await?;
        if let Some(taken) = taken {
            let _ = taken.send(());
        }
    }
    Ok(())
}

async fn read<S: AsyncRead>(
    mut reader: ReadHalf<S>,
    queue: Queue,
    agent: Arc<Agent>,
) -> Result<(), Ending> {
    let mut running = HashMap::new();
    // Dropped on any way out, which aborts and so drops every request.
    let mut tasks = JoinSet::new();
    while let Some(message) = frame::read::<ToAgent, _>(&mut reader).await? {
        while let Some(ended) = tasks.try_join_next() {
            if let Ok(id) = ended {
                running.remove(&id);
            }
        }
        match message {
            ToAgent::Request {
                id,
                deadline_ms,
                request,
            } => {
                if running.contains_key(&id) {
                    return Err(Ending::Reused(id));
                }
                if running.len() >= MOST_REQUESTS {
                    refuse(id, &queue)?;
                    continue;
                }
                let deadline = Instant::now()
                    .checked_add(Duration::from_millis(deadline_ms))
                    .unwrap_or_else(|| Instant::now() + Duration::from_secs(u32::MAX.into()));
                let (handle, context) = Running::begin(id, deadline, &queue);
                running.insert(id, handle);
                let (queue, agent) = (queue.clone(), Arc::clone(&agent));
                tasks.spawn(async move {
                    dispatch::answer(id, request, context, &queue, &agent).await;
                    id
                });
            }
            ToAgent::Input { id, input } => {
                if let Some(request) = running.get(&id) {
                    request.input(id, input)?;
                }
            }
            ToAgent::Grant { id, bytes } => {
                if let Some(request) = running.get(&id) {
                    request.grant(id, bytes)?;
                }
            }
            ToAgent::Cancel { id } => {
                if let Some(request) = running.get(&id) {
                    request.cancel();
                }
            }
        }
    }
    Ok(())
}

/// Answers "too much" without waiting: this loop must go on to see cancels and grants.
fn refuse(id: RequestId, queue: &Queue) -> Result<(), Ending> {
    let fault = Fault::new(
        FaultKind::Overloaded,
        format!("{MOST_REQUESTS} requests are running on this connection"),
    );
    let bytes = frame::to_bytes(&FromAgent::Reply {
        id,
        result: Err(fault),
    })
    .map_err(|error| Ending::Frame(error.into()))?;
    queue
        .0
        .try_send(Outgoing { bytes, taken: None })
        .map_err(|_| Ending::Overloaded)
}
