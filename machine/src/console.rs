//! The guest's serial console: captured always, to a file with times, whatever comes.
//!
//! A guest under test may write anything: lines without end, control sequences, a flood. Lines are
//! cut, control characters written out, and the file and our memory of it are capped.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, watch};

use super::MachineEvent;

/// The longest line kept whole, in bytes of text; longer ones go on in the next line.
const LONGEST_LINE: usize = 4096;

/// The most a console log grows to on disk, in bytes.
const LARGEST_FILE: u64 = 64 << 20;

/// The most text of past lines kept in memory, in bytes.
const LARGEST_MEMORY: usize = 8 << 20;

/// One line of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Host time since the machine's start when its first byte came.
    pub at: Duration,
    /// The line without its end, control characters written out as `\x07`, colour codes dropped.
    pub text: String,
}

/// The console of one machine. Clones share it; it stays readable after the machine has gone.
#[derive(Debug, Clone)]
pub struct Console {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    end: watch::Receiver<bool>,
    write: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
}

/// A place in a console, to read on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

impl Mark {
    /// Before the first line.
    pub const START: Mark = Mark(0);
}

#[derive(Debug)]
struct State {
    splitter: Splitter,
    file: File,
    written: u64,
    hash: Sha256,
    lines: VecDeque<Line>,
    /// Number of lines that were kept once and have been forgotten.
    forgotten: u64,
    kept: usize,
    last: Instant,
}

impl Console {
    /// Captures what comes through `stream` into `path` until its end. `start` is the machine's
    /// time zero.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn capture(
        stream: UnixStream,
        path: &Path,
        start: Instant,
        events: broadcast::Sender<MachineEvent>,
    ) -> std::io::Result<Console> {
        let state = Arc::new(Mutex::new(State {
            splitter: Splitter::default(),
            file: File::create(path)?,
            written: 0,
            hash: Sha256::new(),
            lines: VecDeque::new(),
            forgotten: 0,
            kept: 0,
            last: Instant::now(),
        }));
        let (ended, end) = watch::channel(false);
        let (read, write) = stream.into_split();
        tokio::spawn(read_all(read, state.clone(), start, events, ended));
        Ok(Console {
            path: path.to_owned(),
            state,
            end,
            write: Arc::new(tokio::sync::Mutex::new(write)),
        })
    }

    /// The file: one line `[seconds] text` per line of the console.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last `count` lines, including one that has not ended yet (a prompt).
    pub fn tail(&self, count: usize) -> String {
        let state = self.state();
        let mut lines: Vec<String> = Vec::new();
        lines.extend(state.splitter.unfinished());
        let rest = count.saturating_sub(lines.len());
        let mut tail: Vec<String> = state
            .lines
            .iter()
            .rev()
            .take(rest)
            .rev()
            .map(|line| line.text.clone())
            .collect();
        tail.append(&mut lines);
        tail.join("\n")
    }

    /// The present end, for [`Console::since`].
    pub fn mark(&self) -> Mark {
        let state = self.state();
        Mark(state.forgotten + state.lines.len() as u64)
    }

    /// All lines that ended after `mark`, as far as they are remembered (the last 8 MiB; the file
    /// has more), and the mark after them.
    pub fn since(&self, mark: Mark) -> (Vec<Line>, Mark) {
        let state = self.state();
        let skip = mark.0.saturating_sub(state.forgotten) as usize;
        let lines: Vec<Line> = state.lines.iter().skip(skip).cloned().collect();
        (lines, Mark(state.forgotten + state.lines.len() as u64))
    }

    /// SHA-256 of what is in the file so far, in hex.
    pub fn digest(&self) -> String {
        hex::encode(self.state().hash.clone().finalize())
    }

    /// Waits until QEMU has closed the console; from then on the file does not change.
    pub async fn ended(&self) {
        // An error means that the reader is gone, which is an end too.
        self.end
            .clone()
            .wait_for(|ended| *ended)
            .await
            .map(drop)
            .unwrap_or_default();
    }

    /// Waits until nothing has come for as long as `quiet`, from now on; at most `limit`.
    pub async fn settled(&self, quiet: Duration, limit: Duration) {
        let begin = Instant::now();
        loop {
            let idle = self.state().last.max(begin).elapsed();
            if idle >= quiet || *self.end.borrow() || begin.elapsed() >= limit {
                return;
            }
            tokio::time::sleep(quiet - idle).await;
        }
    }

    /// Types into the console.
    ///
    /// # Errors
    /// When the machine is gone.
    pub async fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        tokio::io::AsyncWriteExt::write_all(&mut *self.write.lock().await, bytes).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_all(
    mut read: OwnedReadHalf,
    state: Arc<Mutex<State>>,
    start: Instant,
    events: broadcast::Sender<MachineEvent>,
    ended: watch::Sender<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = read.read(&mut buffer).await.unwrap_or(0);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last = Instant::now();
        let lines = match count {
            0 => state.splitter.finish().into_iter().collect(),
            count => state.splitter.feed(&buffer[..count], start.elapsed()),
        };
        state.keep(&lines);
        drop(state);
        for line in lines {
            // No receiver is no error: everything is in the file.
            events
                .send(MachineEvent::ConsoleLine(line))
                .map(drop)
                .unwrap_or_default();
        }
        if count == 0 {
            ended.send_replace(true);
            return;
        }
    }
}

