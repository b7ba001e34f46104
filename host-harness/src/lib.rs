//! Boots VexFS images, works through the agent in them, and judges from evidence whether they work.
//!
//! From the bottom up: [`lab`] gives a check its guests and keeps what they leave; [`checks`] is the table of
//! what must hold; [`runner`] brings them together with `kernel-log`, the second judge, and emits events, which
//! `report` turns into something for a reader; [`dossier`] is the folder a failure leaves, [`tryout`] the loop
//! from an edit to a verdict.
//!
//! The three types to know: [`checks::Check`] (a row of the table), [`lab::Guest`] (what its story
//! talks to) and [`results::CaseResult`] (what came of it). Booting, freezing and forking is left to `machine`,
//! talking to the agent to `agent-client`, what time a machine was given, and whose fault an error is, to
//! `clock`, building images to `image-builder`, the shapes of what came of it to `results`. A program that uses
//! this crate calls `machine::hook()` as the first line of its `main`.

pub mod checks;
pub mod doctor;
pub mod dossier;
pub mod host {
    //! The kind of a host: what must be alike for figures to be comparable.

    mod kind;

    pub use kind::kind_of;
}
pub mod lab;
pub mod perf;
pub mod runner;
mod secret_scan;
pub mod tryout;
