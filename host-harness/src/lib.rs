//! Boots VexFS images, works through the agent in them, and judges from evidence whether they work.
//!
//! From the bottom up: [`machine`] is one QEMU with everything attached to it; [`agent`] is the
//! client of the daemon in the guest; [`snapshot`] freezes a booted machine and forks it; [`lab`]
//! gives a check its guests and keeps what they leave; [`checks`] is the table of what must hold;
//! [`runner`] brings them together with `kernel-log`, the second judge, and emits events, which `report` turns
//! into something for a reader; [`dossier`] is the folder a failure leaves, [`tryout`] the loop from an edit to
//! a verdict. [`host`] probes what the machine we run on offers; [`whose`] says whose fault an error is.
//!
//! The three types to know: [`checks::Check`] (a row of the table), [`lab::Guest`] (what its story
//! talks to) and [`results::CaseResult`] (what came of it). Building images is left to
//! `image-builder`, the shapes of what came of it to `results`, the life of processes to `keeper`, and vsock
//! without kernel support to `vsock-device`.

pub mod agent;
pub mod checks;
pub mod clock;
pub mod doctor;
pub mod dossier;
pub mod host;
pub mod lab;
pub mod machine;
pub mod perf;
pub mod runner;
mod secret_scan;
pub mod snapshot;
pub mod tryout;
pub mod whose;

/// Must be the first thing a `main` does in any program that boots machines: a process that was
/// started as a keeper or as a vsock device does that work and never returns, any other goes on.
pub fn hook() {
    keeper::hook();
    vsock_device::hook();
}
