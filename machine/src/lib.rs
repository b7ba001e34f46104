//! One QEMU process and everything attached to it, as one value; frozen, forked, and admitted to the host.
//!
//! [`Machine::boot`] turns a [`MachineSpec`] into a running guest; dropping the [`Machine`] kills it
//! and removes its sockets, overlay and secret, and so does any end of this process, SIGKILL
//! included (see the `keeper` crate). Logs stay in the spec's `log_dir`. [`snapshot`] freezes a booted machine
//! and forks it; [`admission`] and [`room`] see to it that the host has what machines need; [`Host`] probes what
//! it offers them.
//!
//! What runs is a guest whose kernel may be broken: [`Machine::died`] says how a machine ended as
//! soon as it is known, so that every wait can be raced against it, and the serial [`Console`] is
//! captured whatever happens.
//!
//! The types to know: [`MachineSpec`], [`Machine`] and [`snapshot::Snapshot`]. This room knows nothing of checks,
//! verdicts or images beyond the file with the disk. Talking to the guest is left to `agent-client`, a machine's
//! time to `clock`, the life of processes to `keeper`, and vsock without kernel support to `vsock-device`.
//!
//! A program that uses this crate calls [`hook`] as the first line of its `main`.

pub mod accel;
pub mod admission;
pub mod arguments;
mod attach;
mod console;
mod coroner;
mod error;
mod event;
mod handle;
mod host;
pub mod overlay;
mod plug;
mod pressure;
mod qemu;
mod qmp;
pub mod room;
mod rundir;
pub mod snapshot;
mod spec;
mod start;
pub mod vsock;
mod write_log;

pub use accel::Accel;
pub use arguments::SECOND_KERNEL_SKU;
pub use console::{Console, Line, Mark};
pub use error::MachineError;
pub use event::{Age, Death, MachineEvent};
pub use handle::Machine;
pub use host::{Host, HostRequest};
pub use qemu::{Qemu, Version};
pub use qmp::{Qmp, QmpError, QmpEvent};
pub use rundir::{RunDir, run_parent};
pub use spec::{
    Accelerator, DirectKernel, DiskContent, DiskFormat, ExtraDisk, Firmware, MachineSpec, Network,
    VsockBackend,
};
pub use start::Launch;
pub use vsock::{Stream, Vsock};
pub use write_log::{Cut, WriteLog};

/// Must be the first thing a `main` does in any program that boots machines: a process that was
/// started as a keeper or as a vsock device does that work and never returns, any other goes on.
pub fn hook() {
    keeper::hook();
    vsock_device::hook();
}

/// Bytes from the system's random source.
fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}
