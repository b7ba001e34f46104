//! What happened, told: to a terminal, as JUnit, as a page, as Markdown, JSON and KCIDB, and to those who come
//! later.
//!
//! Reporters ([`TerminalReporter`], [`JunitReporter`], [`Recorder`]) each turn a run's events into something
//! for a reader, and none knows the others. After runs, [`model`] gathers what is under `out/` as plain data,
//! and [`html`], [`markdown`], [`kcidb`] and JSON tell it. [`history`] keeps what earlier runs found.
//!
//! Nothing here knows machines or checks: what happened comes as [`results`], and who asks for a report says
//! which checks there are ([`model::Known`]). The types to know: [`results::Event`] (what reporters hear),
//! [`model::Model`] (what a report says) and [`history::Run`] (what is remembered of a run).

pub mod build;
pub mod history;
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
