//! The stages: what each is made from, and how.

pub(crate) mod base;
pub(crate) mod builder;
pub(crate) mod disk;
pub(crate) mod faults;
pub(crate) mod form;
pub(crate) mod formats;
pub(crate) mod grub;
pub(crate) mod linux;
pub(crate) mod module;
pub(crate) mod oci;
pub(crate) mod packer;
mod packer_words;
pub(crate) mod payload;
pub(crate) mod programs;
pub(crate) mod replay;
pub(crate) mod seal;
pub(crate) mod suites;
pub(crate) mod table;
pub(crate) mod test_programs;
pub(crate) mod tools_disk;
pub(crate) mod tree_files;
pub(crate) mod vexctl_source;
