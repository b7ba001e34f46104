//! The system as a whole.

use serde::{Deserialize, Serialize};

use super::{GuestPath, ModuleInfo};
use crate::bounded;

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Version of the agent program.
    pub agent_version: String,
    /// Milliseconds since the agent started.
    pub agent_uptime_ms: u64,
    /// Bytes of memory the agent holds resident.
    pub agent_resident: u64,
}

/// Facts about the running system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// Version of the agent program.
    pub agent_version: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// `uname -m`.
    pub machine: String,
    /// `/proc/cmdline`.
    pub cmdline: String,
    /// New for every boot.
    pub boot_id: String,
    /// `/etc/machine-id`; empty when there is none yet.
    pub machine_id: String,
    /// `uname -n`.
    pub hostname: String,
    /// Milliseconds since boot.
    pub uptime_ms: u64,
    /// Milliseconds since 1970 by the guest's clock.
    pub clock_ms: i64,
    /// Processors online.
    pub cpus: u32,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f32; 3],
    /// Bytes of memory in all.
    pub memory_total: u64,
    /// Bytes free.
    pub memory_free: u64,
    /// Bytes a new program could have without swapping.
    pub memory_available: u64,
    /// `/proc/sys/kernel/tainted`; judge by difference.
    pub taint: u64,
    /// Mounts of the agent's namespace.
    #[serde(deserialize_with = "bounded::list")]
    pub mounts: Vec<MountInfo>,
    /// Loaded modules.
    #[serde(deserialize_with = "bounded::list")]
    pub modules: Vec<ModuleInfo>,
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountInfo {
    /// Device or other source.
    pub source: String,
    /// Mount point.
    pub target: GuestPath,
    /// File system type.
    pub fstype: String,
    /// Mount and file system options, separated by commas.
    pub options: String,
}

/// End of a running system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerAction {
    /// Start again.
    Reboot,
    /// Switch off.
    PowerOff,
}

/// Kind of end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerHow {
    /// systemd stops services and unmounts.
    Orderly,
    /// reboot(2) at once, without sync: like pulling the plug.
    Forced,
}
