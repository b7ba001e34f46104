//! What the agent says when it could not do what was asked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A request that failed in the guest. The connection is fine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{kind}: {message}")]
pub struct Fault {
    /// For programs.
    pub kind: FaultKind,
    /// errno(3) of the system call that failed, if one did.
    pub errno: Option<i32>,
    /// For people: what, where, and the system's reason.
    pub message: String,
}

/// Kinds of failure a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// No such file, program, module, user.
    NotFound,
    /// The kernel refused.
    Denied,
    /// It is there already.
    Exists,
    /// In use (a module, a mount).
    Busy,
    /// The request makes no sense; the host has a bug.
    Invalid,
    /// Too many requests or connections at once.
    Overloaded,
    /// Ended by [`super::ToAgent::Cancel`].
    Cancelled,
    /// The deadline in [`super::ToAgent::Request`] passed.
    DeadlinePassed,
    /// The answer does not fit into a frame.
    TooLarge,
    /// Anything else the system said.
    System,
}

impl Fault {
    /// A fault without an errno.
    #[must_use]
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            errno: None,
            message: message.into(),
        }
    }

    /// A fault from a system call's error; `what` names the call's object, as in
    /// "mount /dev/vdb on /mnt".
    #[must_use]
    pub fn from_io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::NotFound => FaultKind::NotFound,
            ErrorKind::PermissionDenied => FaultKind::Denied,
            ErrorKind::AlreadyExists => FaultKind::Exists,
            ErrorKind::ResourceBusy => FaultKind::Busy,
            ErrorKind::WouldBlock => FaultKind::Busy,
            _ => FaultKind::System,
        };
        Self {
            kind,
            errno: error.raw_os_error(),
            message: format!("{what}: {error}"),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Denied => "denied",
            Self::Exists => "exists already",
            Self::Busy => "busy",
            Self::Invalid => "invalid request",
            Self::Overloaded => "too much at once",
            Self::Cancelled => "cancelled",
            Self::DeadlinePassed => "deadline passed",
            Self::TooLarge => "answer too large",
            Self::System => "failed",
        })
    }
}
