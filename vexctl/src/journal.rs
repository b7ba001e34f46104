//! Reading a jbd2 journal as the kernel's recovery does, so that a file system can be checked as it
//! will be after its next mount (Linux `fs/jbd2/recovery.c`, `include/linux/jbd2.h`).
//!
//! The journal's own numbers are big-endian.

use crate::checksum::{crc32c, record};
use crate::ondisk::BLOCK_SIZE;
use std::collections::{BTreeMap, HashMap};

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPER_V2: u32 = 4;
const REVOKE: u32 = 5;
const INCOMPAT_64BIT: u32 = 2;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const TAG_ESCAPE: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;
const COMMIT_CHECKSUM: usize = 16;

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Its superblock is not one.
    #[error("the journal's superblock is damaged")]
    Super,
    /// A block of it cannot be read.
    #[error(transparent)]
    Read(#[from] crate::image::Flaw),
}

fn word(block: &[u8], at: usize) -> u32 {
    block
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

struct Log<'a> {
    read: &'a dyn Fn(u32) -> Result<Vec<u8>, crate::image::Flaw>,
    first: u32,
    length: u32,
    features: u32,
    seed: u32,
}

/// What one transaction holds: blocks written, and blocks revoked.
#[derive(Default)]
struct Transaction {
    writes: Vec<(u64, u32, bool)>,
    revokes: Vec<u64>,
}

impl Log<'_> {
    fn next(&self, at: u32, by: u32) -> u32 {
        let at = at + by;
        if at >= self.length {
            at - self.length + self.first
        } else {
            at
        }
    }

    /// The tags of a descriptor: home block, and whether its first word was escaped.
    fn tags(&self, block: &[u8]) -> Vec<(u64, bool)> {
        let v3 = self.features & INCOMPAT_CSUM_V3 != 0;
        let size = match (v3, self.features & INCOMPAT_64BIT != 0) {
            (true, _) => 16,
            (_, true) => 12,
            _ => 8,
        };
        let (mut at, mut tags) = (12, Vec::new());
        while at + size <= BLOCK_SIZE - 4 {
            let flags = if v3 {
                word(block, at + 4)
            } else {
                word(block, at + 4) & 0xffff
            };
            tags.push((u64::from(word(block, at)), flags & TAG_ESCAPE != 0));
            at += size + if flags & TAG_SAME_UUID == 0 { 16 } else { 0 };
            if flags & TAG_LAST != 0 {
                break;
            }
        }
        tags
    }

    fn revoked(&self, block: &[u8]) -> Vec<u64> {
        let size = if self.features & INCOMPAT_64BIT != 0 {
            8
        } else {
            4
        };
        let end = (word(block, 12) as usize).min(BLOCK_SIZE);
        (16..end)
            .step_by(size)
            .map(|at| u64::from(word(block, at + size - 4)))
            .collect()
    }

    fn commit_is_whole(&self, block: &[u8]) -> bool {
        self.features & INCOMPAT_CSUM_V3 == 0
            || word(block, COMMIT_CHECKSUM) == record(self.seed, block, COMMIT_CHECKSUM)
    }

    /// One transaction from `at`; `None` if it was never finished.
    fn transaction(
        &self,
        at: &mut u32,
        sequence: u32,
    ) -> Result<Option<Transaction>, JournalError> {
        let mut found = Transaction::default();
        let mut seen = 0;
        while seen < self.length {
            let block = (self.read)(*at)?;
            if word(&block, 0) != MAGIC || word(&block, 8) != sequence {
                return Ok(None);
            }
            *at = self.next(*at, 1);
            seen += 1;
            match word(&block, 4) {
                DESCRIPTOR => {
                    for (home, escaped) in self.tags(&block) {
                        found.writes.push((home, *at, escaped));
                        *at = self.next(*at, 1);
                        seen += 1;
                    }
                }
                REVOKE => found.revokes.extend(self.revoked(&block)),
                COMMIT => return Ok(self.commit_is_whole(&block).then_some(found)),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// The blocks a replay would write, by their home; empty if the journal is.
///
/// `read` gives a block of the journal by its place in it.
///
/// # Errors
/// [`JournalError`] if the journal makes no sense or cannot be read.
pub fn replay(
    read: &dyn Fn(u32) -> Result<Vec<u8>, crate::image::Flaw>,
    blocks: u32,
) -> Result<BTreeMap<u64, Vec<u8>>, JournalError> {
    let head = read(0)?;
    let (first, length) = (word(&head, 20), word(&head, 16));
    if word(&head, 0) != MAGIC || word(&head, 4) != SUPER_V2 || length > blocks || first >= length {
        return Err(JournalError::Super);
    }
    let seed = crc32c(!0, &head[48..64]);
    let log = Log {
        read,
        first,
        length,
        features: word(&head, 40),
        seed,
    };
    let (mut at, mut sequence) = (word(&head, 28), word(&head, 24));
    if at != 0 && !(first..length).contains(&at) {
        return Err(JournalError::Super);
    }
    let mut done = Vec::new();
    while at != 0 {
        let Some(transaction) = log.transaction(&mut at, sequence)? else {
            break;
        };
        done.push(transaction);
        sequence = sequence.wrapping_add(1);
    }
    // A revoke cancels the copies in its own and in earlier transactions.
    let mut revoked: HashMap<u64, usize> = HashMap::new();
    for (number, transaction) in done.iter().enumerate() {
        revoked.extend(transaction.revokes.iter().map(|&home| (home, number)));
    }
    let mut result = BTreeMap::new();
    for (number, transaction) in done.iter().enumerate() {
        for &(home, place, escaped) in &transaction.writes {
            if revoked.get(&home).is_some_and(|&last| last >= number) {
                continue;
            }
            let mut data = read(place)?;
            if escaped {
                data[..4].copy_from_slice(&MAGIC.to_be_bytes());
            }
            result.insert(home, data);
        }
    }
    Ok(result)
}

/// The journal's superblock as it is when the journal is empty.
pub fn mark_empty(head: &mut [u8]) {
    head[28..32].fill(0);
    let sequence = word(head, 24).wrapping_add(1 << 16);
    head[24..28].copy_from_slice(&sequence.to_be_bytes());
    if word(head, 40) & INCOMPAT_CSUM_V3 != 0 {
        let sum = record(!0, &head[..1024], 0xfc);
        head[0xfc..0x100].copy_from_slice(&sum.to_be_bytes());
    }
}
