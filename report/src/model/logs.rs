//! What machines said, cut to a size that a page can carry, with the severity of each line.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::Link;

/// The most bytes of one log of a check that did not pass.
pub const MOST_OF_FAILED: usize = 192 << 10;
/// The most bytes of one log of a check that passed.
pub const MOST_OF_PASSED: usize = 48 << 10;
/// The most bytes of all logs on a page together; those of failures come first.
pub const MOST_OF_ALL: usize = 6 << 20;
/// The most bytes of a line.
const LINE: usize = 2000;
/// A line whose severity nobody said.
pub const UNKNOWN: char = '-';

/// A log.
#[derive(Debug, Clone, Serialize)]
pub struct Log {
    /// Its name in links.
    pub id: String,
    /// The check it is from.
    pub case: String,
    /// `kernel log`, `console`, `transcript`, `kernel report`, `last words`.
    pub what: String,
    /// Whether the check passed.
    pub passed: bool,
    /// How many lines are shown.
    pub lines: usize,
    /// How many lines were left out for size.
    pub left_out: usize,
    /// The whole of it.
    pub file: Option<Link>,
    /// The lines, joined.
    #[serde(skip)]
    pub text: String,
    /// For each line its syslog level, `0` to `7`, or `-`.
    #[serde(skip)]
    pub levels: String,
}

/// Levels of lines that the kernel log tells, by the line as the console has it.
pub(super) type Levels = HashMap<String, char>;

/// Splits `<5>[    0.1] text` as kernel logs are kept.
fn level(line: &str) -> (char, &str) {
    let parsed = line.strip_prefix('<').and_then(|rest| {
        let (number, text) = rest.split_once('>')?;
        let priority: u16 = number.parse().ok()?;
        Some((char::from(b'0' + (priority & 7) as u8), text))
    });
    parsed.unwrap_or((UNKNOWN, line))
}

/// What the kernel log says of the levels of its lines.
pub(super) fn levels(kernel_log: &str) -> Levels {
    let lines = kernel_log.lines().map(level);
    lines
        .filter(|(level, _)| *level != UNKNOWN)
        .map(|(level, text)| (text.to_owned(), level))
        .collect()
}

impl Log {
    /// A log whose lines say their level themselves, or not at all. `None` when it is empty.
    pub(super) fn new(case: &str, what: &str, passed: bool, text: &str) -> Option<Log> {
        Log::with(case, what, passed, text, &Levels::new())
    }

    /// A console: `[host time] [guest time] text`, whose levels the kernel log knows.
    pub(super) fn with(
        case: &str,
        what: &str,
        passed: bool,
        text: &str,
        known: &Levels,
    ) -> Option<Log> {
        let most = if passed {
            MOST_OF_PASSED
        } else {
            MOST_OF_FAILED
        };
        let all: Vec<&str> = text.lines().collect();
        // The end tells what happened; the beginning is the same every time.
        let mut room = most;
        let shown = all.iter().rev().take_while(|line| {
            let fits = room >= line.len().min(LINE);
            room = room.saturating_sub(line.len().min(LINE) + 1);
            fits
        });
        let first = all.len() - shown.count();
        let mut lines = Vec::new();
        let mut levels = String::new();
        for line in &all[first..] {
            let (level, text) = level(line);
            let level = match level {
                UNKNOWN => by_message(text, known),
                level => level,
            };
            levels.push(level);
            lines.push(plain(text));
        }
        (!lines.is_empty()).then(|| Log {
            id: String::new(),
            case: case.to_owned(),
            what: what.to_owned(),
            passed,
            lines: lines.len(),
            left_out: first,
            file: None,
            text: lines.join("\n"),
            levels,
        })
    }

    /// The same, from a file.
    pub(super) fn of_file(
        (case, what, passed): (&str, &str, bool),
        file: &Path,
        from: &Path,
        known: &Levels,
    ) -> Option<Log> {
        let bytes = std::fs::read(file).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let mut log = Log::with(case, what, passed, &text, known)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        log.file = Link::to(from, file, &name);
        Some(log)
    }
}

/// The console shows what the kernel log has, behind the host's clock.
fn by_message(line: &str, known: &Levels) -> char {
    let message = line.split_once("] ").map_or("", |(_, message)| message);
    known.get(message).copied().unwrap_or(UNKNOWN)
}

/// Without control characters, and cut: a guest can write anything.
fn plain(line: &str) -> String {
    let mut end = line.len().min(LINE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let mut out: String = line[..end]
        .chars()
        .map(|c| match c {
            '\t' => ' ',
            // Also what changes the direction of writing, so that no line can look like another.
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => {
                '\u{FFFD}'
            }
            c if c.is_control() => '\u{FFFD}',
            c => c,
        })
        .collect();
    if end < line.len() {
        out.push('…');
    }
    out
}

/// Cuts the list where the page would become too large; says what was left out.
pub(super) fn cap(logs: &mut Vec<Log>) -> Option<String> {
    logs.sort_by_key(|log| log.passed);
    let mut room = MOST_OF_ALL;
    let fits = logs.iter().take_while(|log| {
        let fits = room >= log.text.len();
        room = room.saturating_sub(log.text.len());
        fits
    });
    let keep = fits.count();
    let left_out = logs.len() - keep;
    logs.truncate(keep);
    for (number, log) in (1..).zip(logs.iter_mut()) {
        log.id = format!("log-{number}");
    }
    (left_out > 0).then(|| {
        format!(
            "{left_out} logs are left out: together they would take more than {} MiB on this page; \
             they are in out/logs/machines and in verdict.json beside each image",
            MOST_OF_ALL >> 20
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_from_the_line_or_from_the_kernel_log() {
        let kernel = "<5>[    0.100000] Linux\n<11>[    1.000000] user space: x\n<3>[    2.0] bad";
        let log = Log::new("c", "kernel log", true, kernel).expect("a log");
        assert_eq!(log.levels, "533");
        assert_eq!(log.text.lines().next(), Some("[    0.100000] Linux"));
        let console =
            "[     0.1] SeaBIOS\n[     4.8] [    0.100000] Linux\n[     9.9] [    2.0] bad";
        let log = Log::with("c", "console", true, console, &levels(kernel)).expect("a log");
        assert_eq!(log.levels, "-53");
        assert!(Log::new("c", "console", true, "").is_none());
    }

    #[test]
    fn what_a_guest_writes_is_cut_and_made_plain() {
        let long = "x".repeat(LINE * 3);
        let text = format!("esc \u{1b}[31m rtl \u{202e}\n{long}");
        let log = Log::new("c", "console", false, &text).expect("a log");
        assert!(!log.text.contains(['\u{1b}', '\u{202e}']));
        assert_eq!(
            log.text.lines().nth(1).map(str::len),
            Some(LINE + '…'.len_utf8())
        );
        let many = "0123456789\n".repeat(MOST_OF_PASSED / 10);
        let log = Log::new("c", "console", true, &many).expect("a log");
        assert!(log.text.len() <= MOST_OF_PASSED);
        assert_eq!(log.lines + log.left_out, MOST_OF_PASSED / 10);
        assert!(log.left_out > 0);
        // A passing check's logs go before a failing one's.
        let one = |passed| Log {
            passed,
            text: "x".repeat(MOST_OF_ALL / 2),
            ..log.clone()
        };
        let mut logs = vec![one(true), one(true), one(false)];
        let note = cap(&mut logs).expect("a note");
        assert!(note.starts_with("1 logs are left out"), "{note}");
        assert_eq!(
            logs.iter().map(|l| l.passed).collect::<Vec<_>>(),
            [false, true]
        );
    }
}
