//! Machines to measure in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use machine::{Accelerator, MachineSpec};

use crate::lab::{Failure, Guest, Setup};

/// The most a single request of a measurement may take, under emulation on a busy host.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// A fork of the image as checks get it.
pub(super) async fn fork(setup: &Setup, name: &str) -> Result<Guest, Failure> {
    let snapshot = setup.snapshot().await?;
    adopt(&snapshot, setup, name).await
}

/// A fork in which time is work, where that can be had: under emulation its clock counts
/// instructions. With KVM it is a fork like any other.
pub(super) async fn exact_fork(setup: &Setup, name: &str) -> Result<Guest, Failure> {
    let snapshot = setup
        .snapshot_of(|spec| MachineSpec {
            counts_instructions: spec.accelerator == Accelerator::Tcg,
            cpus: 1,
            ..spec
        })
        .await?;
    adopt(&snapshot, setup, name).await
}

async fn adopt(
    snapshot: &machine::snapshot::Snapshot,
    setup: &Setup,
    name: &str,
) -> Result<Guest, Failure> {
    let fork = snapshot.fork(name, &logs(setup, name)).await?;
    Guest::adopt(Arc::new(fork.machine), fork.agent, PATIENCE).await
}

/// Where a machine of a measurement leaves its logs.
pub(super) fn logs(setup: &Setup, name: &str) -> PathBuf {
    let id = std::process::id();
    setup
        .layout
        .machine_logs()
        .join(format!("perf-{name}-{id}"))
}
