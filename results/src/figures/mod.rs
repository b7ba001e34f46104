//! Figures: what was measured, on what, and whether one thing is slower than another. Pure, but for reading
//! and writing files. How measuring is done is the business of whoever measures.
//!
//! Figures of unlike hosts are never compared silently: every [`Record`] has the [`Fingerprint`] of its host.

pub mod change;
pub mod standing;
pub mod statistics;

mod difference;
mod fingerprint;
mod host_kind;
mod record;
mod table;

pub use difference::difference;
pub use fingerprint::Fingerprint;
pub use host_kind::HostKind;
pub use record::{Direction, Metric, Percentiles, Record, SCHEMA, Stage, UnitTime, Waterfall};
pub use table::table;
