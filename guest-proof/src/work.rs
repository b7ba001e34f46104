//! Fsync-heavy work that promises, line by line, what is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{OFlags, fdatasync, fsync, syncfs};
use vexctl::vectors;

use crate::model::{
    BLOCK, DIRS, Durably, HANDS, Placed, State, Step, block_content, hand_seed, random,
    slot_content, slot_vector, step,
};

/// The directory of a hand.
pub fn home(dir: &Path, hand: u32) -> PathBuf {
    dir.join(format!("hand-{hand}"))
}

/// One of a hand's directories.
pub fn folder(home: &Path, number: u64) -> PathBuf {
    home.join(number.to_string())
}

/// The name of a slot.
pub fn slot_name(slot: usize) -> String {
    format!("slot-{slot}")
}

/// The file that is patched in place.
pub fn patched(home: &Path, file: usize) -> PathBuf {
    home.join(format!("patched-{file}"))
}

/// Where nothing is promised.
pub const NOISE: &str = "noise";

/// How to work.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Files get vectors.
    pub vectors: bool,
    /// Promise without fsync.
    pub lie: bool,
    /// Microseconds of rest after a step.
    pub pace: u64,
    /// Steps of each hand.
    pub steps: u64,
}

struct Hand {
    home: PathBuf,
    number: u32,
    seed: u64,
    manner: Manner,
    state: State,
}

/// Works for that many steps each hand, or until it is killed.
pub fn run(dir: &Path, seed: u64, manner: &Manner) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if !manner.lie {
        fsync(File::open(dir.parent().unwrap_or(dir))?)?;
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let restless = scope.spawn(|| restless(&dir.join("restless"), seed, &done));
        let hands: Vec<_> = (0..HANDS)
            .map(|number| {
                let mut hand = Hand {
                    home: home(dir, number),
                    number,
                    seed: hand_seed(seed, number),
                    manner: *manner,
                    state: State::new(),
                };
                scope.spawn(move || hand.work())
            })
            .collect();
        let ended: Vec<_> = hands.into_iter().map(|hand| hand.join()).collect();
        done.store(true, Ordering::Relaxed);
        for ended in ended.into_iter().chain([restless.join()]) {
            match ended {
                Ok(ended) => ended?,
                Err(_) => anyhow::bail!("a hand panicked"),
            }
        }
        Ok(())
    })
}

/// Writes without end, past the page cache, and never has anything flushed: when the power goes, there
/// is always something under way.
fn restless(dir: &Path, seed: u64, done: &AtomicBool) -> anyhow::Result<()> {
    fs::create_dir(dir)?;
    let mut rng = random(seed, &[8]);
    let flags = direct().bits() as i32;
    let open = |name: u32| {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags)
            .open(dir.join(format!("r{name}")))
    };
    let room = vec![9; 33 * BLOCK];
    let at = room.as_ptr().align_offset(BLOCK);
    while !done.load(Ordering::Relaxed) {
        let blocks = rng.usize(1..=16);
        let file = open(rng.u32(..6))?;
        file.write_all_at(
            &room[at..at + blocks * BLOCK],
            rng.u64(..512) * BLOCK as u64,
        )?;
        match rng.u32(..8) {
            0 => file.set_len(rng.u64(..300) * BLOCK as u64)?,
            1 => ignore(fs::rename(dir.join("r5"), dir.join("r4"))),
            2 => ignore(fs::remove_file(dir.join("r3"))),
            _ => std::thread::sleep(Duration::from_micros(rng.u64(..3000))),
        }
    }
    Ok(())
}

/// The unit tests' directory may be on a tmpfs, which knew nothing of `O_DIRECT` before 6.6.
fn direct() -> OFlags {
    match cfg!(test) {
        true => OFlags::empty(),
        false => OFlags::DIRECT,
    }
}

impl Hand {
    fn work(&mut self) -> anyhow::Result<()> {
        fs::create_dir(&self.home).context("cannot make a hand's directory")?;
        for number in 0..DIRS {
            fs::create_dir(folder(&self.home, number))?;
        }
        fs::create_dir(self.home.join(NOISE))?;
        self.durable(&File::open(&self.home)?)?;
        self.durable(&File::open(self.home.parent().unwrap_or(&self.home))?)?;
        self.promise(0)?;
        for number in 1..=self.manner.steps {
            let step = step(self.seed, number);
            self.take(number, step)
                .with_context(|| format!("hand {} at step {number}, {step:?}", self.number))?;
            self.state.apply(number, step);
            self.promise(number)?;
            std::thread::sleep(Duration::from_micros(self.manner.pace));
        }
        Ok(())
    }

