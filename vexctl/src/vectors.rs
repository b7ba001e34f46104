//! Vectors on mounted files: the ioctls of `vexfs/uapi/vexfs.h`, and the same search in user space.
#![allow(unsafe_code)] // ioctl(2) has no safe form.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

/// Most numbers in a vector.
pub const DIMS_MAX: usize = 4096;
/// Most hits one search returns.
pub const HITS_MAX: usize = 1024;

/// How far two vectors are apart; a smaller score is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Metric {
    /// One less the cosine of the angle; 1 if either is all zero.
    Cosine = 0,
    /// The straight line between them.
    Euclidean = 1,
    /// The inner product, negated.
    Inner = 2,
}

#[repr(C)]
#[derive(Default)]
struct VectorArg {
    flags: u32,
    dims: u32,
    data: u64,
    reserved: [u64; 2],
}

/// One file found by a search.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hit {
    /// Inode number.
    pub ino: u64,
    /// By the metric; smaller is nearer.
    pub score: f64,
    /// The inode's generation.
    pub generation: u32,
    /// A directory that names it.
    pub parent: u32,
}

#[repr(C)]
#[derive(Default)]
struct SearchArg {
    flags: u32,
    metric: u32,
    dims: u32,
    k: u32,
    query: u64,
    hits: u64,
    found: u32,
    reserved: u32,
    scanned: u64,
    reserved2: [u64; 2],
}

// The kernel asserts the same in vexfs_ioctl().
const _: () = {
    assert!(size_of::<VectorArg>() == 32);
    assert!(size_of::<Hit>() == 24);
    assert!(size_of::<SearchArg>() == 64);
};

const MAGIC: u8 = 0xf6;
mod ioc {
    #![allow(missing_docs)] // What each does is said in `vexfs/uapi/vexfs.h`.
    use super::{MAGIC, SearchArg, VectorArg};
    nix::ioctl_write_ptr!(set, MAGIC, 1, VectorArg);
    nix::ioctl_readwrite!(get, MAGIC, 2, VectorArg);
    nix::ioctl_none!(remove, MAGIC, 3);
    nix::ioctl_readwrite!(search, MAGIC, 4, SearchArg);
}

/// Gives a file, open for writing, a vector.
///
/// # Errors
/// `EINVAL` for no, too many or infinite numbers; whatever else the kernel says.
pub fn set(file: &File, vector: &[f32]) -> io::Result<()> {
    let arg = VectorArg {
        dims: u32::try_from(vector.len()).unwrap_or(u32::MAX),
        data: vector.as_ptr() as u64,
        ..VectorArg::default()
    };
    // SAFETY: `data` points to `dims` numbers that outlive the call, which only reads them.
    unsafe { ioc::set(file.as_raw_fd(), &raw const arg) }?;
    Ok(())
}

/// The vector of a file, open for reading; `None` if it has none.
///
/// # Errors
/// Whatever the kernel says; `ENOTTY` where the file is not on a VexFS.
pub fn get(file: &File) -> io::Result<Option<Vec<f32>>> {
    let mut vector = vec![0f32; DIMS_MAX];
    let mut arg = VectorArg {
        dims: DIMS_MAX as u32,
        data: vector.as_mut_ptr() as u64,
        ..VectorArg::default()
    };
    // SAFETY: `data` points to room for `dims` numbers, and the kernel writes no more.
    match unsafe { ioc::get(file.as_raw_fd(), &raw mut arg) } {
        Ok(_) => {
            vector.truncate(arg.dims as usize);
            Ok(Some(vector))
        }
        Err(nix::errno::Errno::ENODATA) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes the vector of a file, open for writing, away; tells whether there was one.
///
/// # Errors
/// Whatever the kernel says.
pub fn remove(file: &File) -> io::Result<bool> {
    // SAFETY: the call has no argument.
    match unsafe { ioc::remove(file.as_raw_fd()) } {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::ENODATA) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The `k` nearest vectors below a directory, best first, and how many were compared.
///
/// # Errors
/// Whatever the kernel says.
pub fn search(dir: &File, query: &[f32], metric: Metric, k: usize) -> io::Result<(Vec<Hit>, u64)> {
    let mut hits = vec![Hit::default(); k.clamp(1, HITS_MAX)];
    let mut arg = SearchArg {
        metric: metric as u32,
        dims: u32::try_from(query.len()).unwrap_or(u32::MAX),
        k: hits.len() as u32,
        query: query.as_ptr() as u64,
        hits: hits.as_mut_ptr() as u64,
        ..SearchArg::default()
    };
    // SAFETY: `query` points to `dims` numbers and `hits` to room for `k` hits; both outlive the
    // call, and any bits are a valid `Hit`.
    unsafe { ioc::search(dir.as_raw_fd(), &raw mut arg) }?;
    hits.truncate(arg.found as usize);
    Ok((hits, arg.scanned))
}

/// A vector others are compared with as the kernel does it: the same operations in the same order.
#[derive(Debug)]
pub struct Query<'a> {
    metric: Metric,
    numbers: &'a [f32],
    norm: f64,
}

impl<'a> Query<'a> {
    /// What does not depend on the others is computed once.
    #[must_use]
    pub fn new(metric: Metric, numbers: &'a [f32]) -> Self {
        let norm = sum(numbers, numbers, |x, y| x * y).sqrt();
        Self {
            metric,
            numbers,
            norm,
        }
    }

    /// How far a vector of the same length is; smaller is nearer.
    #[must_use]
    pub fn score(&self, other: &[f32]) -> f64 {
        let product = |x, y| x * y;
        let score = match self.metric {
            Metric::Euclidean => {
                sum(self.numbers, other, |x: f64, y: f64| (x - y) * (x - y)).sqrt()
            }
            Metric::Inner => -sum(self.numbers, other, product),
            Metric::Cosine => match self.norm * sum(other, other, product).sqrt() {
                norm if norm > 0.0 => 1.0 - sum(self.numbers, other, product) / norm,
                _ => 1.0,
            },
        };
        score + 0.0
    }
}

/// Four lanes of binary64, as `vexfs/uapi/vexfs.h` prescribes.
fn sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0f64; 4];
    let mut add = |a: &[f32], b: &[f32]| {
        for (lane, (x, y)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += term(f64::from(*x), f64::from(*y));
        }
    };
    let (whole, rest) = a.as_chunks::<4>();
    let (other, tail) = b.as_chunks::<4>();
    whole.iter().zip(other).for_each(|(a, b)| add(a, b));
    add(rest, tail);
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}

/// The score the kernel gives two vectors of one length, see [`Query`].
#[must_use]
pub fn score(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    Query::new(metric, a).score(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_simple_vectors() {
        let (a, b) = ([3.0, 4.0, 0.0], [0.0, 0.0, 2.0]);
        assert_eq!(score(Metric::Euclidean, &a, &[0.0; 3]), 5.0);
        assert_eq!(score(Metric::Cosine, &a, &b), 1.0);
        assert_eq!(score(Metric::Cosine, &a, &a), 0.0);
        assert_eq!(score(Metric::Cosine, &a, &[0.0; 3]), 1.0);
        assert_eq!(score(Metric::Inner, &a, &[1.0, 1.0, 9.0]), -7.0);
        assert_eq!(score(Metric::Inner, &a, &b).to_bits(), 0);
    }
}
