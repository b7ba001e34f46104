//! Figures: how fast things are, beside their peers, and whether one is slower than another.
//!
//! Each question is measured in one place here, and asked from two: `cargo bench` draws criterion's
//! curves, `vexfs-images perf run` writes a [`Record`] for reports. Figures of unlike hosts are never
//! compared silently: every record has the [`Fingerprint`] of its host.

pub mod agent;
pub mod boot;
pub mod compare;
mod fingerprint;
pub mod fio;
mod machines;
mod record;
pub mod statistics;
mod vectors;

pub use fingerprint::Fingerprint;
pub use record::{Direction, Metric, Percentiles, Record, SCHEMA, Stage, UnitTime, Waterfall};
