//! The second judge: what the guest's kernel log, its machine and its resources say about a check,
//! whatever the check itself says.
//!
//! A check that passes on a kernel that oopsed beside it has not passed. So the harness collects, while a
//! check runs, the `/dev/kmsg` records from a mark on, the serial console, and what QEMU reported; hands
//! them to [`judge`]; compares the [`ledger`] taken before with the one taken after; and lets
//! [`outcome::combine`] make one [`Outcome`] of all of it.
//!
//! The rules are data (`rules/*.toml`), each proven by at least one golden log under `golden/logs`: to
//! add a rule, add its table and a log. The guest is not trusted: matching is linear in the log's length
//! whatever it holds, lines and findings are capped, and user space cannot make itself heard as the
//! kernel ([`record`] says how the two are told apart).
//!
//! Everything here is a pure function of its arguments. The types to know: [`Record`] (a line and
//! where it came from), [`Finding`] (what a rule made of it), [`Expectations`] (what a check declared).

pub mod ledger;
pub mod outcome;
pub mod record;
pub mod taint;

mod excuse;
mod expect;
mod finding;
#[cfg(test)]
mod golden;
mod judge;
mod rule;
mod timeline;
mod title;

pub use excuse::excuse;
pub use expect::{Expectations, Expected, Matcher, Undeclared};
pub use finding::{Finding, Follower, Kind, Severity};
pub use judge::judge;
pub use outcome::Outcome;
pub use record::{MachineEvent, Origin, Record};
pub(crate) use title::telling_frame;
