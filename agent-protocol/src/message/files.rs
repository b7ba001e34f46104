//! Files and directories of the guest.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// A path or file name inside the guest: any bytes but NUL.
///
/// Deliberately no [`std::path::Path`]: the guest is not trusted, and what it calls a file must not
/// end up joined onto a path of the host.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GuestPath(Bytes);

impl GuestPath {
    /// From raw bytes.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Bytes(bytes.into()))
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }
}

impl From<&str> for GuestPath {
    fn from(path: &str) -> Self {
        Self::from_bytes(path)
    }
}

impl From<String> for GuestPath {
    fn from(path: String) -> Self {
        Self::from_bytes(path)
    }
}

impl From<&String> for GuestPath {
    fn from(path: &String) -> Self {
        Self::from_bytes(path.as_bytes())
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped, because a name with a line feed or an escape sequence would forge a log line.
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What stat(2) tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Type of file.
    pub kind: FileKind,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks allocated.
    pub blocks: u64,
    /// Hard links.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
    /// Device the file lives on.
    pub device: u64,
    /// Device the file is, if it is one.
    pub special: u64,
    /// Last modification, seconds since 1970.
    pub modified_s: i64,
    /// and nanoseconds.
    pub modified_ns: u32,
    /// Where a symbolic link points, when it was not followed.
    pub link_target: Option<GuestPath>,
}

/// Type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Block device.
    BlockDevice,
    /// Character device.
    CharDevice,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Something newer than this protocol.
    Other,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its name, without the directory.
    pub name: GuestPath,
    /// lstat(2) of it.
    pub stat: FileStat,
}

impl DirEntry {
    /// What it adds to the weight of its event.
    #[must_use]
    pub fn weight(&self) -> usize {
        let target = self
            .stat
            .link_target
            .as_ref()
            .map_or(0, |path| path.as_bytes().len());
        128 + self.name.as_bytes().len() + target
    }
}
