//! Using a file system that may be damaged in every way there is, whatever it answers.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, getxattr, listxattr, setxattr};
use vexctl::vectors::{self, Metric};

/// Most names looked at: a damaged directory may lead in circles.
const MOST: usize = 600;
/// Deepest directory looked into.
const DEEPEST: usize = 12;

/// What a walk has come across.
#[derive(Default)]
pub struct Seen {
    /// Regular files.
    pub files: Vec<PathBuf>,
    /// Directories.
    pub dirs: Vec<PathBuf>,
    /// Operations that were answered with an error.
    pub errors: u64,
    /// Operations at all.
    pub operations: u64,
}

impl Seen {
    /// Counts an answer. Errors are allowed; not answering is not.
    fn answer<T, E>(&mut self, answer: Result<T, E>) -> Option<T> {
        self.operations += 1;
        self.errors += u64::from(answer.is_err());
        answer.ok()
    }

    /// Looks at everything below a directory.
    pub fn walk(&mut self, dir: &Path, depth: usize) {
        self.dirs.push(dir.to_owned());
        let Some(entries) = self.answer(fs::read_dir(dir)) else {
            return;
        };
        for entry in entries {
            if self.files.len() + self.dirs.len() > MOST {
                return;
            }
            let Some(path) = self.answer(entry).map(|entry| entry.path()) else {
                return;
            };
            let Some(meta) = self.answer(path.symlink_metadata()) else {
                continue;
            };
            let mut names = [0; 1024];
            self.answer(listxattr(&path, &mut names[..]));
            if meta.is_dir() {
                if depth < DEEPEST {
                    self.walk(&path, depth + 1);
                }
            } else if meta.is_symlink() {
                self.answer(fs::read_link(&path));
            } else if meta.is_file() {
                self.look(&path, meta.size());
                self.files.push(path);
            }
        }
    }

    fn look(&mut self, path: &Path, size: u64) {
        let Some(mut file) = self.answer(File::open(path)) else {
            return;
        };
        let mut value = [0; 2048];
        self.answer(getxattr(path, "user.colour", &mut value[..]));
        self.answer(vectors::get(&file));
        // A damaged size may be anything.
        let mut content = Vec::new();
        let beginning = Read::by_ref(&mut file).take(200_000);
        self.answer({ beginning }.read_to_end(&mut content));
        self.answer(file.read_at(&mut value, size.saturating_sub(100)));
        self.answer(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)));
        self.answer(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)));
    }

    /// Changes whatever can be changed.
    pub fn change(&mut self, top: &Path, rng: &mut fastrand::Rng) {
        let dirs = self.dirs.clone();
        for dir in [top].into_iter().chain(some(&dirs, rng, 3)) {
            self.change_in(dir);
        }
        let files = self.files.clone();
        for file in some(&files, rng, 6) {
            self.change_file(file, rng);
        }
        for metric in [Metric::Cosine, Metric::Euclidean] {
            if let Some(dir) = self.answer(File::open(top)) {
                self.answer(vectors::search(&dir, &[0.5; 8], metric, 5));
            }
        }
        if let Some(dir) = self.answer(File::open(top)) {
            self.answer(rustix::fs::syncfs(&dir));
        }
    }

    fn change_in(&mut self, dir: &Path) {
        let (new, moved, sub) = (dir.join("new"), dir.join("moved"), dir.join("sub"));
        if let Some(mut file) = self.answer(File::create(&new)) {
            self.answer(file.write_all(&[3; 10_000]));
            self.answer(vectors::set(&file, &[0.25; 8]));
            self.answer(fallocate(&file, FallocateFlags::empty(), 0, 50_000));
            self.answer(file.sync_all());
        }
        self.answer(setxattr(&new, "user.a", b"b", XattrFlags::empty()));
        self.answer(fs::rename(&new, &moved));
        self.answer(fs::hard_link(&moved, &new));
        self.answer(fs::create_dir(&sub));
        self.answer(std::os::unix::fs::symlink(
            "y/".repeat(90),
            sub.join("link"),
        ));
        self.answer(fs::remove_file(&moved));
        self.answer(fs::remove_dir_all(&sub));
    }

    fn change_file(&mut self, path: &Path, rng: &mut fastrand::Rng) {
        if let Some(file) = self.answer(OpenOptions::new().write(true).open(path)) {
            self.answer(file.write_all_at(&[5; 5000], rng.u64(..200_000)));
            self.answer(vectors::set(&file, &vec![0.5; rng.usize(1..3000)]));
            self.answer(file.set_len(rng.u64(..100_000)));
            self.answer(file.sync_data());
            if rng.bool() {
                self.answer(vectors::remove(&file));
            }
        }
        if rng.bool() {
            self.answer(fs::remove_file(path));
        }
    }
}

/// Some of a list, with luck different ones.
fn some<'a>(all: &'a [PathBuf], rng: &mut fastrand::Rng, count: usize) -> Vec<&'a Path> {
    (0..count.min(all.len()))
        .map(|_| all[rng.usize(..all.len())].as_path())
        .collect()
}
