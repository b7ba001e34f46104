//! `vexfs-proof`: what checks do inside the guest that no public tool does.
//!
//! It lies on the tools disk and is run by checks of the full tier: promises that must survive a power
//! cut (`work`, `check`), damaged file systems that the kernel must bear (`fuzz`), damage that fsck
//! must find (`plant`), and a tree with everything in it (`populate`). It judges nothing but what it
//! was asked; kernel log and leaks are the harness' business. Everything random follows from a seed.
//!
//! Exit codes: 0 what was asked holds, 1 it does not (said on standard output), 2 it could not be done.

mod check;
mod damage;
mod exercise;
mod fuzz;
mod model;
mod populate;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Checks from inside a guest.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Work until killed; each line `HAND NUMBER` promises that all the hand did so far is on the disk.
    Work {
        /// A directory of its own, made if need be.
        dir: PathBuf,
        /// All randomness follows from it.
        seed: u64,
        /// Files get vectors as well.
        #[arg(long)]
        vectors: bool,
        /// Promise without fsync: for a test that wants to see promises broken.
        #[arg(long)]
        lie: bool,
        /// Microseconds each hand rests after a step.
        #[arg(long, default_value_t = 0)]
        pace: u64,
        /// Stop after so many steps of each hand.
        #[arg(long)]
        steps: Option<u64>,
    },
    /// Whether the promises of `work` hold.
    Check {
        /// The directory it worked in.
        dir: PathBuf,
        /// Its seed.
        seed: u64,
        /// Files have vectors as well.
        #[arg(long)]
        vectors: bool,
        /// The last promise of each hand, as `HAND:NUMBER`.
        promises: Vec<check::Promise>,
    },
    /// Makes a tree with every kind of metadata in it.
    Populate {
        /// A directory, usually a mount point.
        dir: PathBuf,
    },
    /// Mounts damaged versions of the file system on a device, one after the other.
    Fuzz(fuzz::Args),
    /// Damages the file system on a device in one way; without a number, lists the ways.
    Plant {
        /// The device, not mounted.
        device: PathBuf,
        /// Which damage.
        number: Option<usize>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Work {
            dir,
            seed,
            vectors,
            lie,
            pace,
            steps,
        } => work::run(
            &dir,
            seed,
            &work::Manner {
                vectors,
                lie,
                pace,
                steps: steps.unwrap_or(u64::MAX),
            },
        )
        .map(|()| true),
        What::Check {
            dir,
            seed,
            vectors,
            promises,
        } => check::run(&dir, seed, vectors, &promises),
        What::Populate { dir } => populate::run(&dir).map(|()| true),
        What::Fuzz(args) => fuzz::run(&args),
        What::Plant { device, number } => damage::run(&device, number).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("vexfs-proof: {error:#}");
            ExitCode::from(2)
        }
    }
}
