//! What came of it, as plain data: what checks and builds say while they run, what they came to, and what is
//! kept of that.
//!
//! The rooms that run things write these types, the rooms that tell of them read them, and neither needs to
//! know the other. Besides the shapes there is what follows from them alone: the exit code of a run
//! ([`Tally`]), whether a stored verdict still stands ([`stored`]), whether one row of figures is slower than
//! another ([`figures`]), the page of a dossier ([`dossier`]). Nothing here knows a machine, a check or a
//! build; what is written is files at paths the caller gives.
//!
//! The three types to know: [`Outcome`] (what became of a check), [`CaseResult`] (that with its evidence) and
//! [`Event`] (one step of a run, which a [`Reporter`] hears of).

pub mod clock;
pub mod dossier;
pub mod figures;
pub mod stored;

mod build_event;
mod event;
mod layout;
mod outcome;
mod reporters;
mod subject;
mod tally;
mod tier;

pub use build_event::BuildEvent;
pub use event::{Attempt, CaseId, CaseResult, Event, Part};
pub use layout::Layout;
pub use outcome::Outcome;
pub use reporters::{Reporter, Reporters, SharedReporters};
pub use subject::Subject;
pub use tally::Tally;
pub use tier::Tier;
