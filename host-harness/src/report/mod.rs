//! Reporters: each turns the run's events into something for a reader. None knows the others.
//!
//! Beside them, what is told after runs: [`model`] gathers what is under `out/` as plain data, and
//! renderers tell it as a page, as Markdown, as JSON and as KCIDB.

pub mod junit;
pub mod merge;
pub mod model;
mod recorder;
pub mod terminal;

pub use junit::JunitReporter;
pub use recorder::Recorder;
pub use terminal::TerminalReporter;
