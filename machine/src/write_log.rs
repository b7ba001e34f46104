//! What a power cut leaves on a disk, worked out from the log of QEMU's `blklogwrites`.
//!
//! A disk may keep what it was given in a cache until it is told to flush, and writes what is in the
//! cache in any order. So after a cut everything before the last flush is there, and of what came later
//! any pieces may be. The log has every write and every flush, in the order the guest asked for them.
//! Its format is that of the kernel's dm-log-writes: a sector of head, then for each entry a sector
//! with four 64-bit numbers (first sector, sectors, flags, length) and the data.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a sector of the log, and of the disk.
const SECTOR: usize = 512;
/// What a disk writes as a whole or not at all, in bytes: the sector of today's disks, and our blocks.
const PIECE: usize = 4096;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const FLAGS: u64 = 0x1f;
/// Most sectors one request has (the kernel's limit for virtio-blk is far below).
const MOST_SECTORS: u64 = 1 << 17;

/// The writes to a disk, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteLog(Vec<Entry>);

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Place on the disk, in bytes.
    at: u64,
    flags: u64,
    data: Vec<u8>,
}

/// What a cut did to the writes after the last flush.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Flushes that were asked for.
    pub flushes: usize,
    /// Pieces of 4 KiB written for good.
    pub durable: usize,
    /// Pieces that were not flushed, and are there nevertheless.
    pub kept: usize,
    /// Pieces that are lost.
    pub lost: usize,
}

/// An entry's head, if this sector can be one.
fn head(sector: &[u8]) -> Option<(u64, u64, u64)> {
    let (numbers, rest) = sector.get(..SECTOR)?.split_at(32);
    let number = |n: usize| {
        let bytes = numbers[n * 8..n * 8 + 8].try_into().unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let (at, sectors, flags) = (number(0), number(1), number(2));
    let there = sectors > 0 || flags & FLUSH != 0;
    let sane = sectors <= MOST_SECTORS || flags & DISCARD != 0;
    let fits = flags & !FLAGS == 0 && number(3) == 0 && rest.iter().all(|byte| *byte == 0);
    (there && sane && fits && at < 1 << 40).then_some((at, sectors, flags))
}

impl WriteLog {
    /// Reads a log whose QEMU has ended, in whatever way.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> io::Result<WriteLog> {
        Ok(WriteLog::parse(&std::fs::read(path)?))
    }

    fn parse(log: &[u8]) -> WriteLog {
        let mut entries = Vec::new();
        let mut at = SECTOR;
        while at < log.len() {
            let Some((sector, sectors, flags)) = head(&log[at..]) else {
                // The room of an entry that was under way when QEMU was killed; later ones may be
                // whole, and a flush among them counts.
                at += SECTOR;
                continue;
            };
            let data = at + SECTOR;
            let length = match flags & DISCARD {
                0 => usize::try_from(sectors).unwrap_or(usize::MAX) * SECTOR,
                _ => 0,
            };
            let end = (data + length).min(log.len());
            entries.push(Entry {
                at: sector * SECTOR as u64,
                flags,
                data: log[data.min(end)..end].to_vec(),
            });
            at = data + length;
        }
        WriteLog(entries)
    }

    /// Applies to `disk`, which is as it was when the log began, what a cut at the log's end leaves.
    /// Without `flushes` the disk is one that says it has flushed and has not.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn cut(&self, disk: &File, rng: &mut fastrand::Rng, flushes: bool) -> io::Result<Cut> {
        let flush = |entry: &Entry| entry.flags & FLUSH != 0;
        let last = self.0.iter().rposition(flush).filter(|_| flushes);
        // Now nearly everything is lost, now nearly nothing: both find faults the other does not.
        let keep = [0.0, 0.1, 0.5, 0.9, 1.0][rng.usize(..5)];
        let mut cut = Cut {
            flushes: self.0.iter().filter(|entry| flush(entry)).count(),
            ..Cut::default()
        };
        for (number, entry) in self.0.iter().enumerate() {
            let durable = last.is_some_and(|last| number <= last) || entry.flags & FUA != 0;
            for (offset, piece) in (entry.at..).step_by(PIECE).zip(entry.data.chunks(PIECE)) {
                let there = durable || rng.f64() < keep;
                *match (durable, there) {
                    (true, _) => &mut cut.durable,
                    (_, true) => &mut cut.kept,
                    _ => &mut cut.lost,
                } += 1;
                if there {
                    disk.write_all_at(piece, offset)?;
                }
            }
        }
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log as QEMU writes it: writes of one piece each, `None` for a flush.
    fn log(entries: &[Option<(u64, u8)>]) -> Vec<u8> {
        let mut log = vec![1; SECTOR];
        for entry in entries {
            let mut sector = vec![0; SECTOR];
            let mut put = |n: usize, v: u64| sector[n * 8..][..8].copy_from_slice(&v.to_le_bytes());
            match entry {
                Some((piece, _)) => {
                    put(0, piece * 8);
                    put(1, 8);
                }
                None => put(2, FLUSH),
            }
            log.extend(sector);
            log.extend(entry.map_or(Vec::new(), |(_, fill)| vec![fill; PIECE]));
        }
        log
    }

    fn disk() -> File {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(8 * PIECE as u64).expect("a size");
        file
    }

    fn pieces(disk: &File) -> Vec<u8> {
        let byte = |n: u64| {
            let mut byte = [0];
            disk.read_exact_at(&mut byte, n * PIECE as u64)
                .expect("reads");
            byte[0]
        };
        (0..8).map(byte).collect()
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_may_go() {
        let entries = [
            Some((0, 1)),
            Some((1, 1)),
            None,
            Some((1, 2)),
            Some((2, 2)),
            Some((3, 2)),
        ];
        let log = WriteLog::parse(&log(&entries));
        let mut seen = [false; 2];
        for seed in 0..40 {
            let disk = disk();
            let cut = log
                .cut(&disk, &mut fastrand::Rng::with_seed(seed), true)
                .expect("cuts");
            let there = pieces(&disk);
            assert_eq!(there[0], 1, "flushed and lost");
            assert!(there[1] == 1 || there[1] == 2, "{there:?}");
            assert_eq!((cut.flushes, cut.durable, cut.kept + cut.lost), (1, 2, 3));
            seen[usize::from(there[2] == 2)] = true;
        }
        assert_eq!(seen, [true; 2], "the cut is always the same");
    }

    #[test]
    fn a_disk_that_does_not_flush_loses_what_was_flushed() {
        let log = WriteLog::parse(&log(&[Some((0, 1)), None]));
        let lost = (0..40).any(|seed| {
            let disk = disk();
            log.cut(&disk, &mut fastrand::Rng::with_seed(seed), false)
                .expect("cuts");
            pieces(&disk)[0] == 0
        });
        assert!(lost);
    }

    #[test]
    fn a_write_that_never_ended_does_not_hide_what_followed() {
        let whole = log(&[Some((0, 1)), Some((1, 1)), Some((2, 1)), None]);
        let mut torn = whole.clone();
        let second = SECTOR + SECTOR + PIECE;
        torn[second..second + SECTOR + PIECE].fill(0);
        let disk = disk();
        let parsed = WriteLog::parse(&torn);
        parsed
            .cut(&disk, &mut fastrand::Rng::with_seed(1), true)
            .expect("cuts");
        assert_eq!(pieces(&disk)[..3], [1, 0, 1]);
        // Cut off in the middle of an entry.
        assert_eq!(WriteLog::parse(&whole[..second + 100]).0.len(), 1);
    }
}
