//! Copying guest memory, which is a file that is mostly holes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::{Whence, lseek};

/// Bytes copied in one go: fits the second-level cache, so that each byte crosses memory once on
/// its way in and once on its way out.
const PIECE: u64 = 256 << 10;

/// Granularity at which zeros are left out.
const PAGE: usize = 4096;

/// What to do with pages that hold only zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zeros {
    /// Copy them like others; looking costs time.
    Copy,
    /// Leave holes.
    Skip,
}

/// Makes `to` (mode 0600, on any file system) with `length` bytes of holes.
pub(super) fn create(to: &Path, length: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    file.set_len(length)?;
    Ok(file)
}

/// Copies the data of `from` into `to`, which has the same length and is all holes, with `threads`
/// threads. Returns the number of bytes written.
pub(super) fn copy(from: &File, to: &File, zeros: Zeros, threads: usize) -> io::Result<u64> {
    let pieces = pieces(from)?;
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<u64> {
        let mut buffer = vec![0; PIECE as usize];
        let mut written = 0;
        while let Some((offset, length)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = &mut buffer[..*length as usize];
            from.read_exact_at(bytes, *offset)?;
            written += match zeros {
                Zeros::Copy => to.write_all_at(bytes, *offset).map(|()| *length)?,
                Zeros::Skip => write_nonzero(to, bytes, *offset)?,
            };
        }
        Ok(written)
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut written = work()?;
        for helper in helpers {
            written += helper
                .join()
                .map_err(|_| io::Error::other("a copying thread panicked"))??;
        }
        Ok(written)
    })
}

/// Copies a whole file, leaving holes where it has zeros, into `to`, which must not exist (mode 0600). Returns
/// the bytes written.
///
/// # Errors
/// Those of reading and writing.
pub fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let from = File::open(from)?;
    let to = create(to, from.metadata()?.len())?;
    copy(&from, &to, Zeros::Skip, 1)
}

/// Writes the runs of pages that are not all zero.
fn write_nonzero(to: &File, bytes: &[u8], offset: u64) -> io::Result<u64> {
    let mut written = 0;
    let mut start = None;
    let pages = bytes.len().div_ceil(PAGE);
    for page in 0..=pages {
        let at = page * PAGE;
        let data = page < pages
            && bytes[at..bytes.len().min(at + PAGE)]
                .iter()
                .any(|b| *b != 0);
        match (start, data) {
            (None, true) => start = Some(at),
            (Some(begin), false) => {
                let run = &bytes[begin..bytes.len().min(at)];
                to.write_all_at(run, offset + begin as u64)?;
                written += run.len() as u64;
                start = None;
            }
            _ => {}
        }
    }
    Ok(written)
}

/// The data of a file as offsets and lengths of at most [`PIECE`] (lseek(2), `SEEK_DATA`).
fn pieces(file: &File) -> io::Result<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    loop {
        let data = match lseek(file, at, Whence::SeekData) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(nix::Error::ENXIO) => return Ok(pieces),
            Err(error) => return Err(error.into()),
        };
        let end = lseek(file, data, Whence::SeekHole)?;
        let (mut offset, end_offset) = (data as u64, end as u64);
        while offset < end_offset {
            let length = PIECE.min(end_offset - offset);
            pieces.push((offset, length));
            offset += length;
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const LENGTH: u64 = 8 << 20;

    /// 8 MiB of holes with data at both ends and in the middle, some of it zeros.
    fn memory(dir: &Path) -> File {
        let file = create(&dir.join("from"), LENGTH).expect("creates");
        let noise: Vec<u8> = (0..3 * PIECE as usize + 100)
            .map(|i| (i % 251) as u8 | 1)
            .collect();
        file.write_all_at(&noise, 0).expect("writes");
        file.write_all_at(&vec![0; 64 * PAGE], 3 << 20)
            .expect("writes");
        file.write_all_at(&noise[..PAGE], (3 << 20) + 5 * PAGE as u64)
            .expect("writes");
        file.write_all_at(&noise[..777], LENGTH - 777)
            .expect("writes");
        file
    }

    #[test]
    fn a_copy_is_equal_and_as_sparse() {
        let dir = tempfile::tempdir().expect("a directory");
        let from = memory(dir.path());
        let content = std::fs::read(dir.path().join("from")).expect("reads");
        let mut sizes = Vec::new();
        for (name, zeros, threads) in [
            ("one", Zeros::Copy, 1),
            ("three", Zeros::Copy, 3),
            ("skip", Zeros::Skip, 2),
        ] {
            let to = create(&dir.path().join(name), LENGTH).expect("creates");
            let written = copy(&from, &to, zeros, threads).expect("copies");
            assert_eq!(
                std::fs::read(dir.path().join(name)).expect("reads"),
                content,
                "{name}"
            );
            assert!(
                to.metadata().expect("metadata").blocks() * 512 < LENGTH / 2,
                "{name}"
            );
            sizes.push(written);
        }
        assert_eq!(sizes[0], sizes[1]);
        assert_eq!(sizes[0] - sizes[2], 63 * PAGE as u64, "zeros are left out");
    }

    #[test]
    fn nothing_but_holes_is_copied_in_no_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let from = create(&dir.path().join("from"), 64 << 30).expect("creates");
        let to = create(&dir.path().join("to"), 64 << 30).expect("creates");
        assert_eq!(copy(&from, &to, Zeros::Copy, 2).expect("copies"), 0);
        assert!(
            create(&dir.path().join("to"), 1).is_err(),
            "never over another's file"
        );
    }
}
