//! The host's side of a conversation with the agent inside a machine.
//!
//! [`Client`] is a connection: cheap to clone, any number of requests side by side, gone with its
//! last clone (and with it, in the guest, all it started). Every request takes a [`Deadline`] that
//! this side keeps, because a broken kernel does not. What the guest sends is capped everywhere:
//! frames and windows by agent-protocol, collected output, lists and logs here.
//!
//! Errors say whose fault it is, see [`AgentError`]. What was asked and what came of it is kept in a
//! [`Transcript`] for reports and dossiers.
//!
//! The types to know: [`Client`], [`ExecSpec`] (a program to run there) and [`AgentError`]. Messages, framing
//! and handshake are agent-protocol's; by whose time a deadline passes is `clock`'s; which stream leads to a
//! guest, what a result means, and what to do about a guest that does not answer, is decided above.

mod client;
mod deadline;
mod error;
mod exec;
mod kernel_log;
mod requests;
mod talk;
mod transcript;
mod transfer;
mod wire;

#[cfg(test)]
mod tests;

pub use agent_protocol::Secret;
pub use client::Client;
pub use deadline::Deadline;
pub use error::AgentError;
pub use exec::{Chunk, ExecSpec, Output, Session, SessionInput};
pub use kernel_log::{KmsgLog, KmsgStream};
pub use transcript::{Entry, Transcript};
pub use transfer::Content;
