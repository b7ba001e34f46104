//! However the program ends, nothing of its machines is left within five seconds, and nobody has to
//! run another command for that.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Row, vexfs_images};

pub const TESTS: &[Row] = &[
    ("sigkill_during_boot", || {
        ended_by(Signal::SIGKILL, Moment::Boot)
    }),
    ("sigkill_during_a_check", || {
        ended_by(Signal::SIGKILL, Moment::Check)
    }),
    ("ctrl_c_during_a_check", || {
        ended_by(Signal::SIGINT, Moment::Check)
    }),
    ("sigterm_during_boot", || {
        ended_by(Signal::SIGTERM, Moment::Boot)
    }),
];

/// When the signal comes.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    Boot,
    Check,
}

/// Ends `vexfs-images exec` at that moment by that signal.
fn ended_by(signal: Signal, moment: Moment) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let mut child = vexfs_images(&[
        "exec",
        "minimal",
        "--",
        "sh",
        "-c",
        "echo under way; sleep 600",
    ])
    .env("VEXFS_RUN_DIR", dir.path())
    .stdout(Stdio::piped())
    .stderr(Stdio::inherit())
    .spawn()?;
    let begun = reached(&mut child, dir.path(), moment);
    let alive = below(dir.path());
    kill(Pid::from_raw(child.id() as i32), signal)?;
    child.wait()?;
    begun?;
    println!("running when the signal came: {alive:?}");
    if alive.len() < 2 {
        return Err("QEMU and its vsock daemon were not even running: nothing was proven".into());
    }
    let since = Instant::now();
    loop {
        let left = below(dir.path());
        let files = std::fs::read_dir(dir.path())?.count();
        if left.is_empty() && files == 0 {
            println!("all gone {:.2} s later", since.elapsed().as_secs_f64());
            return Ok(());
        }
        if since.elapsed() > Duration::from_secs(5) {
            return Err(format!("left after 5 s: {left:?}, {files} files").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the moment.
fn reached(child: &mut Child, dir: &Path, moment: Moment) -> Result<(), Failed> {
    let since = Instant::now();
    if moment == Moment::Check {
        let mut out = child.stdout.take().ok_or("no output")?;
        let mut said = [0; 9];
        out.read_exact(&mut said)?;
        assert_eq!(&said, b"under way");
        return Ok(());
    }
    while below(dir).len() < 2 {
        if since.elapsed() > Duration::from_secs(60) || child.try_wait()?.is_some() {
            return Err("no machine came up".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // In the middle of it, not at its first instruction.
    std::thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// Command lines of all living processes that name the folder.
fn below(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&dir) {
            found.push(line.chars().take(60).collect());
        }
    }
    found
}