    /// Standard output is written line by line, whatever it is.
    fn promise(&self, number: u64) -> anyhow::Result<()> {
        Ok(writeln!(std::io::stdout(), "{} {number}", self.number)?)
    }

    fn durable(&self, file: &File) -> std::io::Result<()> {
        match self.manner.lie {
            true => Ok(()),
            false => Ok(fsync(file)?),
        }
    }

    fn durable_names(&self, dir: &Path) -> std::io::Result<()> {
        self.durable(&File::open(dir)?)
    }

    fn path_of(&self, slot: usize, placed: Placed) -> PathBuf {
        folder(&self.home, placed.dir).join(slot_name(slot))
    }

    fn take(&self, number: u64, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Replace { slot, dir } => {
                let dir = self.state.slots[slot].map_or(dir, |placed| placed.dir);
                let made = Placed { dir, made: number };
                let (path, dir) = (self.path_of(slot, made), folder(&self.home, dir));
                let draft = dir.join("draft");
                let mut file = File::create(&draft)?;
                file.write_all(&slot_content(self.seed, slot, number))?;
                if self.manner.vectors {
                    vectors::set(&file, &slot_vector(self.seed, slot, number))?;
                }
                self.durable(&file)?;
                fs::rename(draft, path)?;
                self.durable_names(&dir)?;
            }
            Step::Remove { slot } => {
                if let Some(placed) = self.state.slots[slot] {
                    fs::remove_file(self.path_of(slot, placed))?;
                    self.durable_names(&folder(&self.home, placed.dir))?;
                }
            }
            Step::Move { slot, dir } => {
                if let Some(placed) = self.state.slots[slot].filter(|placed| placed.dir != dir) {
                    let to = Placed { dir, ..placed };
                    fs::rename(self.path_of(slot, placed), self.path_of(slot, to))?;
                    self.durable_names(&folder(&self.home, dir))?;
                    self.durable_names(&folder(&self.home, placed.dir))?;
                }
            }
            Step::Patch {
                file,
                first,
                count,
                how,
            } => self.patch(number, file, first, count, how)?,
            Step::Noise => self.noise(number)?,
        }
        Ok(())
    }

    fn patch(
        &self,
        number: u64,
        file: usize,
        first: u64,
        count: u64,
        how: Durably,
    ) -> anyhow::Result<()> {
        let path = patched(&self.home, file);
        let flags = match how {
            Durably::Dsync if !self.manner.lie => OFlags::DSYNC,
            Durably::Direct => direct(),
            _ => OFlags::empty(),
        };
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags.bits() as i32)
            .open(&path)?;
        let content: Vec<u8> = (first..first + count)
            .flat_map(|block| block_content(self.seed, file, block, number))
            .collect();
        // O_DIRECT wants the memory aligned as well (open(2)).
        let mut room = vec![0; content.len() + BLOCK];
        let at = room.as_ptr().align_offset(BLOCK);
        room[at..at + content.len()].copy_from_slice(&content);
        opened.write_all_at(&room[at..at + content.len()], first * BLOCK as u64)?;
        if self.manner.lie {
            return Ok(());
        }
        match how {
            Durably::Fsync => fsync(&opened)?,
            Durably::Fdatasync | Durably::Direct => fdatasync(&opened)?,
            Durably::Dsync => {}
            Durably::Syncfs => syncfs(&opened)?,
        }
        // The name of a file that is new.
        self.durable_names(&self.home)?;
        Ok(())
    }

    /// Work beside the promises: what is under way when the power goes.
    fn noise(&self, number: u64) -> anyhow::Result<()> {
        let dir = self.home.join(NOISE);
        let mut rng = random(self.seed, &[6, number]);
        let name = dir.join(format!("n{}", rng.u32(..12)));
        match rng.u32(..6) {
            0 => {
                let mut file = OpenOptions::new().append(true).create(true).open(&name)?;
                file.write_all(&vec![7; rng.usize(..60_000)])?;
            }
            1 => OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&name)?
                .set_len(rng.u64(..200_000))?,
            // Whatever becomes of these, nobody counts on it.
            2 => ignore(fs::remove_file(&name)),
            3 => ignore(fs::rename(&name, dir.join("moved"))),
            4 => ignore(fs::hard_link(&name, dir.join(format!("link-{number}")))),
            _ => ignore(std::os::unix::fs::symlink("nowhere", dir.join("link"))),
        }
        Ok(())
    }
}

fn ignore(_: std::io::Result<()>) {}
