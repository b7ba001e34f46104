//! Running a program to its end as one step of a larger job: output to a log, last lines in the error.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Kept;

/// How many of the last lines of output an error repeats.
const TAIL: usize = 15;

/// Why a step did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The program could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program's name.
        program: String,
        /// What execve(2) or the log file said.
        source: io::Error,
    },
    /// The program ran and ended with an error.
    #[error("`{program}` ended with {status}; its last lines:\n{tail}\nwhole log: {}", log.display())]
    Ended {
        /// The program's name.
        program: String,
        /// Its exit status.
        status: ExitStatus,
        /// The last lines it printed.
        tail: String,
        /// Where all it printed is.
        log: PathBuf,
    },
}

/// Runs `command` to its end. All it prints, on both streams, is appended to `log` and handed line
/// by line to `on_line` (for progress); dropping the future kills the program.
///
/// # Errors
/// [`Failure::Start`] when it cannot be started, [`Failure::Ended`] for any exit but zero.
pub async fn run(command: Kept, log: &Path, mut on_line: impl FnMut(&str)) -> Result<(), Failure> {
    let program = Path::new(&command.program)
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let start = |source| Failure::Start {
        program: program.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(start)?;
    let (read, write) = io::pipe().map_err(start)?;
    let again = write.try_clone().map_err(start)?;
    let mut child = command
        .stdout(write)
        .stderr(again)
        .spawn()
        .await
        .map_err(start)?;
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(read.into()).map_err(start)?;
    let mut lines = BufReader::new(pipe);
    let mut tail = VecDeque::new();
    let mut bytes = Vec::new();
    let mut status = None;
    loop {
        // The end of the program ends the step even if something it left behind holds the pipe:
        // its keeper kills that, and then the pipe closes.
        tokio::select! {
            read = lines.read_until(b'\n', &mut bytes) => {
                if read.map_err(start)? == 0 && bytes.is_empty() {
                    break;
                }
                io::Write::write_all(&mut file, &bytes).map_err(start)?;
                let text = String::from_utf8_lossy(&bytes);
                let text = text.trim_end();
                on_line(text);
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(text.to_owned());
                bytes.clear();
            }
            ended = child.wait(), if status.is_none() => status = Some(ended.map_err(start)?),
        }
    }
    let status = match status {
        Some(status) => status,
        None => child.wait().await.map_err(start)?,
    };
    if status.success() {
        return Ok(());
    }
    let tail = Vec::from(tail).join("\n");
    Err(Failure::Ended {
        program,
        status,
        tail,
        log: log.to_owned(),
    })
}
