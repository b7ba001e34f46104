//! System calls for which there is no safe wrapper, each behind a function that is safe to call.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::libc;
use nix::pty::PtyMaster;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Most bytes [`add_entropy`] takes. More than the kernel's pool holds would gain nothing.
pub const MOST_ENTROPY: usize = 1024;

/// `struct rand_pool_info` of linux/random.h, with room for what we allow.
#[repr(C)]
struct RandPoolInfo {
    /// Credit, in bits.
    entropy_count: i32,
    /// Bytes in `buf`.
    buf_size: i32,
    buf: [u8; MOST_ENTROPY],
}

mod ioctl {
    use super::RandPoolInfo;

    // random(4). The number of RNDADDENTROPY is made with the size of the header alone, int[2].
    nix::ioctl_write_ptr_bad!(
        add_entropy,
        nix::request_code_write!(b'R', 3, 2 * size_of::<i32>()),
        RandPoolInfo
    );
    nix::ioctl_none!(reseed, b'R', 7);
    // tty_ioctl(4)
    nix::ioctl_write_int_bad!(make_controlling, nix::libc::TIOCSCTTY);
    nix::ioctl_write_ptr_bad!(set_window, nix::libc::TIOCSWINSZ, nix::libc::winsize);
}

/// Lets the runtime watch a descriptor. Needs the runtime's context.
///
/// # Errors
/// When the system refuses, as it does for regular files.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open descriptor for as long as it lives, and it moves into the
    // AsyncFd, which deregisters it before it closes.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// A descriptor that becomes readable when `pid`, a child not yet reaped, exits: pidfd_open(2).
///
/// # Errors
/// When there is no such process, or no descriptor left.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The descriptor of a pseudo-terminal.
#[must_use]
pub fn into_descriptor(master: PtyMaster) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives up an open descriptor, which we take over.
    unsafe { OwnedFd::from_raw_fd(master.into_raw_fd()) }
}

/// Sets the size of a terminal.
///
/// # Errors
/// When it is none.
pub fn set_window(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, and the descriptor is open.
    unsafe { ioctl::set_window(terminal.as_fd().as_raw_fd(), &raw const size) }?;
    Ok(())
}

/// Makes standard input the controlling terminal of a session that has none.
///
/// # Errors
/// When it is no terminal, or another session's.
pub fn take_terminal() -> io::Result<()> {
    // SAFETY: takes an integer; 0 says not to steal the terminal from another session.
    unsafe { ioctl::make_controlling(libc::STDIN_FILENO, 0) }?;
    Ok(())
}

/// Mixes at most [`MOST_ENTROPY`] bytes into the kernel's random pool, credits them in full, and
/// reseeds at once: random(4). `device` is `/dev/urandom`.
///
/// # Errors
/// When the kernel refuses.
pub fn add_entropy(device: &File, bytes: &[u8]) -> io::Result<()> {
    let mut pool = RandPoolInfo {
        entropy_count: 0,
        buf_size: 0,
        buf: [0; MOST_ENTROPY],
    };
    let room = pool
        .buf
        .get_mut(..bytes.len())
        .ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(bytes);
    pool.buf_size = i32::try_from(bytes.len()).map_err(io::Error::other)?;
    pool.entropy_count = pool.buf_size * 8;
    // SAFETY: the descriptor is open, and the kernel reads `buf_size` bytes, which `buf` has;
    // RNDRESEEDCRNG takes no argument.
    unsafe {
        ioctl::add_entropy(device.as_raw_fd(), &raw const pool)?;
        ioctl::reseed(device.as_raw_fd())?;
    }
    Ok(())
}
