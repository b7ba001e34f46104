//! Lines of the kernel log for people, and back: `<6>[    1.234567] text`, as `dmesg --raw` writes them, with
//! the speaker named where it is not the kernel.

use std::time::Duration;

use agent_protocol::message::KmsgRecord;

use crate::record::{Record, plain, stamp};

/// What [`show`] puts before the words of everybody but the kernel.
pub(crate) const USER_SPACE: &str = "user space: ";

/// A record as a line, with its end.
pub fn show(record: &KmsgRecord) -> String {
    let (seconds, micros) = (record.time_us / 1_000_000, record.time_us % 1_000_000);
    let speaker = if record.is_kernel() { "" } else { USER_SPACE };
    format!(
        "<{}>[{seconds:5}.{micros:06}] {speaker}{}\n",
        record.level, record.text
    )
}

/// Whether a line looks like one of [`show`]'s.
pub(crate) fn is_shown(line: &str) -> bool {
    parse(line).is_some()
}

/// The records behind such lines. A line without the prefix belongs to the record before it. Of those who
/// are not the kernel it is no longer known who they are, unless dmesg wrote it down; and who writes line ends
/// into `/dev/kmsg` can pose as the kernel here, as nowhere else.
pub(crate) fn read(text: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for (number, line) in (0..).zip(text.lines()) {
        match (parse(line), records.last_mut()) {
            (Some((priority, at, text)), _) => {
                let (facility, text) = match (priority >> 3, text.strip_prefix(USER_SPACE)) {
                    (0, Some(theirs)) => (1, theirs),
                    (facility, _) => (facility, text),
                };
                let level = (priority & 7) as u8;
                records.push(Record::kmsg(number, facility, level, at, text));
            }
            (None, Some(before)) => {
                before.text.push('\n');
                before.text.push_str(&plain(line));
            }
            (None, None) => {}
        }
    }
    records
}

/// Priority, time and text.
fn parse(line: &str) -> Option<(u16, Duration, &str)> {
    let (priority, rest) = line.strip_prefix('<')?.split_once('>')?;
    let (at, text) = stamp(rest)?;
    Some((priority.parse().ok()?, at, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        let shown = |text: &str| {
            let record = KmsgRecord::parse(text.as_bytes()).expect("a record");
            show(&record)
        };
        let kernel = shown("4,1,1234567,-;WARNING: a\\x0ab");
        assert_eq!(kernel, "<4>[    1.234567] WARNING: a\nb\n");
        let forged = shown("12,2,1234568,-;BUG: x");
        assert_eq!(forged, "<4>[    1.234568] user space: BUG: x\n");
        let records = read(&format!(
            "{kernel}{forged}<30>[    2.000000] systemd[1]: y\n"
        ));
        let at = |micros| Duration::from_micros(micros);
        let expected = [
            Record::kmsg(0, 0, 4, at(1_234_567), "WARNING: a\nb"),
            Record::kmsg(2, 1, 4, at(1_234_568), "BUG: x"),
            Record::kmsg(3, 3, 6, at(2_000_000), "systemd[1]: y"),
        ];
        assert_eq!(records, expected);
        assert!(!is_shown("[    1.234567] x") && !is_shown("<x>[    1.234567] y"));
    }
}
