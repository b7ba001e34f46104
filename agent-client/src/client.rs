//! A connection to an agent, and how a request on it begins and is answered.

use std::sync::Arc;

use agent_protocol::{Reply, Request, Secret, handshake};
use clock::{Clock, bound};
use tokio::io::{AsyncRead, AsyncWrite};

use super::talk::{self, Next, Talk};
use super::transcript::Transcript;
use super::wire::Wire;
use super::{AgentError, Deadline};

/// A connection to the agent of one machine. Clones are the same connection.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    wire: Wire,
    transcript: Transcript,
    /// What deadlines are counted by.
    clock: Clock,
}

impl Client {
    /// Shakes hands with whoever is at the other end of `stream`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`AgentError::WrongSecret`], [`AgentError::Version`], [`AgentError::Garbage`],
    /// [`AgentError::Lost`] and [`AgentError::DeadlinePassed`].
    pub async fn connect<S>(
        stream: S,
        secret: &Secret,
        deadline: impl Into<Deadline>,
    ) -> Result<Self, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Client::connect_by(Clock::wall(), stream, secret, deadline).await
    }

    /// The same, with this and all later deadlines counted by the clock of the machine.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_by<S>(
        clock: Clock,
        mut stream: S,
        secret: &Secret,
        deadline: impl Into<Deadline>,
    ) -> Result<Self, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let deadline = deadline.into();
        let transcript = Transcript::new();
        let line = transcript.begin("connect".to_owned());
        let shaken = clock.timeout_from(deadline.made(), deadline.granted(), async {
            handshake::connect(&mut stream, secret).await
        });
        let result = match shaken.await {
            Ok(result) => result.map_err(AgentError::from),
            Err(late) => Err(talk::passed("connect", late)),
        };
        match result {
            Ok(version) => {
                line.end(format!("protocol version {version}"));
                Ok(Self(Arc::new(Inner {
                    wire: Wire::new(stream),
                    transcript,
                    clock,
                })))
            }
            Err(error) => {
                line.end(error.to_string());
                Err(error)
            }
        }
    }

    /// All requests of this connection so far.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        self.0.transcript.clone()
    }

    /// A question to which the answer is that it has been done.
    pub(super) async fn order(
        &self,
        request: Request,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.ask(request, deadline, |reply| {
            (reply == Reply::Done).then_some(())
        })
        .await
    }

    /// A question with one answer.
    pub(super) async fn ask<T>(
        &self,
        request: Request,
        deadline: impl Into<Deadline>,
        fits: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T, AgentError> {
        let mut talk = self.begin(request, deadline).await?;
        match talk.next().await? {
            Next::Reply(reply) => fits(reply).ok_or_else(|| talk.strange()),
            event @ Next::Event(_) => Err(talk.unfit(&event)),
        }
    }

    /// What deadlines are counted by.
    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) async fn begin(
        &self,
        request: Request,
        deadline: impl Into<Deadline>,
    ) -> Result<Talk, AgentError> {
        let deadline = deadline.into();
        let doing = talk::describe(&request);
        let line = self.0.transcript.begin(doing.clone());
        let ends_itself = matches!(request, Request::Exec(_) | Request::KmsgRead { .. });
        let clock = &self.0.clock;
        let sent = async {
            // A timer of tokio's fires at the next millisecond, which is time enough for an answer.
            let (made, granted) = (deadline.made(), deadline.granted());
            let left = clock.left(made, granted);
            if left.is_zero() {
                return Err(talk::passed(&doing, clock.passed(made, granted)));
            }
            // A guest that is kept waiting knows nothing of it: we end what it must not end too early.
            let guests = if clock.is_wall() { left } else { bound(left) };
            let call = self.0.wire.call(request, guests);
            match clock.timeout_from(made, granted, call).await {
                Ok(result) => result,
                Err(late) => Err(talk::passed(&doing, late)),
            }
        };
        let result = sent.await;
        match result {
            Ok(call) => Ok(Talk::new(
                call,
                line,
                doing,
                deadline,
                ends_itself,
                self.clone(),
            )),
            Err(error) => {
                line.end(error.to_string());
                Err(error)
            }
        }
    }
}
