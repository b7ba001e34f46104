//! A record of the kernel log, and the one parser of the format in which `/dev/kmsg` has it.

use serde::{Deserialize, Serialize};

/// One record of `/dev/kmsg` (kernel: Documentation/ABI/testing/dev-kmsg).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsgRecord {
    /// Sequence number, unique within a boot.
    pub sequence: u64,
    /// Microseconds since boot.
    pub time_us: u64,
    /// 0 is the kernel itself; everything else was written by user space and proves nothing.
    pub facility: u16,
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// `-` for a whole line, `c` for one that continues another.
    pub continuation: char,
    /// The line, escapes undone.
    pub text: String,
    /// `KEY=value` lines that follow it (`SUBSYSTEM=`, `DEVICE=`), joined by line feeds.
    pub properties: String,
}

impl KmsgRecord {
    /// One record as read from `/dev/kmsg`:
    /// `priority,sequence,microseconds,flag[,more];text\n[ KEY=value\n]...`, with `\xNN` escapes.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<KmsgRecord> {
        let text = String::from_utf8_lossy(record);
        let (prefix, rest) = text.split_once(';')?;
        let mut fields = prefix.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let sequence = fields.next()?.parse().ok()?;
        let time_us = fields.next()?.parse().ok()?;
        let continuation = fields.next()?.chars().next()?;
        let mut lines = rest.trim_end_matches('\n').split('\n');
        let text = unescape(lines.next()?);
        let properties: Vec<_> = lines
            .map(|line| unescape(line.strip_prefix(' ').unwrap_or(line)))
            .collect();
        Some(KmsgRecord {
            sequence,
            time_us,
            facility: u16::try_from(priority >> 3).ok()?,
            level: u8::try_from(priority & 7).expect("three bits"),
            continuation,
            text,
            properties: properties.join("\n"),
        })
    }

    /// Whether the kernel wrote it.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.facility == 0
    }

    /// What it adds to the weight of its event.
    #[must_use]
    pub fn weight(&self) -> usize {
        64 + self.text.len() + self.properties.len()
    }
}

fn unescape(line: &str) -> String {
    let mut plain = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = match (first, after) {
            (b'\\', [b'x', high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        plain.push(hex.unwrap_or(first));
        rest = if hex.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_told_from_those_of_user_space() {
        let kernel = KmsgRecord::parse(
            b"4,339,5140900,c;NET: Registered\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:00.0\n",
        )
        .unwrap();
        assert_eq!((kernel.sequence, kernel.time_us), (339, 5_140_900));
        assert_eq!(
            (kernel.facility, kernel.level, kernel.continuation),
            (0, 4, 'c')
        );
        assert_eq!(kernel.text, "NET: Registered");
        assert_eq!(kernel.properties, "SUBSYSTEM=pci\nDEVICE=+pci:0000:00:00.0");
        assert!(kernel.is_kernel());

        let forged =
            KmsgRecord::parse(b"12,340,5140901,-;BUG: kernel NULL pointer dereference\n").unwrap();
        assert_eq!((forged.facility, forged.level), (1, 4));
        assert!(!forged.is_kernel());
    }

    #[test]
    fn escapes_are_undone_and_lies_survived() {
        let record = KmsgRecord::parse(b"6,1,2,-,caller=T1;a\\x0ab\\x5cx41 \\x4\n").unwrap();
        assert_eq!(record.text, "a\nb\\x41 \\x4");
        for broken in [
            &b""[..],
            b";",
            b"6,1,2;x",
            b"x,1,2,-;y",
            b"6,1,2,-",
            b"99999999,1,2,-;x",
        ] {
            assert_eq!(
                KmsgRecord::parse(broken),
                None,
                "{:?}",
                broken.escape_ascii().to_string()
            );
        }
        assert_eq!(KmsgRecord::parse(b"6,1,2,-;").unwrap().text, "");
    }
}
