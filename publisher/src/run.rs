//! Running a program for what it prints.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use keeper::Kept;

use crate::PublishError;

/// Lines of a program's complaint that an error repeats.
const TAIL: usize = 8;

/// Runs `command` to its end and returns what it printed on standard output. What it said on standard
/// error goes to `log`, and into the error when it failed.
pub(crate) async fn output(
    command: Kept,
    doing: &str,
    log: &Path,
) -> Result<Vec<u8>, PublishError> {
    let mut out = temporary()?;
    let copy = out
        .try_clone()
        .map_err(PublishError::io("open", "a temporary file"))?;
    into(command, copy, doing, log).await?;
    read_back(&mut out)
}

/// As [`output`], into a file.
pub(crate) async fn into(
    command: Kept,
    out: File,
    doing: &str,
    log: &Path,
) -> Result<(), PublishError> {
    let failed = |said: String| PublishError::Program {
        doing: doing.to_owned(),
        said,
    };
    let mut err = temporary()?;
    let copy = err
        .try_clone()
        .map_err(PublishError::io("open", "a temporary file"))?;
    let mut child = command
        .stdout(out)
        .stderr(copy)
        .spawn()
        .await
        .map_err(|error| failed(error.to_string()))?;
    let status = child
        .wait()
        .await
        .map_err(|error| failed(error.to_string()))?;
    let said = read_back(&mut err)?;
    note(log, doing, &said)?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Err(failed(match tail.trim() {
        "" => status.to_string(),
        tail => tail.to_owned(),
    }))
}

fn temporary() -> Result<File, PublishError> {
    tempfile::tempfile().map_err(PublishError::io("make", "a temporary file"))
}

fn read_back(file: &mut File) -> Result<Vec<u8>, PublishError> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(PublishError::io("read", "a program's output"))?;
    Ok(bytes)
}

/// Keeps what a program said, if anything.
fn note(log: &Path, doing: &str, said: &[u8]) -> Result<(), PublishError> {
    if said.is_empty() {
        return Ok(());
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .and_then(|mut file| {
            writeln!(file, "== {doing}")?;
            file.write_all(said)
        })
        .map_err(PublishError::io("write", log))
}
