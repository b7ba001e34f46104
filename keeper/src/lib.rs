//! Processes that must not outlive us, and the one way this project runs a program on the host.
//!
//! QEMU, its vsock daemon and Packer (which starts a QEMU of its own) have to be gone, with their
//! sockets and half-written disks, whatever ends the program that started them: a return, a panic,
//! Ctrl-C or SIGKILL. Nothing inside a process can clean up after its own SIGKILL, and
//! `PR_SET_PDEATHSIG` reaches neither grandchildren nor files. So every program runs below a small
//! **keeper**: this same executable started again, which
//!
//! * makes itself the child subreaper (prctl(2), `PR_SET_CHILD_SUBREAPER`), so that whatever the
//!   program starts and abandons comes back to it;
//! * sits in a session of its own, out of reach of the terminal's Ctrl-C;
//! * holds one end of a socket whose other end only we hold: when that closes, for whatever reason,
//!   it kills all it has below it, removes the paths it was told to, and ends.
//!
//! Beside it is what else must hold of all we do on a host, the one way to do each: [`draft`] (files and folders
//! appear whole or not at all), [`lease`] (processes that agree by a lock on a file), [`find`] (where a program
//! is), [`digest`] and [`room`] (what disk and memory are left).
//!
//! A program that uses this crate calls [`hook`] as the first line of its `main`.
//!
//! The types to know: [`Kept`] (what to run), [`Child`] (a running one; dropped = gone) and
//! [`run`] (to the end, with a log, for build steps). What is run, and why, is left to the callers.

mod child;
pub mod digest;
pub mod draft;
pub mod find;
mod guard;
pub mod lease;
pub mod room;
mod step;

pub use child::{Child, Kept};
pub use guard::hook;
pub use step::{Failure, run};
