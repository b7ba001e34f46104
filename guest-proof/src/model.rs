//! What a hand does, and what must then be on the disk: a pure function of its seed.
//!
//! A hand works alone in a directory of its own. It has **slots**, names whose file is only ever
//! replaced as a whole, moved or removed, and **patched files**, whose blocks are overwritten in place.
//! Every step ends with whatever makes it durable, so after step N the disk must show what steps 1 to N
//! made, or, slot by slot, what a later step made of it.

/// Directories of a hand, named by number.
pub const DIRS: u64 = 4;
/// Names that are replaced, moved and removed.
pub const SLOTS: usize = 24;
/// Files that are overwritten in place.
pub const FILES: usize = 4;
/// Blocks of such a file, at most.
pub const BLOCKS: u64 = 40;
/// Bytes in a block.
pub const BLOCK: usize = 4096;
/// Hands at work at once.
pub const HANDS: u32 = 3;
/// Steps a hand may be ahead of what the host has heard of: far more than a pipe and a socket hold.
pub const AHEAD: u64 = 20_000;

/// How a patch is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durably {
    /// fsync(2)
    Fsync,
    /// fdatasync(2)
    Fdatasync,
    /// `O_DSYNC`
    Dsync,
    /// `O_DIRECT`, then fdatasync(2)
    Direct,
    /// syncfs(2)
    Syncfs,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new file in place of the slot's, in the directory where that is, or else in `dir`.
    Replace { slot: usize, dir: u64 },
    /// The slot's name goes.
    Remove { slot: usize },
    /// The slot's file goes to another directory.
    Move { slot: usize, dir: u64 },
    /// Blocks of a file are overwritten or added.
    Patch {
        file: usize,
        first: u64,
        count: u64,
        how: Durably,
    },
    /// Something that nothing is promised about.
    Noise,
}

/// A generator for one purpose.
pub fn random(seed: u64, purpose: &[u64]) -> fastrand::Rng {
    let mut mixed = fastrand::Rng::with_seed(seed);
    for part in purpose {
        mixed = fastrand::Rng::with_seed(mixed.u64(..) ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    mixed
}

/// Step `number` (from 1) of a hand.
pub fn step(seed: u64, number: u64) -> Step {
    let mut rng = random(seed, &[1, number]);
    let slot = rng.usize(..SLOTS);
    let dir = rng.u64(..DIRS);
    match rng.u32(..100) {
        0..40 => Step::Replace { slot, dir },
        40..50 => Step::Remove { slot },
        50..62 => Step::Move { slot, dir },
        62..88 => {
            let first = rng.u64(..BLOCKS);
            Step::Patch {
                file: rng.usize(..FILES),
                first,
                count: rng.u64(1..=4).min(BLOCKS - first),
                how: match rng.u32(..10) {
                    0..4 => Durably::Fsync,
                    4..6 => Durably::Fdatasync,
                    6..8 => Durably::Dsync,
                    8 => Durably::Direct,
                    _ => Durably::Syncfs,
                },
            }
        }
        _ => Step::Noise,
    }
}

/// Where a slot's file is, and the step that made its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub dir: u64,
    pub made: u64,
}

/// What the disk must show after some steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Each slot's file, if there is one.
    pub slots: [Option<Placed>; SLOTS],
    /// The step that last wrote each block; 0 for never.
    pub files: [[u64; BLOCKS as usize]; FILES],
}

impl State {
    /// Before the first step.
    pub fn new() -> State {
        State {
            slots: [None; SLOTS],
            files: [[0; BLOCKS as usize]; FILES],
        }
    }

    /// After one step more; tells what it has changed.
    pub fn apply(&mut self, number: u64, step: Step) {
        match step {
            Step::Replace { slot, dir } => {
                let dir = self.slots[slot].map_or(dir, |placed| placed.dir);
                self.slots[slot] = Some(Placed { dir, made: number });
            }
            Step::Remove { slot } => self.slots[slot] = None,
            Step::Move { slot, dir } => {
                if let Some(placed) = &mut self.slots[slot] {
                    placed.dir = dir;
                }
            }
            Step::Patch {
                file, first, count, ..
            } => {
                for block in first..first + count {
                    self.files[file][block as usize] = number;
                }
            }
            Step::Noise => {}
        }
    }
}

/// The content of a slot's file that a step made: awkward lengths, nothing at all among them.
pub fn slot_content(seed: u64, slot: usize, made: u64) -> Vec<u8> {
    let mut rng = random(seed, &[2, slot as u64, made]);
    let mut content = vec![0; rng.usize(..5) * BLOCK + rng.usize(..BLOCK)];
    rng.fill(&mut content);
    content
}

/// The vector of such a file.
pub fn slot_vector(seed: u64, slot: usize, made: u64) -> Vec<f32> {
    let mut rng = random(seed, &[3, slot as u64, made]);
    (0..rng.usize(1..200)).map(|_| rng.f32() - 0.5).collect()
}

/// The content of a block that a step wrote in place.
pub fn block_content(seed: u64, file: usize, block: u64, made: u64) -> Vec<u8> {
    let mut content = vec![0; BLOCK];
    if made > 0 {
        random(seed, &[4, file as u64, block, made]).fill(&mut content);
    }
    content
}

/// The seed of one of several hands.
pub fn hand_seed(seed: u64, hand: u32) -> u64 {
    random(seed, &[5, hand.into()]).u64(..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_everything() {
        let run = |seed| {
            let mut state = State::new();
            (1..400).for_each(|n| state.apply(n, step(seed, n)));
            state
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let state = run(7);
        assert!(state.slots.iter().flatten().count() > SLOTS / 2);
        assert!(state.files.iter().flatten().any(|made| *made > 0));
        assert_eq!(slot_content(7, 1, 5), slot_content(7, 1, 5));
        assert_ne!(block_content(7, 0, 1, 5), block_content(7, 0, 1, 6));
        assert_eq!(block_content(7, 0, 1, 0), vec![0; BLOCK]);
    }
}
