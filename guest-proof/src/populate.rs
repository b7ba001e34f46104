//! A tree with every kind of metadata a file system has.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use vexctl::vectors;

/// Makes it. Vectors and attributes are set where the file system has them.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    make(dir).with_context(|| format!("cannot populate {}", dir.display()))
}

fn make(dir: &Path) -> anyhow::Result<()> {
    let d = dir.join("d");
    fs::create_dir_all(d.join("e/f"))?;
    fs::write(d.join("hello"), "hello\n")?;
    fs::hard_link(d.join("hello"), d.join("e/second"))?;
    with_vector(&d.join("hello"), 8)?;
    fs::write(d.join("two"), vec![2; 5000])?;
    with_vector(&d.join("two"), 4095)?;
    for n in 0..6 {
        let path = d.join(format!("e/f/v{n}"));
        fs::write(&path, [n])?;
        with_vector(&path, 8)?;
    }
    symlink("d/hello", dir.join("short"))?;
    symlink("x/".repeat(150), dir.join("long"))?;
    // Every second block only: more runs than fit into an inode.
    let frag = File::create(dir.join("frag"))?;
    for block in 0..24 {
        frag.write_all_at(&[block; 4096], u64::from(block) * 8192)?;
    }
    for (name, value) in [("user.colour", "green"), ("user.note", &"n".repeat(900))] {
        setxattr(
            dir.join("frag"),
            name,
            value.as_bytes(),
            XattrFlags::empty(),
        )?;
    }
    let many = dir.join("many");
    fs::create_dir(&many)?;
    for n in 0..150 {
        fs::write(many.join(format!("a-name-that-takes-some-room-{n}")), "")?;
    }
    for n in (0..150).step_by(7) {
        fs::remove_file(many.join(format!("a-name-that-takes-some-room-{n}")))?;
    }
    let node = |name: &str, kind, dev| mknodat(CWD, dir.join(name), kind, Mode::RUSR, dev);
    node("fifo", FileType::Fifo, 0)?;
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3))?;
    let mut big = File::create(dir.join("big"))?;
    big.write_all(&vec![9; 300_000])?;
    big.set_len(70_000)?;
    rustix::fs::syncfs(&big)?;
    Ok(())
}

fn with_vector(path: &Path, dims: usize) -> std::io::Result<()> {
    let vector: Vec<f32> = (0..dims).map(|n| n as f32 / 7.0 - 1.0).collect();
    vectors::set(&fs::OpenOptions::new().write(true).open(path)?, &vector)
}
