//! Figures: how fast things are, beside their peers, and whether one is slower than another.
//!
//! Each question is measured in one place here, and asked from two: `cargo bench` draws criterion's
//! curves, `vexfs-images perf run` writes a [`results::figures::Record`] for reports.

pub mod agent;
pub mod boot;
pub mod codec;
pub mod compare;
pub mod edits;
pub mod filesystem;
mod fingerprint;
pub mod fio;
pub mod fork;
pub mod image;
mod machines;
pub mod quick;
mod ratios;
mod vectors;
pub mod vsock;
mod workbench;

use ::image::SourceConfig;
use results::figures::standing;

use crate::lab::{Failure, Guest};
use workbench::{Disk, Peer, Subject, Workbench};

pub use fingerprint::fingerprint;

/// What each piece of work costs on the file system under test, as a multiple of what it costs on ext4 in
/// the same guest: the middle of so many rounds, in which the two take turns on a disk in the
/// guest's memory.
///
/// # Errors
/// When work in the guest fails.
pub async fn beside_ext4(
    guest: &Guest,
    source: &SourceConfig,
    rounds: u64,
) -> Result<standing::Ratios, Failure> {
    let bench = Workbench::new(guest.clone(), source, Disk::Memory, 1).await?;
    let bench = bench.with_search_in_user_space();
    let mut all = Vec::new();
    // The first round pays for what is not in memory yet.
    for round in 0..=rounds {
        let ours = bench.block(&Subject::UnderTest).await?;
        let theirs = bench.block(&Subject::Peer(Peer::Ext4)).await?;
        if round > 0 {
            all.push(ratios::ratios(&ours, &theirs));
        }
    }
    bench.clear().await?;
    Ok(standing::middle(&all))
}
