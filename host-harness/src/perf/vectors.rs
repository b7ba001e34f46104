//! Vectors to put and to look for: the same numbers in every run. Pure.

/// How many vectors a search has to compare.
pub const COUNT: usize = 1000;

/// Numbers in each.
pub const DIMENSIONS: usize = 64;

/// How often one sample searches; the median of these counts.
pub const SEARCHES: usize = 9;

/// `rows` vectors as a file of NumPy (format 1.0, little-endian binary32, one row after the other),
/// which `vexctl vector` reads.
pub fn npy(rows: usize, seed: u64) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIMENSIONS}), }}");
    // Magic, version and length are ten bytes; the data begins at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    #[allow(clippy::cast_possible_truncation, reason = "it is 118")]
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rows * DIMENSIONS {
        file.extend_from_slice(&(random.f32() - 0.5).to_le_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_of_numpys_layout() {
        let file = npy(3, 1);
        assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
        let header = usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert_eq!((10 + header) % 64, 0);
        assert_eq!(file.len(), 10 + header + 3 * DIMENSIONS * 4);
        assert_eq!(npy(3, 1), npy(3, 1));
        assert_ne!(npy(3, 1), npy(3, 2));
    }
}
