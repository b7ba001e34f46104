//! A module in the place of an image's own, as data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A module that takes the place of the image's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The module's name, as modprobe(8) knows it.
    pub name: String,
    /// Its file here.
    pub file: PathBuf,
    /// The same with its debug information.
    pub debug: PathBuf,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Where the file goes in the guest.
    pub place: String,
    /// Whether other modules must be loaded for it: then modprobe(8) loads it, else the kernel is
    /// given the file.
    pub depends: bool,
    /// Whether what depmod(8) wrote down about the image's module does not hold for this one.
    pub depmod: bool,
    /// Further files of its tree: here, in the guest, mode.
    pub files: Vec<(PathBuf, String, u32)>,
}
