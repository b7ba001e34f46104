//! Copying sparse files without touching their holes: disks here are gigabytes of nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Copies the data of `from` to `to`, shifted by `offset` bytes. Holes of `from` (lseek(2),
/// `SEEK_DATA`) are skipped: `to` must have nothing there yet.
pub(crate) fn copy(from: &File, to: &File, offset: u64) -> io::Result<()> {
    let end = i64::try_from(from.metadata()?.len()).map_err(io::Error::other)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < end {
        let data = match lseek(from, at, Whence::SeekData) {
            Ok(data) => data,
            // No data from here to the end.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = lseek(from, data, Whence::SeekHole)?;
        at = data;
        while at < hole {
            let want = usize::try_from(hole - at).map_or(buffer.len(), |n| n.min(buffer.len()));
            let position = at as u64;
            from.read_exact_at(&mut buffer[..want], position)?;
            // A block of zeros inside data (a fresh journal) need not take space either.
            if buffer[..want].iter().any(|byte| *byte != 0) {
                to.write_all_at(&buffer[..want], offset + position)?;
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
        let allocated = to.metadata().expect("metadata").blocks() * 512;
        assert!(allocated < 4 << 20, "{allocated} bytes allocated");
    }
}
