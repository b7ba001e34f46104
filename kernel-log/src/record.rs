//! The judge's input: lines of the guest's logs, and what QEMU said.
//!
//! Who speaks is the question that matters. A `/dev/kmsg` record carries a facility: the kernel's own is
//! 0, and `/dev/kmsg` gives every line written by user space another one (printk.c, `devkmsg_write`), so
//! that in kmsg nobody can pose as the kernel. On the serial console there is no such mark: a line with
//! printk's time stamp may come from either, and everybody may write there. See [`crate::judge`] for how
//! the one is checked against the other.

use std::time::Duration;

use agent_protocol::message::KmsgRecord;

use crate::show;

/// Longest line that is looked at, in bytes; printk's own limit is 1024 (`PRINTKRB_RECORD_MAX`).
pub const LINE_MAX: usize = 2048;

/// Where a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `/dev/kmsg`.
    Kmsg {
        /// The record's number; consecutive unless records were lost.
        sequence: u64,
        /// syslog(3) facility; 0 is the kernel, 3 is daemons such as systemd.
        facility: u16,
        /// syslog(3) level, 0 (emergency) to 7 (debug).
        level: u8,
    },
    /// The serial console.
    Console,
    /// QMP, or QEMU's end.
    Machine(MachineEvent),
}

/// What the guest did to the machine as a whole while the check ran. What the harness did to it (quit, kill,
/// reset on request) is not to be reported here, nor what the host did (an end of QEMU that the guest did
/// not bring about, a disk that failed): that says nothing of the kernel, and is no finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineEvent {
    /// QMP `GUEST_PANICKED` (pvpanic): true whatever the console shows.
    GuestPanicked,
    /// QMP `RESET` by the guest: a triple fault, a reboot nobody asked for.
    GuestReset,
    /// QMP `WATCHDOG`.
    WatchdogFired,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who handed it over.
    pub origin: Origin,
    /// The guest's time of it since its boot; absent for console lines without printk's stamp.
    pub at: Option<Duration>,
    /// The text, without prefix. A kmsg record may have several lines.
    pub text: String,
}

impl From<&KmsgRecord> for Record {
    fn from(record: &KmsgRecord) -> Record {
        let at = Duration::from_micros(record.time_us);
        let (sequence, facility) = (record.sequence, record.facility);
        Record::kmsg(sequence, facility, record.level, at, &record.text)
    }
}

impl Record {
    /// A record as the agent's kernel-log stream delivers it.
    pub fn kmsg(sequence: u64, facility: u16, level: u8, at: Duration, text: &str) -> Record {
        Record {
            origin: Origin::Kmsg {
                sequence,
                facility,
                level,
            },
            at: Some(at),
            text: plain(text),
        }
    }

    /// Parses one record in the format of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg):
    /// `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];TEXT`, control characters as `\xHH`. `None` for
    /// anything else, such as the ` KEY=value` lines that may follow a record.
    pub fn parse_kmsg(line: &str) -> Option<Record> {
        KmsgRecord::parse(line.as_bytes())
            .as_ref()
            .map(Record::from)
    }

    /// Parses a whole `/dev/kmsg` stream; lines that are no records are passed over.
    pub fn parse_kmsg_stream(stream: &str) -> Vec<Record> {
        stream.lines().filter_map(Record::parse_kmsg).collect()
    }

    /// Parses a log of whichever kind it is: a `/dev/kmsg` stream, what [`crate::show`] and `dmesg --raw`
    /// write, or else a console. The first line tells; golden logs, whose head is passed over, too.
    pub fn parse_log(log: &[u8]) -> Vec<Record> {
        let text = String::from_utf8_lossy(log);
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let first = lines.find(|line| !line.starts_with('#'));
        match first {
            Some(line) if Record::parse_kmsg(line).is_some() => Record::parse_kmsg_stream(&text),
            Some(line) if show::is_shown(line) => show::read(&text),
            _ => Record::parse_console(log),
        }
    }

    /// Takes serial console output apart: one record for each line, escape sequences and colours removed.
    /// Every byte sequence is accepted.
    pub fn parse_console(output: &[u8]) -> Vec<Record> {
        output
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .filter(|line| !line.is_empty())
            .map(|line| {
                Record::console(&String::from_utf8_lossy(&line[..line.len().min(LINE_MAX)]))
            })
            .collect()
    }

