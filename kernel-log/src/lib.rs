//! What a Linux kernel's log says went wrong, with a title that is the same for the same fault every time.
//!
//! In go the records of `/dev/kmsg`, the serial console and what the machine reported, in any mixture; out
//! come findings, the root of the trouble first and what only followed from it below. The rules are data
//! (`rules/*.toml`), each proven by at least one golden log under `golden/logs`: to add a rule, add its
//! table and a log; `README.md` says how both are written. Beside the rules: who is to blame that a kernel
//! hangs ([`blame`]), source lines for the functions in a report ([`symbolize`]), and what
//! `/proc/sys/kernel/tainted` means ([`taint`]).
//!
//! ```
//! use kernel_log::{Expectations, Record, judge};
//!
//! let log = b"[    3.141592] BUG: kernel NULL pointer dereference, address: 0000000000000010\n\
//!             [    3.141600] RIP: 0010:tiny_read+0x1c/0x40 [tiny]\n";
//! let findings = judge(&Record::parse_log(log), &Expectations::none());
//! assert_eq!(findings[0].title, "BUG: NULL pointer dereference in tiny_read");
//! ```
//!
//! The guest is not trusted: matching is linear in the log's length whatever it holds, lines and findings
//! are capped, and user space cannot make itself heard as the kernel (`record.rs` says how the two are told
//! apart). Everything here is a pure function of its arguments, but that [`symbolize`] reads a module's
//! file. Left to others: getting a log from anywhere, what a finding means for a check, and what a machine
//! was given while its watchdogs counted ([`excuse`] is told).
//!
//! The types to know: [`Record`] (a line and where it came from), [`Finding`] (what a rule made of it),
//! [`Expectations`] (what somebody declared to know of).

pub mod blame;
pub mod symbolize;
pub mod taint;

mod excuse;
mod expect;
mod finding;
mod findings;
#[cfg(test)]
mod golden;
mod record;
mod rule;
mod show;
mod symbols;
mod timeline;
mod title;

pub use excuse::excuse;
pub use expect::{Expectations, Expected, Matcher, Undeclared};
pub use finding::{Finding, Follower, Kind, Severity};
pub use findings::judge;
pub use record::{LINE_MAX, MachineEvent, Origin, Record};
pub use show::show;
