//! Our end of a program's pipe or terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::raw;

/// A descriptor the runtime watches. Clones are the same descriptor; it closes with the last.
#[derive(Clone)]
pub struct Stream(Arc<AsyncFd<OwnedFd>>);

impl Stream {
    /// Takes a descriptor over and makes it non-blocking. Needs the runtime's context.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(Arc::new(raw::watch(
            fd,
            Interest::READABLE | Interest::WRITABLE,
        )?)))
    }

    /// Reads what there is, waiting for the first byte; 0 at the end. Cancel-safe.
    ///
    /// # Errors
    /// Of read(2).
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(unistd::read(fd, buffer)?)) {
                // A terminal whose last user is gone.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EIO as i32) => return Ok(0),
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Reads what there is now, whatever the runtime knows of it; 0 when there is nothing.
    pub fn read_now(&self, buffer: &mut [u8]) -> usize {
        unistd::read(self.0.get_ref(), buffer).unwrap_or(0)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Of write(2): `EPIPE` when the program has closed its end.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(unistd::write(fd, bytes)?)) {
                Ok(written) => bytes = &bytes[written?..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// The descriptor, for ioctl(2).
    #[must_use]
    pub fn descriptor(&self) -> impl AsFd + '_ {
        self.0.get_ref().as_fd()
    }
}
