//! What a fork needs on arrival: the time of day, and randomness of its own.

use std::fs::OpenOptions;

use agent_protocol::{Fault, FaultKind, Reply};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::raw::{self, MOST_ENTROPY};

/// Sets the time of day.
///
/// # Errors
/// When the kernel refuses, or the nanoseconds are a second or more.
pub fn set(seconds: i64, nanoseconds: u32) -> Result<Reply, Fault> {
    let time = TimeSpec::new(seconds, nanoseconds.into());
    clock_settime(ClockId::CLOCK_REALTIME, time)
        .map_err(|errno| Fault::from_io("set the clock", &errno.into()))?;
    Ok(Reply::Done)
}

/// Mixes `bytes` in, credits them in full, and makes the generator use them now rather than at its
/// next scheduled reseed: forks of one snapshot must not draw the same numbers.
///
/// # Errors
/// When the kernel refuses, or `bytes` is empty or longer than 1024.
pub fn add_entropy(bytes: &[u8]) -> Result<Reply, Fault> {
    if bytes.is_empty() || bytes.len() > MOST_ENTROPY {
        return Err(Fault::new(
            FaultKind::Invalid,
            format!("1 to {MOST_ENTROPY} bytes of entropy, not {}", bytes.len()),
        ));
    }
    let device = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .map_err(|error| Fault::from_io("/dev/urandom", &error))?;
    raw::add_entropy(&device, bytes).map_err(|error| Fault::from_io("add entropy", &error))?;
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_takes_neither_nothing_nor_too_much() {
        for length in [0, MOST_ENTROPY + 1] {
            let fault = add_entropy(&vec![1; length]).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Invalid);
        }
    }

    #[test]
    fn a_second_has_no_more_nanoseconds_than_that() {
        assert!(set(0, 1_000_000_000).is_err());
    }
}
