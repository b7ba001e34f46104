//! The gate: is the new one slower than the old one?
//!
//! Baseline and candidate take turns (old new, new old, old new …), and what each piece of work cost
//! on the two sides of a turn is a pair. After each turn the pairs so far are judged; as long as some
//! metric is unsure there is another, up to a limit. Looking again and again does not make a false
//! alarm likelier than it was meant to be: the same has to be shown to be the same, and worse to be
//! worse by more than the margin, while the truth is nowhere near it.
//!
//! Two modules for one image share a guest, so that nothing but the module differs. Two images have a
//! guest each. What is measured is the guest's own time. Under emulation its clock counts
//! instructions (`-icount`, QEMU's docs/devel/tcg-icount.rst): however busy the host is, the same work
//! takes the same time, and sleeping still counts as time. The disk is in the guest's memory, for the
//! same reason. What it does not see is what instructions do not show: caches, and the disk's own
//! speed. `perf run` measures those with the host's clock.

mod outcome;
mod thresholds;

use std::sync::Arc;

pub use outcome::{Comparison, Row};
pub use thresholds::{Pairs, Threshold, Thresholds};

use super::machines::exact_fork;
use super::workbench::{Disk, Subject, Workbench};
use crate::lab::{Failure, Setup};

/// Size of the work in one block; found by trial, so that a block takes a few seconds under emulation
/// and starting fio is a small part of it.
const SCALE: u32 = 1;

/// One of the two.
#[derive(Debug, Clone)]
pub struct Side {
    /// What to call it.
    pub name: String,
    /// The image it runs in.
    pub setup: Arc<Setup>,
    /// The module's file; `None` for the image's own.
    pub module: Option<Vec<u8>>,
}

/// What one operation of each piece of work cost, by name.
type Costs = std::collections::BTreeMap<String, f64>;

/// The pairs of each metric so far.
type Taken = std::collections::BTreeMap<String, Vec<(f64, f64)>>;

/// Compares, and tells `progress` after each pair what is known so far.
///
/// # Errors
/// When a guest does not come up, or work in it fails: nothing is said about speed then.
pub async fn compare(
    base: &Side,
    new: &Side,
    thresholds: &Thresholds,
    mut progress: impl FnMut(&Comparison),
) -> Result<Comparison, Failure> {
    let sides = Sides::ready(base, new).await?;
    // What the first block of each pays for (files of the guest that are read, memory that is found)
    // belongs to neither.
    sides.block(Which::Base).await?;
    sides.block(Which::New).await?;
    let mut taken = Taken::new();
    loop {
        let turn = taken.values().map(Vec::len).max().unwrap_or_default();
        let (old, new_costs) = if turn.is_multiple_of(2) {
            let old = sides.block(Which::Base).await?;
            (old, sides.block(Which::New).await?)
        } else {
            let new = sides.block(Which::New).await?;
            (sides.block(Which::Base).await?, new)
        };
        pair_up(&mut taken, &old, &new_costs);
        let now =
            Comparison::of((&base.name, &new.name), &taken, thresholds).map_err(Failure::Ours)?;
        progress(&now);
        if now.is_decided(thresholds.pairs) {
            return Ok(now);
        }
    }
}

fn pair_up(taken: &mut Taken, old: &Costs, new: &Costs) {
    for (name, old) in old {
        if let Some(new) = new.get(name) {
            taken.entry(name.clone()).or_default().push((*old, *new));
        }
    }
}

#[derive(Clone, Copy)]
enum Which {
    Base,
    New,
}

/// Both sides, ready for blocks.
struct Sides {
    base: (Arc<Workbench>, Subject),
    new: (Arc<Workbench>, Subject),
}

impl Sides {
    async fn ready(base: &Side, new: &Side) -> Result<Sides, Failure> {
        let same_image = base.setup.image.dir == new.setup.image.dir;
        let first = Arc::new(Sides::bench(base, "base").await?);
        let second = match same_image {
            true => first.clone(),
            false => Arc::new(Sides::bench(new, "new").await?),
        };
        let base_module = Sides::module(&first, base, "base").await?;
        let new_module = Sides::module(&second, new, "new").await?;
        Ok(Sides {
            base: (first, base_module),
            new: (second, new_module),
        })
    }

    async fn bench(side: &Side, name: &str) -> Result<Workbench, Failure> {
        let guest = exact_fork(&side.setup, name).await?;
        let source = &side.setup.image.manifest.source.config;
        Workbench::new(guest, source, Disk::Memory, SCALE).await
    }

    async fn module(bench: &Workbench, side: &Side, name: &str) -> Result<Subject, Failure> {
        match &side.module {
            Some(bytes) => bench.bring(bytes, name).await,
            None => Ok(Subject::UnderTest),
        }
    }

    async fn block(&self, which: Which) -> Result<Costs, Failure> {
        let (bench, subject) = match which {
            Which::Base => &self.base,
            Which::New => &self.new,
        };
        Ok(bench.block(subject).await?.costs())
    }
}
