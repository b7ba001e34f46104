//! crc32c (Castagnoli), as the kernel's `__crc32c_le`: no final inversion, so that sums chain.

const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The sum of `data`, continued from `seed`.
#[must_use]
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    data.iter().fold(seed, |crc, &byte| {
        (crc >> 8) ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)]
    })
}

/// The sum of a record whose own checksum, four bytes at `field`, counts as zero.
///
/// # Panics
/// If `field` is not inside `record`.
#[must_use]
pub fn record(seed: u32, record: &[u8], field: usize) -> u32 {
    let crc = crc32c(crc32c(seed, &record[..field]), &[0; 4]);
    crc32c(crc, &record[field + 4..])
}

/// The seed of every checksum of the file system with this UUID.
#[must_use]
pub fn seed(uuid: &[u8; 16]) -> u32 {
    crc32c(!0, uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_check_value() {
        // RFC 3720 B.4 and the usual "check" string; the inversion at the end is the RFC's.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn own_field_counts_as_zero() {
        let mut data = [7u8; 40];
        let sum = record(1, &data, 4);
        data[4..8].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(record(1, &data, 4), sum);
        data[8] ^= 1;
        assert_ne!(record(1, &data, 4), sum);
    }
}
