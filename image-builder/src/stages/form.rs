//! What every further form of an image is made from.

use std::path::Path;

/// What a form is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From<'a> {
    /// The finished qcow2 disk.
    pub(crate) disk: &'a Path,
    /// Content key of the image: what ids follow from.
    pub(crate) key: &'a str,
    /// Seconds since 1970 that stand for now.
    pub(crate) epoch: u64,
    /// Name and version, for people.
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
}
