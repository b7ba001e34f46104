//! What a machine is told at its first boot: the NoCloud seed, a small disk labelled `cidata` with
//! `meta-data` and `user-data` on it, as cloud-init reads it.
//!
//! cloud-init itself brings Python and 15 MB, and costs every boot seconds under emulation whether or
//! not there is a seed. This reads the part of its format that a VexFS machine needs, is started by
//! udev only when such a disk is there, and says so of everything it does not understand.
//!
//! [`Seed::parse`] reads, [`plan`] decides (pure), [`Root::carry_out`] does.

mod plan;
mod root;
mod seed;

pub use plan::{Action, Plan, plan};
pub use root::Root;
pub use seed::{Seed, SeedError};
