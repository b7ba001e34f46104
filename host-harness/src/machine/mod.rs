//! The machine room: one QEMU process and everything attached to it, as one value.
//!
//! [`Machine::boot`] turns a [`MachineSpec`] into a running guest; dropping the [`Machine`] kills it
//! and removes its sockets, overlay and secret, and so does any end of this process, SIGKILL
//! included (see the `keeper` crate). Logs stay in the spec's `log_dir`.
//!
//! What runs is a guest whose kernel may be broken: [`Machine::died`] says how a machine ended as
//! soon as it is known, so that every wait can be raced against it, and the serial [`Console`] is
//! captured whatever happens.
//!
//! This room knows nothing of checks, verdicts or images beyond the file with the disk.

pub mod accel;
pub mod arguments;
mod attach;
mod console;
mod coroner;
mod error;
mod event;
mod handle;
pub mod overlay;
mod plug;
mod qemu;
mod qmp;
pub(crate) mod room;
mod rundir;
mod spec;
mod start;
pub mod vsock;
mod write_log;

pub use accel::Accel;
pub use console::{Console, Line, Mark};
pub use error::MachineError;
pub use event::{Age, Death, MachineEvent};
pub use handle::Machine;
pub use qemu::{Qemu, Version};
pub use qmp::{Qmp, QmpError, QmpEvent};
pub use rundir::RunDir;
pub(crate) use rundir::run_parent;
pub use spec::{
    Accelerator, DirectKernel, DiskContent, DiskFormat, ExtraDisk, Firmware, MachineSpec, Network,
    VsockBackend,
};
pub(crate) use start::{Launch, tail};
pub use vsock::{Stream, Vsock};
pub use write_log::{Cut, WriteLog};

/// Bytes from the system's random source.
fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}
