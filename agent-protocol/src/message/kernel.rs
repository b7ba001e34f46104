//! Modules and mounts.

use serde::{Deserialize, Serialize};

use super::GuestPath;

/// Where a module comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleSource {
    /// modprobe(8) by name, with dependencies.
    Name(String),
    /// finit_module(2) on this file, without dependencies.
    File(GuestPath),
}

/// One loaded module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// Name as the kernel spells it.
    pub name: String,
    /// Bytes of memory.
    pub size: u64,
    /// Reference count; -1 when it is going.
    pub references: i32,
    /// Modules that use it, separated by commas.
    pub used_by: String,
    /// `Live`, `Loading` or `Unloading`.
    pub state: String,
    /// `MODULE_VERSION`, if it has one.
    pub version: Option<String>,
    /// Taint letters the module brought, such as `OE`.
    pub taint: String,
}

/// mount(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// Device or whatever the file system takes.
    pub source: GuestPath,
    /// Mount point; must exist.
    pub target: GuestPath,
    /// File system type; empty for bind mounts and remounts.
    pub fstype: String,
    /// `MS_*`.
    pub flags: MountFlags,
    /// The file system's own options.
    pub data: String,
}

/// The `MS_*` flags of mount(2), as the kernel numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags(pub u64);

impl MountFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// `MS_RDONLY`
    pub const RDONLY: Self = Self(1);
    /// `MS_NOSUID`
    pub const NOSUID: Self = Self(1 << 1);
    /// `MS_NODEV`
    pub const NODEV: Self = Self(1 << 2);
    /// `MS_NOEXEC`
    pub const NOEXEC: Self = Self(1 << 3);
    /// `MS_SYNCHRONOUS`
    pub const SYNCHRONOUS: Self = Self(1 << 4);
    /// `MS_REMOUNT`
    pub const REMOUNT: Self = Self(1 << 5);
    /// `MS_NOATIME`
    pub const NOATIME: Self = Self(1 << 10);
    /// `MS_BIND`
    pub const BIND: Self = Self(1 << 12);
    /// `MS_MOVE`
    pub const MOVE: Self = Self(1 << 13);
    /// `MS_REC`
    pub const REC: Self = Self(1 << 14);
    /// `MS_STRICTATIME`
    pub const STRICTATIME: Self = Self(1 << 24);
    /// `MS_LAZYTIME`
    pub const LAZYTIME: Self = Self(1 << 25);
}

impl std::ops::BitOr for MountFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How hard to unmount, umount2(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmountFlags {
    /// `MNT_FORCE`
    pub force: bool,
    /// `MNT_DETACH`
    pub detach: bool,
}
