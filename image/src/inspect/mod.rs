//! Looking into a finished image without booting or mounting it: its file tree, what differs between
//! two, and what takes the room.
//!
//! [`Tree::of_disk`] reads the root file system straight out of the qcow2 file; [`diff()`] compares two
//! trees; [`Tree::packages`] and [`Tree::owners`] say which Debian package a path is from.

mod diff;
mod disk;
mod tree;

pub use diff::{Change, Difference, diff};
pub use disk::{Disk, Partition};
pub use tree::{Kind, Node, Owners, Tree, extract, root_of};