    /// One console line, with printk's stamp (`[    1.234567] `, perhaps a caller `[  T123] `) taken off
    /// and read. A kernel that speaks while a prompt waits has its stamp after the prompt.
    pub fn console(line: &str) -> Record {
        let text = plain(line);
        let stamped = stamp(&text).or_else(|| {
            let at = text.find(" [")?;
            let prompt = text.get(..at)?;
            (prompt.len() <= 80 && prompt.ends_with([':', '#', '$', '>', ')']))
                .then(|| stamp(&text[at + 1..]))
                .flatten()
        });
        match stamped {
            Some((at, rest)) => Record {
                origin: Origin::Console,
                at: Some(at),
                text: rest.to_owned(),
            },
            None => Record {
                origin: Origin::Console,
                at: None,
                text,
            },
        }
    }

    /// An event of the machine.
    pub fn event(event: MachineEvent) -> Record {
        Record {
            origin: Origin::Machine(event),
            at: None,
            text: String::new(),
        }
    }
}

/// Reads printk's prefix; the rest is the message.
pub(crate) fn stamp(text: &str) -> Option<(Duration, &str)> {
    let inside = text.strip_prefix('[')?;
    let (number, rest) = inside.split_once(']')?;
    let (seconds, micros) = number.trim_start().split_once('.')?;
    if micros.len() != 6 || seconds.is_empty() || seconds.len() > 9 {
        return None;
    }
    let seconds: u64 = digits(seconds)?;
    let micros: u64 = digits(micros)?;
    // CONFIG_PRINTK_CALLER: `[  T123]` for a task, `[    C0]` for a CPU.
    let rest = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        Some((caller, after))
            if caller
                .trim_start()
                .strip_prefix(['T', 'C'])
                .is_some_and(|n| digits(n).is_some()) =>
        {
            after
        }
        _ => rest,
    };
    let message = if rest.is_empty() {
        rest
    } else {
        rest.strip_prefix(' ')?
    };
    Some((
        Duration::from_secs(seconds) + Duration::from_micros(micros),
        message,
    ))
}

fn digits(text: &str) -> Option<u64> {
    (text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// Removes terminal control, so that both sources give the same text and a report is safe to show: CSI
/// and OSC sequences, other escapes, stray control characters.
pub(crate) fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
                _ => {}
            },
            '\t' | '\n' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kmsg_records_are_read() {
        let record = Record::parse_kmsg("30,511,4140345,-;systemd[1]: a\\x0ab \\x5c").unwrap();
        let origin = Origin::Kmsg {
            sequence: 511,
            facility: 3,
            level: 6,
        };
        assert_eq!(record.origin, origin);
        assert_eq!(record.at, Some(Duration::from_micros(4_140_345)));
        assert_eq!(record.text, "systemd[1]: a\nb \\");
        assert!(Record::parse_kmsg("6,1,2,-,caller=T1;x").is_some());
        for bad in ["", " SUBSYSTEM=pci", "x,1,2,-;t", "6,1;t", "6,1,2,-"] {
            assert_eq!(Record::parse_kmsg(bad), None, "{bad}");
        }
    }

    #[test]
    fn console_stamps_are_read() {
        let at = |line| Record::console(line).at.map(|at| at.as_micros());
        assert_eq!(at("[    1.234567] x"), Some(1_234_567));
        assert_eq!(at("[    1.234567][  T123] x"), Some(1_234_567));
        assert_eq!(at("[    1.234567]"), Some(1_234_567));
        assert_eq!(at("vexfs login: [   40.000001] BUG: x"), Some(40_000_001));
        for user in [
            "[ OK ] x",
            "[1.2] x",
            "[    1.234567]x",
            "echo [    1.234567] BUG: x",
            "x",
        ] {
            assert_eq!(at(user), None, "{user}");
        }
        assert_eq!(
            Record::console("[    1.234567][    C0]  frame").text,
            " frame"
        );
    }

    #[test]
    fn terminal_control_is_removed() {
        let records =
            Record::parse_console(b"\x1b[0;32m[  OK  ]\x1b[0m ok\r\n\x1b]0;t\x07a\0b\r\n\xff");
        let texts: Vec<_> = records.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(texts, ["[  OK  ] ok", "ab", "\u{fffd}"]);
    }
}
