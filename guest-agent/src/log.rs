//! Lines for the journal and the kernel log, with the priority prefix of sd-daemon(3).
//!
//! Rare on purpose: the unit sends them to `/dev/kmsg`, which limits the rate of user space.

use std::fmt::Display;
use std::io::Write;

/// Something worth knowing.
pub fn info(line: impl Display) {
    write(6, line);
}

/// Something that should not be so.
pub fn warn(line: impl Display) {
    write(4, line);
}

fn write(priority: u8, line: impl Display) {
    // One write, so that lines of several threads do not mix. There is nobody to tell when it fails.
    let line = format!("<{priority}>{line}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
