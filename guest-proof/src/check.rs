//! Whether what `work` promised is on the disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use vexctl::vectors;

use crate::model::{
    AHEAD, BLOCK, BLOCKS, DIRS, FILES, Placed, SLOTS, State, Step, block_content, hand_seed,
    slot_content, slot_vector, step,
};
use crate::work::{NOISE, folder, home, patched, slot_name};

/// The last promise of a hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    hand: u32,
    number: u64,
}

impl FromStr for Promise {
    type Err = String;

    fn from_str(text: &str) -> Result<Promise, String> {
        let parts = text.split_once(':').map(|(a, b)| (a.parse(), b.parse()));
        match parts {
            Some((Ok(hand), Ok(number))) => Ok(Promise { hand, number }),
            _ => Err("a promise is written HAND:NUMBER".into()),
        }
    }
}

/// What may be found in each place: what was promised, or what a later step made of it.
struct Allowed {
    promised: State,
    slots: Vec<Vec<Option<Placed>>>,
    files: Vec<Vec<Vec<u64>>>,
}

impl Allowed {
    fn after(seed: u64, number: u64) -> Allowed {
        let mut state = State::new();
        (1..=number).for_each(|n| state.apply(n, step(seed, n)));
        let promised = state.clone();
        let mut slots: Vec<_> = state.slots.iter().map(|slot| vec![*slot]).collect();
        let blocks = |file: &[u64; BLOCKS as usize]| file.iter().map(|made| vec![*made]).collect();
        let mut files: Vec<Vec<Vec<u64>>> = state.files.iter().map(blocks).collect();
        for number in number + 1..=number + AHEAD {
            let next = step(seed, number);
            state.apply(number, next);
            match next {
                Step::Replace { slot, .. } | Step::Remove { slot } | Step::Move { slot, .. } => {
                    slots[slot].push(state.slots[slot]);
                }
                Step::Patch {
                    file, first, count, ..
                } => {
                    (first..first + count).for_each(|b| files[file][b as usize].push(number));
                }
                Step::Noise => {}
            }
        }
        Allowed {
            promised,
            slots,
            files,
        }
    }
}

/// Checks all hands; what is wrong goes to standard output.
pub fn run(dir: &Path, seed: u64, vectors: bool, promises: &[Promise]) -> anyhow::Result<bool> {
    let mut wrong = Vec::new();
    for promise in promises {
        let home = home(dir, promise.hand);
        let seed = hand_seed(seed, promise.hand);
        hand(&home, seed, vectors, promise.number, &mut wrong)
            .with_context(|| format!("cannot look at {}", home.display()))?;
    }
    for line in &wrong {
        println!("{line}");
    }
    println!("{} promises, {} broken", promises.len(), wrong.len());
    Ok(wrong.is_empty())
}

fn hand(
    home: &Path,
    seed: u64,
    vectors: bool,
    number: u64,
    wrong: &mut Vec<String>,
) -> anyhow::Result<()> {
    let allowed = Allowed::after(seed, number);
    let mut say = |what: String| wrong.push(format!("{}: {what}", home.display()));
    if !home.is_dir() {
        say("the directory is gone".into());
        return Ok(());
    }
    for dir in (0..DIRS).map(|n| folder(home, n)).chain([home.join(NOISE)]) {
        if !dir.is_dir() {
            say(format!("{} is gone", dir.display()));
            return Ok(());
        }
    }
    strange_names(home, &mut say)?;
    for slot in 0..SLOTS {
        let found = find(home, slot);
        let [] = &found[..] else {
            if found.len() > 1 {
                say(format!("{} is in directories {found:?}", slot_name(slot)));
                continue;
            }
            one_slot(home, seed, vectors, slot, found[0], &allowed, &mut say);
            continue;
        };
        if !allowed.slots[slot].contains(&None) {
            let promised = allowed.promised.slots[slot];
            say(format!(
                "{} is lost; promised: {promised:?}",
                slot_name(slot)
            ));
        }
    }
    for file in 0..FILES {
        one_file(home, seed, file, &allowed, &mut say)?;
    }
    Ok(())
}

