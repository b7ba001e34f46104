//! One sequence of lines from all sources, each line once, each with its speaker.
//!
//! The serial console repeats what kmsg has. Where kmsg is complete it alone counts: it knows who spoke.
//! The console counts for what kmsg cannot have: what came before its first record and after its last
//! (the agent dies with the machine, the console does not), and what was lost in between. So neither a
//! program that writes an oops to `/dev/kmsg`, nor one that writes it to the console with a plausible
//! stamp, is taken for the kernel while kmsg covers that time.
//!
//! A guest that rebooted has lived the same times twice. Then kmsg covers nothing, and only lines that are
//! the same in both sources are taken for one: rather a forged finding than a hidden one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::record::{LINE_MAX, MachineEvent, Origin, Record};
use super::rule::Speaker;

/// How far from the ends of a covered time a console line may still be one that kmsg missed: stamps are
/// taken before records get their numbers, so that neighbours can be out of order.
const SLACK: Duration = Duration::from_millis(10);

/// A console stamp this far behind an earlier one is another boot's.
const BACKWARDS: Duration = Duration::from_secs(1);

/// syslog(3) `LOG_DAEMON`: systemd and its tools.
const DAEMON: u16 = 3;

/// A line with its speaker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub at: Option<Duration>,
    pub speaker: Speaker,
    pub level: Option<u8>,
    pub source: &'static str,
    pub text: &'a str,
}

/// All lines in order, and the machine's events.
pub(super) fn timeline(records: &[Record]) -> (Vec<Line<'_>>, Vec<MachineEvent>) {
    let (kmsg, kmsg_is_one) = kmsg(records);
    let covered = match kmsg_is_one && console_is_one(records) {
        true => covered(&kmsg),
        false => Vec::new(),
    };
    let known: HashSet<(Duration, &str)> = kmsg
        .iter()
        .flat_map(|(_, r)| {
            r.text
                .lines()
                .map(|t| (r.at.unwrap_or_default(), t.trim_end()))
        })
        .collect();

    let mut lines: Vec<Line<'_>> = kmsg
        .iter()
        .flat_map(|(_, record)| kmsg_lines(record))
        .collect();
    let mut events = Vec::new();
    let mut console = Vec::new();
    // A console line without a stamp belongs to the time of the one before it.
    let mut now = Duration::ZERO;
    for record in records {
        match record.origin {
            Origin::Kmsg { .. } => {}
            Origin::Machine(event) => events.push(event),
            Origin::Console => {
                now = record.at.unwrap_or(now);
                let repeated = record.at.is_some_and(|at| {
                    known.contains(&(at, record.text.trim_end()))
                        || covered.iter().any(|(from, to)| (*from..=*to).contains(&at))
                });
                if !repeated {
                    console.extend(console_line(record).map(|line| (now, line)));
                }
            }
        }
    }
    if lines.is_empty() {
        return (console.into_iter().map(|(_, line)| line).collect(), events);
    }
    merge(&mut lines, console);
    (lines, events)
}

/// The kmsg records, each once (a stream that was opened twice hands them out twice), and whether all are
/// of one boot: after a reboot numbers begin anew, with other content.
fn kmsg(records: &[Record]) -> (Vec<(u64, &Record)>, bool) {
    let mut first: HashMap<u64, &Record> = HashMap::new();
    let mut seen: HashSet<(u64, Option<Duration>, &str)> = HashSet::new();
    let mut out = Vec::new();
    let mut one_boot = true;
    for record in records {
        let Origin::Kmsg { sequence, .. } = record.origin else {
            continue;
        };
        if seen.insert((sequence, record.at, &record.text)) {
            one_boot &= first.insert(sequence, record).is_none();
            out.push((sequence, record));
        }
    }
    (out, one_boot)
}

/// Whether the console's stamps never go back by more than neighbours may be out of order.
fn console_is_one(records: &[Record]) -> bool {
    let mut latest = Duration::ZERO;
    records
        .iter()
        .filter(|record| record.origin == Origin::Console)
        .all(|record| {
            let at = record.at.unwrap_or(latest);
            let forward = at + BACKWARDS >= latest;
            latest = latest.max(at);
            forward
        })
}

/// The times for which kmsg has every record: runs of consecutive numbers, less the slack at their ends.
fn covered(kmsg: &[(u64, &Record)]) -> Vec<(Duration, Duration)> {
    kmsg.chunk_by(|(one, _), (next, _)| one + 1 == *next)
        .filter_map(|run| {
            let from = run.first()?.1.at? + SLACK;
            let to = run.last()?.1.at?.saturating_sub(SLACK);
            (from <= to).then_some((from, to))
        })
        .collect()
}

fn kmsg_lines(record: &Record) -> impl Iterator<Item = Line<'_>> {
    let speaker = match record.origin {
        Origin::Kmsg {
            facility: 0, level, ..
        } => Some((Speaker::Kernel, level)),
        Origin::Kmsg {
            facility: DAEMON,
            level,
            ..
        } if record.text.starts_with("systemd") => Some((Speaker::Systemd, level)),
        _ => None,
    };
    record.text.lines().filter_map(move |text| {
        let (speaker, level) = speaker?;
        Some(Line {
            at: record.at,
            speaker,
            level: Some(level),
            source: "kmsg",
            text: cap(text),
        })
    })
}

/// With a stamp it is printk's: the kernel's own words, or `NAME[PID]: …` of a daemon that used it.
fn console_line(record: &Record) -> Option<Line<'_>> {
    let text = cap(&record.text);
    let speaker = match record.at {
        None => Speaker::Console,
        Some(_) if text.starts_with("systemd") => Speaker::Systemd,
        Some(_) => Speaker::Kernel,
    };
    Some(Line {
        at: record.at,
        speaker,
        level: None,
        source: "console",
        text,
    })
}

/// Puts console lines where their time belongs among kmsg's, keeping both orders.
fn merge<'a>(lines: &mut Vec<Line<'a>>, console: Vec<(Duration, Line<'a>)>) {
    let kmsg = std::mem::take(lines);
    let mut console = console.into_iter().peekable();
    for line in kmsg {
        let at = line.at.unwrap_or_default();
        while let Some((_, earlier)) = console.next_if(|(when, _)| *when < at) {
            lines.push(earlier);
        }
        lines.push(line);
    }
    lines.extend(console.map(|(_, line)| line));
}

/// The line, cut at the limit.
fn cap(text: &str) -> &str {
    let mut end = text.len().min(LINE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
