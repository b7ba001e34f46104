//! What the host and the agent inside a machine say to each other, and nothing about why.
//!
//! One connection carries, in this order:
//!
//! 1. the [`handshake`]: fixed-size messages that agree on a protocol version and prove, both ways,
//!    that the other side knows the secret of this boot. No length is read from a peer before it
//!    has proven itself;
//! 2. [`frame`]s: a little-endian `u32` length and that many bytes, never more than [`MAX_FRAME`];
//! 3. in each frame one [`ToAgent`] or [`FromAgent`], put into bytes by [`codec`].
//!
//! Every request carries a [`RequestId`], so requests run side by side on one connection. A request
//! is answered by exactly one reply, with any number of events before it. Bulk data goes in pieces
//! of at most [`CHUNK`] bytes under a [`WINDOW`] per request and direction: whoever consumes grants
//! more, so a command that floods, or a reader that sleeps, holds up nobody but itself.
//!
//! The peer may be a broken kernel or worse. Whatever bytes arrive, reading and decoding one frame
//! neither panics nor hangs, and never holds more than [`MEMORY_CAP`] bytes
//! (`tests/allocation.rs` counts; `fuzz/` looks for counter-examples).
//!
//! Everything here is generic over `AsyncRead + AsyncWrite`: which socket, which deadline and what
//! a request does are the business of guest-agent and host-harness. Whoever wants only the shapes, and
//! none of the connections, takes this crate without its feature `io`, and gets no tokio.

pub mod bounded;
pub mod codec;
#[cfg(feature = "io")]
pub mod frame;
#[cfg(feature = "io")]
pub mod fuzzing;
#[cfg(feature = "io")]
pub mod handshake;
pub mod message;

pub use bounded::Bytes;
#[cfg(feature = "io")]
pub use handshake::{HandshakeError, Secret};
pub use message::{Event, Fault, FaultKind, FromAgent, Input, Reply, Request, RequestId, ToAgent};

/// Oldest protocol version this build still speaks.
pub const OLDEST_VERSION: u16 = 3;
/// Newest protocol version this build speaks. Raise it when a message changes its meaning or shape.
pub const NEWEST_VERSION: u16 = 3;

/// vsock port the agent listens on.
pub const AGENT_PORT: u32 = 5000;
/// Name of the systemd credential that carries the secret as 64 hexadecimal digits.
pub const CREDENTIAL: &str = "vexfs.agent-secret";

/// Most bytes in one frame, without its length prefix.
pub const MAX_FRAME: usize = 256 * 1024;
/// Most bytes that reading and decoding one frame holds at any moment, buffers included.
pub const MEMORY_CAP: usize = 1024 * 1024;
/// Most elements in one list inside a message.
pub const MAX_ITEMS: usize = 2048;
/// Most bytes of bulk data in one event or input.
pub const CHUNK: usize = 32 * 1024;
/// Most bytes of all files in one answer to [`Request::ReadFiles`]; fits into a frame.
pub const CONTENTS: usize = 192 * 1024;
/// Bytes that may be under way, not yet granted again, per request and direction.
pub const WINDOW: u32 = 256 * 1024;