/// Names nobody made.
fn strange_names(home: &Path, say: &mut dyn FnMut(String)) -> io::Result<()> {
    let slots: BTreeSet<String> = (0..SLOTS).map(slot_name).collect();
    for dir in (0..DIRS).map(|n| folder(home, n)) {
        for entry in fs::read_dir(&dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "draft" && !slots.contains(&name) {
                say(format!("{name:?} in {} was never made", dir.display()));
            }
        }
    }
    Ok(())
}

/// The directories a slot's name is in.
fn find(home: &Path, slot: usize) -> Vec<u64> {
    let there = |dir: &u64| folder(home, *dir).join(slot_name(slot)).symlink_metadata();
    (0..DIRS).filter(|dir| there(dir).is_ok()).collect()
}

fn one_slot(
    home: &Path,
    seed: u64,
    vectors: bool,
    slot: usize,
    dir: u64,
    allowed: &Allowed,
    say: &mut dyn FnMut(String),
) {
    let path = folder(home, dir).join(slot_name(slot));
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(error) => return say(format!("{} cannot be read: {error}", path.display())),
    };
    let made = allowed.slots[slot]
        .iter()
        .flatten()
        .find(|placed| placed.dir == dir && slot_content(seed, slot, placed.made) == content);
    let Some(made) = made else {
        return say(format!(
            "{} has {} bytes nobody wrote there since step {:?}",
            path.display(),
            content.len(),
            allowed.promised.slots[slot]
        ));
    };
    if vectors {
        let vector = File::open(&path).and_then(|file| vectors::get(&file));
        if !matches!(&vector, Ok(Some(v)) if *v == slot_vector(seed, slot, made.made)) {
            say(format!(
                "{} has lost its vector: {vector:?}",
                path.display()
            ));
        }
    }
}

fn one_file(
    home: &Path,
    seed: u64,
    file: usize,
    allowed: &Allowed,
    say: &mut dyn FnMut(String),
) -> io::Result<()> {
    let path = patched(home, file);
    let content = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    if content.len() > BLOCKS as usize * BLOCK {
        say(format!("{} has {} bytes", path.display(), content.len()));
    }
    for block in 0..BLOCKS {
        let at = block as usize * BLOCK;
        let mut found = content.get(at..).unwrap_or_default().to_vec();
        found.resize(BLOCK, 0);
        let may_be = &allowed.files[file][block as usize];
        if !may_be
            .iter()
            .any(|made| block_content(seed, file, block, *made) == found)
        {
            let promised = allowed.promised.files[file][block as usize];
            say(format!(
                "block {block} of {} is not what step {promised} wrote, nor what a later one did",
                path.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work;

    /// Works for a moment in an ordinary directory and returns it with the number of steps done.
    fn worked(steps: u64) -> (tempfile::TempDir, Promise) {
        let dir = tempfile::tempdir().unwrap();
        let manner = work::Manner {
            vectors: false,
            lie: false,
            pace: 0,
            steps,
        };
        work::run(dir.path(), 5, &manner).unwrap();
        (
            dir,
            Promise {
                hand: 0,
                number: steps,
            },
        )
    }

    #[test]
    fn kept_promises_are_seen_and_broken_ones_too() {
        let (dir, promise) = worked(300);
        let holds = |promise| run(dir.path(), 5, false, &[promise]).unwrap();
        assert!(holds(promise));
        // The host heard less than was done.
        assert!(holds(Promise {
            number: 250,
            ..promise
        }));
        // It was promised more than was done.
        assert!(!holds(Promise {
            number: 340,
            ..promise
        }));
        let home = home(dir.path(), 0);
        let slot = (0..SLOTS)
            .find(|slot| !find(&home, *slot).is_empty())
            .unwrap();
        let path = folder(&home, find(&home, slot)[0]).join(slot_name(slot));
        fs::write(&path, "other").unwrap();
        assert!(!holds(promise));
    }

    #[test]
    fn an_old_block_is_no_later_one() {
        let (dir, promise) = worked(300);
        let path = patched(&home(dir.path(), 0), 0);
        let mut content = fs::read(&path).unwrap();
        content[BLOCK..2 * BLOCK].copy_from_slice(&block_content(1, 0, 1, 1));
        fs::write(&path, content).unwrap();
        assert!(!run(dir.path(), 5, false, &[promise]).unwrap());
    }
}
