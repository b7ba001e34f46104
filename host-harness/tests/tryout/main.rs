//! The loop from an edit to a verdict, as its users meet it, and the search through history.

mod edits;
mod history;

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};

/// A named test.
type Row = (&'static str, fn() -> Result<(), Failed>);

fn main() {
    machine::hook();
    let rooms = [
        ("edits", edits::TESTS),
        ("history", history::TESTS),
        ("nightly", history::NIGHTLY),
    ];
    let trials = rooms.into_iter().flat_map(|(room, tests)| {
        tests
            .iter()
            .map(move |(name, test)| Trial::test(format!("{room}::{name}"), *test))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// `vexfs-images` with these arguments, in the checkout.
fn vexfs_images(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vexfs-images"));
    command.args(arguments).current_dir(workspace());
    command
}

/// A copy of the in-tree module's tree.
fn tree(to: &Path) -> Result<PathBuf, Failed> {
    let to = to.join("vexfs");
    copy(&workspace().join("vexfs"), &to)?;
    Ok(to)
}

fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// The line of the write path after which tests put their changes.
const AFTER: &str = "\tssize_t ret = generic_write_checks(iocb, from);\n";

/// `file.c` of a tree with something more in its write path, and the line of what was put there.
fn planted(original: &str, what: &str) -> Result<(String, usize), Failed> {
    let at = original
        .find(AFTER)
        .ok_or("file.c is not what this test was written for")?;
    let line = original[..at].lines().count() + 2;
    Ok((original.replace(AFTER, &format!("{AFTER}{what}\n")), line))
}
