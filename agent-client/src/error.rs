//! What can go wrong between the host and the agent, by whose fault.

use std::time::Duration;

use agent_protocol::handshake::{HandshakeError, Versions};
use agent_protocol::{Fault, FaultKind};
use clock::{Passed, Whose};

/// Why a request came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent does not accept our secret, or does not know it.
    #[error("the agent and we do not share a secret: is this machine another boot's?")]
    WrongSecret,
    /// The agent is of another time.
    #[error(
        "the agent speaks protocol versions {theirs}, this harness {ours}: build the image again"
    )]
    Version {
        /// What we speak.
        ours: Versions,
        /// What it speaks.
        theirs: Versions,
    },
    /// What came over the connection is not our protocol: a broken or hostile guest.
    #[error("the agent broke the protocol: {0}")]
    Garbage(String),
    /// The connection is gone. The machine's end, if it has one, explains more.
    #[error("the connection to the agent is lost: {0}")]
    Lost(String),
    /// No answer in time. The agent was told to stop what it was doing.
    #[error(
        "no answer from the agent to `{doing}` within {:.1} s{}",
        within.as_secs_f32(), clock::waited(*lost)
    )]
    DeadlinePassed {
        /// The request.
        doing: String,
        /// The time it was given.
        within: Duration,
        /// What the host kept the machine waiting meanwhile, which does not count.
        lost: Duration,
    },
    /// The agent answered that it could not.
    #[error("{fault}")]
    Fault {
        /// The request.
        doing: String,
        /// Its words.
        fault: Fault,
    },
    /// The guest's answer is larger than the caller wants to hold.
    #[error("the answer to `{doing}` is larger than the limit of {limit}")]
    TooLarge {
        /// The request.
        doing: String,
        /// Bytes or elements, as the request counts.
        limit: u64,
    },
}

impl AgentError {
    /// Whose fault it is, for as long as its machine lives: what carries the connection is a part of the
    /// machine, and its loss is the machine's death, which is asked first.
    #[must_use]
    pub fn whose(&self) -> Whose {
        match self {
            Self::Version { .. } => Whose::Ours,
            Self::DeadlinePassed { within, lost, .. } => {
                let (within, lost) = (*within, *lost);
                Passed { within, lost }.whose()
            }
            Self::WrongSecret
            | Self::Garbage(_)
            | Self::Lost(_)
            | Self::Fault { .. }
            | Self::TooLarge { .. } => Whose::Guest,
        }
    }

    /// Whether the connection is gone, which the machine's end may explain.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Whether the time was up, on this side or in the guest.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::DeadlinePassed { .. })
    }

    /// What kind of failure the agent reported, if it was the agent who did.
    #[must_use]
    pub fn fault_kind(&self) -> Option<FaultKind> {
        match self {
            Self::Fault { fault, .. } => Some(fault.kind),
            _ => None,
        }
    }
}

impl From<HandshakeError> for AgentError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::WrongSecret => Self::WrongSecret,
            HandshakeError::Version { ours, theirs } => Self::Version { ours, theirs },
            HandshakeError::Garbage => Self::Garbage(error.to_string()),
            HandshakeError::Ended | HandshakeError::Io(_) => Self::Lost(error.to_string()),
        }
    }
}
