//! The proof of the file system: public test suites beside ext4, power cuts, damaged metadata, planted
//! damage, and search against a reference.
//!
//! What these need in the guest is on the tools disk: pjdfstest and fsx from the Rust crate registry,
//! fio and stress-ng, and `vexfs-proof` (guest-proof/) for what no public tool does.

mod damage;
mod load;
mod pjdfstest;
mod power;
mod search;
mod suites;

pub use damage::{DAMAGED, fsck_damage, metadata_fuzz};
pub use load::{fio_modes, stress_filesystem};
pub use power::power_cut;
pub use search::search_exact;
pub use suites::{fsx, pjdfstest};
