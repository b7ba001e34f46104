//! Reporters: each turns the run's events into something for a reader. None knows the others.
//!
//! Beside them, what is told after runs: [`model`] gathers what is under `out/` as plain data, and
//! [`html`], [`markdown`], [`kcidb`] and JSON tell it.

pub mod build;
pub mod html;
pub mod junit;
pub mod kcidb;
pub mod markdown;
pub mod merge;
pub mod model;
mod recorder;
pub mod terminal;
pub mod words;

pub use junit::{JunitReporter, publish};
pub use recorder::Recorder;
pub use terminal::TerminalReporter;
