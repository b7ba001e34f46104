//! Copying sparse files without touching their holes: disks here are gigabytes of nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use sha2::{Digest, Sha256};

/// Copies the data of `from` to `to`, shifted by `offset` bytes. Holes of `from` (lseek(2),
/// `SEEK_DATA`) are skipped: `to` must have nothing there yet.
///
/// # Errors
/// When either file says so.
pub fn copy(from: &File, to: &File, offset: u64) -> io::Result<()> {
    data(from, |position, bytes| {
        to.write_all_at(bytes, offset + position)
    })
}

/// SHA-256 in hex of length and data of a sparse file, each block with its place: the same for the same
/// content, wherever the file system has its holes. Not the digest of the file's bytes.
///
/// # Errors
/// When the file cannot be read.
pub fn digest(file: &File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(file.metadata()?.len().to_le_bytes());
    data(file, |position, bytes| {
        hasher.update(position.to_le_bytes());
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hex::encode(hasher.finalize()))
}

/// Size of the blocks in which files are read.
const BLOCK: usize = 1 << 16;

/// Hands over every block that is not all zeros, with its place. Blocks begin at multiples of their
/// size.
fn data(from: &File, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let end = i64::try_from(from.metadata()?.len()).map_err(io::Error::other)?;
    let mut buffer = vec![0; BLOCK];
    let zeros = [0; BLOCK];
    let mut at = 0;
    while at < end {
        let data = match lseek(from, at, Whence::SeekData) {
            Ok(data) => data,
            // No data from here to the end.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = lseek(from, data, Whence::SeekHole)?;
        at = at.max(data - data % BLOCK as i64);
        while at < hole {
            let want = usize::try_from(end - at).map_or(BLOCK, |n| n.min(BLOCK));
            let position = at as u64;
            from.read_exact_at(&mut buffer[..want], position)?;
            // A block of zeros inside data (a fresh journal) need not take space either.
            if buffer[..want] != zeros[..want] {
                take(position, &buffer[..want])?;
            }
            at += want as i64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn data_arrives_shifted_and_holes_stay_holes() {
        let from = tempfile::tempfile().expect("a file");
        from.set_len(64 << 20).expect("a length");
        from.write_all_at(b"first", 0).expect("a write");
        from.write_all_at(b"last", (64 << 20) - 4).expect("a write");
        let to = tempfile::tempfile().expect("a file");
        to.set_len(65 << 20).expect("a length");
        copy(&from, &to, 1 << 20).expect("a copy");
        let mut five = [0; 5];
        to.read_exact_at(&mut five, 1 << 20).expect("a read");
        assert_eq!(&five, b"first");
        let mut four = [0; 4];
        to.read_exact_at(&mut four, (65 << 20) - 4).expect("a read");
        assert_eq!(&four, b"last");
        let digest_of_copy = |file: &File| digest(file).expect("a digest");
        let dense = tempfile::tempfile().expect("a file");
        let mut bytes = vec![0; 64 << 20];
        from.read_exact_at(&mut bytes, 0).expect("a read");
        dense.write_all_at(&bytes, 0).expect("a write");
        assert_eq!(digest_of_copy(&from), digest_of_copy(&dense));
        dense.write_all_at(b"x", 9 << 20).expect("a write");
        assert_ne!(digest_of_copy(&from), digest_of_copy(&dense));
        let allocated = to.metadata().expect("metadata").blocks() * 512;
        assert!(allocated < 4 << 20, "{allocated} bytes allocated");
    }
}
