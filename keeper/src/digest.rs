//! SHA-256, in hex, of what is too large to be held.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// That of a file.
///
/// # Errors
/// When it cannot be read.
pub fn file(path: &Path) -> io::Result<String> {
    of(File::open(path)?)
}

/// That of all that comes out of a reader.
///
/// # Errors
/// Those of reading.
pub fn of(mut reader: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_fips_180() {
        assert_eq!(
            of(&b"abc"[..]).expect("bytes"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        file("/nowhere".as_ref()).expect_err("nothing");
    }
}
