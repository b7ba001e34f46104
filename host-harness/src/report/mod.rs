//! Reporters: each turns the run's events into something for a reader. None knows the others.

pub mod build;
pub mod junit;
pub mod merge;
pub mod terminal;

pub use junit::JunitReporter;
pub use terminal::TerminalReporter;
