//! The program as its users meet it when things go wrong: bad input gets one clear sentence and a
//! non-zero exit, and however it ends, nothing of it is left.

mod bad_input;
mod caches;
mod delivery;
mod leftovers;
mod nightly;
mod perf;
mod report;
mod template;
mod tinyfs;
mod twice;
mod verdict;
mod workflows;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    machine::hook();
    let mut trials = Vec::new();
    for (name, test) in bad_input::TESTS {
        trials.push(Trial::test(format!("bad_input::{name}"), *test));
    }
    for (name, test) in delivery::TESTS {
        trials.push(Trial::test(format!("delivery::{name}"), *test));
    }
    for (name, test) in caches::TESTS {
        trials.push(Trial::test(format!("caches::{name}"), *test));
    }
    for (name, test) in nightly::TESTS {
        trials.push(Trial::test(format!("nightly::{name}"), *test));
    }
    for (name, test) in leftovers::TESTS {
        trials.push(Trial::test(format!("leftovers::{name}"), *test));
    }
    for (name, test) in report::TESTS {
        trials.push(Trial::test(format!("report::{name}"), *test));
    }
    for (name, test) in perf::TESTS {
        trials.push(Trial::test(format!("perf::{name}"), *test));
    }
    for (name, test) in perf::NIGHTLY {
        trials.push(Trial::test(format!("nightly_gate::{name}"), *test));
    }
    for (name, test) in template::TESTS {
        trials.push(Trial::test(format!("template::{name}"), *test));
    }
    for (name, test) in tinyfs::TESTS {
        trials.push(Trial::test(format!("tinyfs::{name}"), *test));
    }
    for (name, test) in twice::TESTS {
        trials.push(Trial::test(format!("twice::{name}"), *test));
    }
    for (name, test) in verdict::TESTS {
        trials.push(Trial::test(format!("verdict::{name}"), *test));
    }
    for (name, test) in workflows::TESTS {
        trials.push(Trial::test(format!("workflows::{name}"), *test));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A named test.
type Row = (&'static str, fn() -> Result<(), Failed>);

/// `vexfs-images` with these arguments.
fn vexfs_images(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vexfs-images"));
    command.args(arguments).current_dir(workspace());
    command
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// Where `ci/test` has put the image: tests of failures must not spoil it, so they read it only.
fn out() -> PathBuf {
    workspace().join("out")
}

/// Runs to the end and expects this exit code and these words on standard error.
fn expect(mut command: Command, code: i32, words: &[&str]) -> Result<Output, Failed> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    if output.status.code() != Some(code) {
        return Err(format!("ended with {}, not {code}", output.status).into());
    }
    match words.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(format!("it does not say `{word}`:\n{said}").into()),
        None => Ok(output),
    }
}

/// Copies a folder; the copies can be written to.
fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let mode = fs::metadata(&target)?.permissions().mode() | 0o200;
            fs::set_permissions(&target, PermissionsExt::from_mode(mode))?;
        }
    }
    Ok(())
}