impl State {
    fn keep(&mut self, lines: &[Line]) {
        let mut text = String::new();
        for line in lines {
            use std::fmt::Write as _;
            // Writing to a string cannot fail.
            writeln!(text, "[{:>10.3}] {}", line.at.as_secs_f64(), line.text).unwrap_or_default();
            self.kept += line.text.len();
            self.lines.push_back(line.clone());
        }
        while self.kept > LARGEST_MEMORY {
            let Some(line) = self.lines.pop_front() else {
                break;
            };
            self.kept -= line.text.len();
            self.forgotten += 1;
        }
        self.write(&text);
    }

    /// Appends to the file up to the cap. A file that cannot be written (disk full) ends there:
    /// the digest speaks of what is in it.
    fn write(&mut self, text: &str) {
        if text.is_empty() || self.written >= LARGEST_FILE {
            return;
        }
        let full = self.written + text.len() as u64 >= LARGEST_FILE;
        let note = format!("--- this log is capped at {} MiB ---\n", LARGEST_FILE >> 20);
        let text = if full { &note } else { text };
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => {
                self.hash.update(text.as_bytes());
                self.written = if full {
                    LARGEST_FILE
                } else {
                    self.written + text.len() as u64
                };
            }
            Err(_) => self.written = LARGEST_FILE,
        }
    }
}

/// Makes lines of bytes.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
    since: Duration,
    escape: Escape,
}

/// Where in a terminal control sequence (ECMA-48) we are.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Escape {
    #[default]
    Out,
    /// After ESC.
    Begun,
    /// After ESC and `[`; dropped up to the final byte.
    Sequence(u8),
}

impl Splitter {
    fn feed(&mut self, bytes: &[u8], at: Duration) -> Vec<Line> {
        let mut out = Vec::new();
        for &byte in bytes {
            self.escape = match (self.escape, byte) {
                (Escape::Out, 0x1b) => Escape::Begun,
                (Escape::Begun, b'[') => Escape::Sequence(0),
                (Escape::Sequence(length), 0x20..=0x3f) if length < 32 => {
                    Escape::Sequence(length + 1)
                }
                (Escape::Sequence(_), 0x40..=0x7e) => Escape::Out,
                (Escape::Out, byte) => {
                    self.plain(byte, at, &mut out);
                    Escape::Out
                }
                // Not a sequence after all: show what came.
                (_, byte) => {
                    self.plain(0x1b, at, &mut out);
                    self.plain(byte, at, &mut out);
                    Escape::Out
                }
            };
        }
        out
    }

    fn plain(&mut self, byte: u8, at: Duration, out: &mut Vec<Line>) {
        if self.line.is_empty() {
            self.since = at;
        }
        match byte {
            b'\r' => {}
            b'\n' => out.push(self.take()),
            byte => {
                self.line.push(byte);
                if self.line.len() >= LONGEST_LINE {
                    out.push(self.take());
                }
            }
        }
    }

    fn take(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.line);
        Line {
            at: self.since,
            text: printable(&bytes),
        }
    }

    fn finish(&mut self) -> Option<Line> {
        (!self.line.is_empty()).then(|| self.take())
    }

    fn unfinished(&self) -> Option<String> {
        (!self.line.is_empty()).then(|| printable(&self.line))
    }
}

