//! A disk image as bytes, and the partition with the root file system on it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use keeper::Kept;
use serde::Deserialize;

use crate::ImageError;

/// The name of the root partition in the partition table.
const ROOT: &str = "root";
/// Bytes of a sector, the unit of the partition table.
const SECTOR: u64 = 512;
/// No partition table is larger: 128 entries of 128 bytes are usual.
const MOST_ENTRIES: u64 = 1024;

/// A disk image of any format qemu-img(1) can map to places in a file.
#[derive(Debug)]
pub struct Disk {
    file: File,
    extents: Vec<Extent>,
}

/// A stretch of the disk, as `qemu-img map --output=json` says it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Extent {
    start: u64,
    length: u64,
    /// Reads as zeroes, whatever is there.
    zero: bool,
    /// Where in the file it is; nowhere for holes, and for compressed clusters.
    offset: Option<u64>,
}

/// A stretch of a disk that holds a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Where it begins, in bytes.
    pub start: u64,
    /// How large it is.
    pub bytes: u64,
}

impl Disk {
    /// Opens it, whoever else works with it.
    ///
    /// # Errors
    /// [`ImageError::Io`] when qemu-img(1) takes it for no disk image.
    pub async fn open(path: &Path) -> Result<Disk, ImageError> {
        let io = |error| ImageError::io("read", path)(error);
        let extents = map(path).await.map_err(io)?;
        let extents = serde_json::from_slice(&extents)
            .map_err(|error| io(io::Error::other(format!("qemu-img map: {error}"))))?;
        let file = File::open(path).map_err(io)?;
        Ok(Disk { file, extents })
    }

    /// Reads exactly this much from there.
    ///
    /// # Errors
    /// Behind the disk's end, and where it is compressed inside.
    pub fn read_at(&self, mut at: u64, mut to: &mut [u8]) -> io::Result<()> {
        while !to.is_empty() {
            let extent = self
                .extents
                .partition_point(|extent| extent.start + extent.length <= at);
            let extent = self
                .extents
                .get(extent)
                .filter(|extent| extent.start <= at)
                .ok_or_else(|| io::Error::other(format!("byte {at} is behind the disk's end")))?;
            let room = extent.start + extent.length - at;
            let count = to.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, rest) = to.split_at_mut(count);
            match extent.offset {
                _ if extent.zero => now.fill(0),
                Some(offset) => self.file.read_exact_at(now, offset + (at - extent.start))?,
                None => return Err(io::Error::other("the disk is compressed inside")),
            }
            at += count as u64;
            to = rest;
        }
        Ok(())
    }

    /// The partition called `root`, by the GPT (UEFI specification, section 5.3).
    ///
    /// # Errors
    /// When there is none.
    pub fn root(&self) -> io::Result<Partition> {
        let mut header = [0; 92];
        self.read_at(SECTOR, &mut header)?;
        if &header[..8] != b"EFI PART" {
            return Err(io::Error::other("there is no GPT on it"));
        }
        let table = number(&header[72..80]) * SECTOR;
        let (count, size) = (number(&header[80..84]), number(&header[84..88]));
        if count > MOST_ENTRIES || !(128..=4096).contains(&size) {
            return Err(io::Error::other("its GPT is damaged"));
        }
        let mut entry = vec![0; size as usize];
        for n in 0..count {
            self.read_at(table + n * size, &mut entry)?;
            let (first, last) = (number(&entry[32..40]), number(&entry[40..48]));
            if name(&entry[56..128]) == ROOT && first > 0 && last >= first {
                return Ok(Partition {
                    start: first * SECTOR,
                    bytes: (last - first + 1) * SECTOR,
                });
            }
        }
        Err(io::Error::other("it has no partition called root"))
    }
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// UTF-16 up to the first NUL.
fn name(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| number(pair) as u16);
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

async fn map(path: &Path) -> io::Result<Vec<u8>> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = Kept::new("qemu-img")
        // Without force-share a machine that runs on it would be in the way.
        .args(["map", "--force-share", "--output=json"])
        .arg(path)
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()
        .await?;
    let status = child.wait().await?;
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    if status.success() {
        return read(&mut out);
    }
    let said = String::from_utf8_lossy(&read(&mut err)?).trim().to_owned();
    Err(io::Error::other(said))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn disk(bytes: &[u8], extents: &str) -> Disk {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        let extents = serde_json::from_str(extents).expect("JSON");
        Disk { file, extents }
    }

    #[test]
    fn data_holes_and_the_end_are_told_apart() {
        let disk = disk(
            b"....efghabcd",
            r#"[{"start":0,"length":4,"depth":0,"zero":false,"data":true,"offset":8},
                {"start":4,"length":4,"depth":0,"zero":true,"data":false},
                {"start":8,"length":4,"depth":0,"zero":false,"data":true,"offset":4},
                {"start":12,"length":4,"depth":0,"zero":false,"data":true}]"#,
        );
        let mut bytes = [1; 8];
        disk.read_at(2, &mut bytes).expect("a read");
        assert_eq!(&bytes, b"cd\0\0\0\0ef");
        let said = |at| {
            let error = disk.read_at(at, &mut [0; 4]).expect_err("no such bytes");
            error.to_string()
        };
        assert!(said(12).contains("compressed"));
        assert!(said(16).contains("behind the disk's end"));
    }

    #[test]
    fn the_root_partition_is_found_by_name() {
        let mut bytes = vec![0; 2048];
        bytes[512..520].copy_from_slice(b"EFI PART");
        bytes[512 + 72] = 2;
        bytes[512 + 80] = 2;
        bytes[512 + 84] = 128;
        let entry = 1024 + 128;
        bytes[entry + 32] = 9;
        bytes[entry + 40] = 10;
        for (n, letter) in b"root".iter().enumerate() {
            bytes[entry + 56 + 2 * n] = *letter;
        }
        let whole = r#"[{"start":0,"length":2048,"zero":false,"offset":0}]"#;
        let found = disk(&bytes, whole).root().expect("a root");
        assert_eq!((found.start, found.bytes), (9 * 512, 1024));
        bytes[entry + 56] = b'b';
        let error = disk(&bytes, whole).root().expect_err("no root");
        assert!(error.to_string().contains("no partition called root"));
        assert!(disk(&[0; 2048], whole).root().is_err());
    }
}
