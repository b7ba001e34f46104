//! One session of `vexfs-images try --watch` from edit to edit, then single rounds of the same tree.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Row, planted, tree, vexfs_images};

pub const TESTS: &[Row] = &[("a_session", session), ("bad_input", bad_input)];

/// How long anything may take that is waited for, the boot of a snapshot and a whole build included.
const PATIENCE: Duration = Duration::from_secs(200);

/// A real change; each number another.
fn change(number: u32) -> String {
    format!("\tif (size == LLONG_MAX - {number})\n\t\treturn -EFBIG;")
}

fn session() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let run = tempfile::tempdir()?;
    let source = tree(dir.path())?;
    let file = source.join("file.c");
    let original = std::fs::read_to_string(&file)?;
    let name = source.to_string_lossy().into_owned();
    let mut child = vexfs_images(&["try", "--watch", "--smoke", "--vexfs-source", &name])
        .env("VEXFS_RUN_DIR", run.path())
        .env("VEXFS_KEEP", "none")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let told = told(&mut child, &original, &file);
    let alive = below(run.path());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
    let status = child.wait()?;
    told?;
    if status.code() != Some(130) {
        return Err(format!("ended with {status}, not 130").into());
    }
    if alive == 0 {
        return Err("no machine was waiting: that nothing is left proves nothing".into());
    }
    let since = Instant::now();
    while below(run.path()) > 0 || !left(run.path())?.is_empty() {
        if since.elapsed() > Duration::from_secs(5) {
            let files = left(run.path())?;
            let processes = commands(run.path());
            return Err(format!("left 5 s after Ctrl-C: {files:?} {processes:#?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    single(&name, &file, &original)
}

/// The session, edit by edit.
fn told(child: &mut Child, original: &str, file: &Path) -> Result<(), Failed> {
    let mut said = Said::of(child)?;
    said.until("waiting ", &["nothing was tested", "the image's own"])?;

    // By a rename, as many editors save.
    let (good, _) = planted(original, &change(1))?;
    let beside = file.with_extension("c.new");
    std::fs::write(&beside, &good)?;
    std::fs::rename(&beside, file)?;
    said.until("waiting ", &["file.c", "pass     smoke", "after the save"])?;

    std::fs::write(
        file,
        good.replace("return -EFBIG;", "return -EFBIG; /* too far */"),
    )?;
    said.until(
        "waiting ",
        &["nothing was tested", "file.c has changed", "smoke passed"],
    )?;

    let (broken, line) = planted(original, "\tint x = ;")?;
    std::fs::write(file, broken)?;
    said.until(
        "waiting ",
        &[&format!("file.c:{line}:"), "error: ", "FAIL "],
    )?;

    let null = "\tWRITE_ONCE(*(int *)8, 1);";
    let (null, line) = planted(original, null)?;
    std::fs::write(file, null)?;
    let place = format!("file.c:{line}: vexfs_write_checks");
    let found = said.until(
        "waiting ",
        &[
            "kernel   BUG: NULL pointer",
            &place,
            "FAIL     smoke during write",
        ],
    )?;
    // Said when it was found, not only with the verdict.
    let first = |word: &str| found.iter().position(|line| line.contains(word));
    assert!(first("kernel   BUG") < first("FAIL "), "{found:?}");

    let (good, _) = planted(original, &change(2))?;
    std::fs::write(file, good)?;
    said.until("waiting ", &["pass     smoke"])?;
    // The next fork is on its way.
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Single rounds, with their exit codes.
fn single(name: &str, file: &Path, original: &str) -> Result<(), Failed> {
    let run = |code: i32, words: &[&str]| -> Result<(), Failed> {
        let output = vexfs_images(&["try", "--smoke", "--vexfs-source", name])
            .env("VEXFS_KEEP", "none")
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{said}");
        match words.iter().find(|word| !said.contains(**word)) {
            _ if output.status.code() != Some(code) => {
                Err(format!("ended with {}, not {code}:\n{said}", output.status).into())
            }
            Some(word) => Err(format!("it does not say `{word}`:\n{said}").into()),
            None => Ok(()),
        }
    };
    run(
        3,
        &[
            "no change in the module: nothing was tested",
            "smoke passed",
        ],
    )?;
    let (broken, line) = planted(original, "\tnot C at all")?;
    std::fs::write(file, broken)?;
    run(1, &[&format!("file.c:{line}:"), "does not make the module"])?;
    let (refuses, _) = planted(original, &change(3))?;
    std::fs::write(file, refuses)?;
    let super_c = file.with_file_name("super.c");
    let text = std::fs::read_to_string(&super_c)?;
    let marked = text.replace(
        "\tvexfs_check_layout();\n",
        "\tvexfs_check_layout();\n\treturn -ENODEV;\n",
    );
    assert_ne!(
        text, marked,
        "super.c is not what this test was written for"
    );
    std::fs::write(&super_c, marked)?;
    run(
        1,
        &[
            "smoke during load",
            "the kernel does not take vexfs",
            "No such device",
        ],
    )
}

fn bad_input() -> Result<(), Failed> {
    let empty = tempfile::tempdir()?;
    let nowhere = empty.path().join("nowhere").to_string_lossy().into_owned();
    let none = empty.path().to_string_lossy().into_owned();
    let tinyfs = super::workspace().join("host-harness/tests/tinyfs");
    let tinyfs = tinyfs.to_string_lossy().into_owned();
    let rows: &[(&[&str], &str)] = &[
        (
            &["try", "--output-dir", &none],
            "run `cargo images build --variants minimal`",
        ),
        (
            &["try", "--vexfs-source", &nowhere],
            "there is no such folder",
        ),
        (
            &["try", "--check", "no_such_check"],
            "no check of a module is meant by `no_such_check`",
        ),
        (&["try", "--check", "boots_twice"], "boots the image itself"),
        (
            &["try", "--vexfs-source", &tinyfs],
            "build one of this tree first",
        ),
        (
            &["bisect", "--good", "HEAD", "--bad", "nonsense"],
            "there is no commit `nonsense`",
        ),
        (
            &["bisect", "--good", "HEAD", "--bad", "HEAD"],
            "are the same commit",
        ),
        (
            &["bisect", "--good", "a", "--bad", "b", "--check", "nothing"],
            "no check is meant by `nothing`",
        ),
        (
            &[
                "bisect",
                "--good",
                "a",
                "--bad",
                "b",
                "--vexfs-source",
                &none,
            ],
            "is in no git repository",
        ),
    ];
    for (arguments, words) in rows {
        let output = vexfs_images(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(2) || !said.contains(words) {
            let status = output.status;
            return Err(format!("{arguments:?}: {status}, not 2 with `{words}`:\n{said}").into());
        }
    }
    Ok(())
}

/// What a child says, line by line.
struct Said(Receiver<String>);

impl Said {
    fn of(child: &mut Child) -> Result<Said, Failed> {
        let stream = child.stderr.take().ok_or("no output")?;
        let (send, receive) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                println!("| {line}");
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Said(receive))
    }

    /// Waits for a line that begins with `end`; all the words must have been said by then.
    fn until(&mut self, end: &str, words: &[&str]) -> Result<Vec<String>, Failed> {
        let since = Instant::now();
        let mut lines: Vec<String> = Vec::new();
        loop {
            match self
                .0
                .recv_timeout(PATIENCE.saturating_sub(since.elapsed()))
            {
                Ok(line) => {
                    let over = line.starts_with(end);
                    lines.push(line);
                    if over {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("`{end}` was not said in time: {lines:#?}").into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("it ended: {lines:#?}").into());
                }
            }
        }
        let text = lines.join("\n");
        match words.iter().find(|word| !text.contains(**word)) {
            Some(word) => Err(format!("it does not say `{word}`:\n{text}").into()),
            None => Ok(lines),
        }
    }
}

/// Living processes that name the folder.
fn below(dir: &Path) -> usize {
    commands(dir).len()
}

/// What is in the folder but the tickets, which stay for whoever comes next.
fn left(dir: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(dir)?.flatten();
    let tickets = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("vexfs-tickets-");
    Ok(entries
        .filter(|entry| !tickets(&entry.file_name()))
        .map(|entry| entry.path())
        .collect())
}

/// Their command lines.
fn commands(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy().into_owned();
    let lines = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    lines
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&dir))
        .collect()
}