/// Text that does nothing to a terminal: control characters and broken UTF-8 are written out.
fn printable(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let shown = match c {
                '\t' => out.write_char(c),
                c if c.is_ascii_control() => write!(out, "\\x{:02x}", c as u32),
                c if c.is_control() => write!(out, "{}", c.escape_unicode()),
                c => out.write_char(c),
            };
            // Writing to a string cannot fail.
            shown.unwrap_or_default();
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        for (at, chunk) in chunks.iter().enumerate() {
            out.extend(splitter.feed(chunk, Duration::from_secs(at as u64)));
        }
        out.extend(splitter.finish());
        out.into_iter()
            .map(|line| format!("{} {}", line.at.as_secs(), line.text))
            .collect()
    }

    #[test]
    fn a_line_has_the_time_of_its_first_byte() {
        assert_eq!(
            lines(&[b"one\r\ntw", b"o\nthree"]),
            ["0 one", "0 two", "1 three"]
        );
    }

    #[test]
    fn terminal_sequences_go_and_other_control_characters_show() {
        assert_eq!(
            lines(&[
                b"\x1b[2J\x1b[1;31mred\x1b[0m\x07\n",
                b"\x1bc\x1b[",
                b"K\xff\xc3\xa9\n"
            ]),
            ["0 red\\x07", "1 \\x1bc\\xff\u{e9}"]
        );
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = vec![b'x'; 3 * LONGEST_LINE + 1];
        let lengths: Vec<usize> = lines(&[&long]).iter().map(|l| l.len() - 2).collect();
        assert_eq!(lengths, [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 1]);
    }

    #[test]
    fn an_endless_escape_sequence_is_not_waited_for() {
        let mut bytes = b"\x1b[".to_vec();
        bytes.extend([b'1'; 100]);
        assert!(lines(&[&bytes])[0].ends_with(&"1".repeat(67)));
    }

    #[tokio::test]
    async fn the_file_the_digest_and_the_tail_agree() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let (events, mut receiver) = broadcast::channel(16);
        let console = Console::capture(ours, &path, Instant::now(), events).expect("captures");
        use tokio::io::AsyncWriteExt;
        theirs
            .write_all(b"first\nsecond\ngrub> ")
            .await
            .expect("write");
        while !console.tail(1).starts_with("grub") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(console.tail(2), "second\ngrub> ");
        let (seen, mark) = console.since(Mark::START);
        assert_eq!(seen.len(), 2);
        console.send(b"boot\n").await.expect("sends");
        let mut typed = [0; 5];
        AsyncReadExt::read_exact(&mut theirs, &mut typed)
            .await
            .expect("typed");
        assert_eq!(&typed, b"boot\n");
        drop(theirs);
        console.ended().await;
        let (rest, _) = console.since(mark);
        assert_eq!(rest[0].text, "grub> ");
        let file = std::fs::read(&path).expect("the file");
        assert_eq!(hex::encode(Sha256::digest(&file)), console.digest());
        assert_eq!(String::from_utf8_lossy(&file).lines().count(), 3);
        assert!(
            matches!(receiver.recv().await, Ok(MachineEvent::ConsoleLine(l)) if l.text == "first")
        );
    }

    #[tokio::test]
    async fn a_flood_is_capped_on_disk_and_in_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("console.log");
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let (events, _) = broadcast::channel(1);
        let console = Console::capture(ours, &path, Instant::now(), events).expect("captures");
        use tokio::io::AsyncWriteExt;
        let block = [b"y".repeat(1023), b"\n".to_vec()].concat().repeat(1024);
        for _ in 0..70 {
            theirs.write_all(&block).await.expect("write");
        }
        drop(theirs);
        console.ended().await;
        let size = std::fs::metadata(&path).expect("the file").len();
        assert!(size <= LARGEST_FILE, "{size}");
        assert!(size > LARGEST_FILE - (1 << 20), "{size}");
        assert!(console.state().kept <= LARGEST_MEMORY);
        assert_eq!(console.mark(), Mark(70 * 1024));
        let file = std::fs::read(&path).expect("the file");
        assert!(file.ends_with(b"--- this log is capped at 64 MiB ---\n"));
        assert_eq!(hex::encode(Sha256::digest(&file)), console.digest());
    }
}
