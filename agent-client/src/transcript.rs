//! What was asked of the guest, when, and what came of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Entries kept; the oldest go first.
const MOST_ENTRIES: usize = 4096;
/// Bytes of a program's output kept per stream and request: the end of it, where the reason is.
const MOST_OUTPUT: usize = 4096;

/// One request.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Entry {
    /// Time of day when it was sent.
    pub at: SystemTime,
    /// Since the connection was made.
    pub since: Duration,
    /// What was asked, in one line.
    pub request: String,
    /// What came of it, in one line; `None` while it is under way.
    pub outcome: Option<String>,
    /// How long it took, or has taken so far.
    pub took: Duration,
    /// The last of a program's standard output.
    pub stdout: String,
    /// The last of its standard error.
    pub stderr: String,
}

#[derive(Debug)]
struct Kept {
    connected: Instant,
    entries: VecDeque<Entry>,
    forgotten: usize,
}

/// The requests of one connection so far. Clones are the same transcript.
#[derive(Clone, Debug)]
pub struct Transcript(Arc<Mutex<Kept>>);

/// The line of a request under way. Dropped, it says that nobody waited for the end.
pub(super) struct Line {
    transcript: Transcript,
    number: usize,
    begun: Instant,
    ended: bool,
}

impl Transcript {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Kept {
            connected: Instant::now(),
            entries: VecDeque::new(),
            forgotten: 0,
        })))
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.with(|kept| kept.entries.iter().cloned().collect())
    }

    pub(super) fn begin(&self, request: String) -> Line {
        let number = self.with(|kept| {
            if kept.entries.len() == MOST_ENTRIES {
                kept.entries.pop_front();
                kept.forgotten += 1;
            }
            kept.entries.push_back(Entry {
                at: SystemTime::now(),
                since: kept.connected.elapsed(),
                request,
                outcome: None,
                took: Duration::ZERO,
                stdout: String::new(),
                stderr: String::new(),
            });
            kept.forgotten + kept.entries.len() - 1
        });
        Line {
            transcript: self.clone(),
            number,
            begun: Instant::now(),
            ended: false,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Line {
    /// Keeps the last of what a program wrote.
    pub(super) fn output(&self, stdout: &[u8], stderr: &[u8]) {
        self.edit(|entry| {
            append(&mut entry.stdout, stdout);
            append(&mut entry.stderr, stderr);
        });
    }

    pub(super) fn end(mut self, outcome: impl Into<String>) {
        self.close(outcome.into());
    }

    fn close(&mut self, outcome: String) {
        self.ended = true;
        let took = self.begun.elapsed();
        self.edit(|entry| {
            entry.outcome = Some(outcome);
            entry.took = took;
        });
    }

    fn edit(&self, change: impl FnOnce(&mut Entry)) {
        self.transcript.with(|kept| {
            let index = self.number.checked_sub(kept.forgotten);
            if let Some(entry) = index.and_then(|index| kept.entries.get_mut(index)) {
                change(entry);
            }
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            self.close("abandoned".to_owned());
        }
    }
}

fn append(kept: &mut String, bytes: &[u8]) {
    kept.push_str(&String::from_utf8_lossy(bytes));
    if kept.len() > MOST_OUTPUT {
        let mut from = kept.len() - MOST_OUTPUT;
        while !kept.is_char_boundary(from) {
            from += 1;
        }
        kept.drain(..from);
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, forgotten) = self.with(|kept| {
            (
                kept.entries.iter().cloned().collect::<Vec<_>>(),
                kept.forgotten,
            )
        });
        if forgotten > 0 {
            writeln!(f, "({forgotten} earlier requests forgotten)")?;
        }
        for entry in entries {
            let outcome = entry.outcome.as_deref().unwrap_or("under way");
            writeln!(
                f,
                "[{:9.3}] {} -> {outcome} ({:.3} s)",
                entry.since.as_secs_f64(),
                entry.request.escape_debug(),
                entry.took.as_secs_f64()
            )?;
            for line in entry.stdout.lines() {
                writeln!(f, "            | {line}")?;
            }
            for line in entry.stderr.lines() {
                writeln!(f, "            ! {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_the_oldest_and_keeps_the_end_of_long_output() {
        let transcript = Transcript::new();
        let first = transcript.begin("first".into());
        for _ in 0..MOST_ENTRIES {
            transcript.begin("ping".into()).end("pong");
        }
        // Its entry is gone; that must not touch another's.
        first.end("too late");
        let last = transcript.begin("exec yes".into());
        last.output("ä".repeat(MOST_OUTPUT).as_bytes(), b"reason\n");
        drop(last);

        let entries = transcript.entries();
        assert_eq!(entries.len(), MOST_ENTRIES);
        assert!(
            entries[..entries.len() - 1]
                .iter()
                .all(|e| e.outcome.as_deref() == Some("pong"))
        );
        let last = entries.last().unwrap();
        assert_eq!(last.outcome.as_deref(), Some("abandoned"));
        assert_eq!(last.stdout.len(), MOST_OUTPUT);
        let text = transcript.to_string();
        assert!(text.starts_with("(2 earlier requests forgotten)\n"));
        assert!(text.ends_with("            ! reason\n"));
    }
}
