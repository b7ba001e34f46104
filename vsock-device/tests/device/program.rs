//! A program on the host that speaks to the guest.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vsock_device::driver::Port;

use crate::daemon::Daemon;

/// How long anything may take on a busy host before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for a port, and does not wait for the answer.
pub fn dial(daemon: &Daemon, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(&daemon.settings.socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    Ok(stream)
}

/// Waits for the answer: that the guest has accepted.
pub fn answered(mut stream: &UnixStream) -> io::Result<()> {
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        answer.push(byte[0]);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&answer))),
    }
}

/// Connects to a port of the guest.
pub fn connect(daemon: &Daemon, port: Port) -> io::Result<UnixStream> {
    let stream = dial(daemon, port as u32)?;
    answered(&stream)?;
    Ok(stream)
}

/// Sends bytes to an echo and compares what comes back.
pub fn echo(mut stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    let mut back = vec![0; bytes.len()];
    std::thread::scope(|scope| {
        // More than fits into all the buffers on the way must not wait for itself.
        let big = bytes.len() > 64 * 1024;
        let writer = big.then(|| scope.spawn(move || (&*stream).write_all(bytes)));
        if !big {
            stream.write_all(bytes)?;
        }
        stream.read_exact(&mut back)?;
        match writer.map(|writer| writer.join()) {
            Some(Err(_)) => Err(io::Error::other("the writer panicked")),
            Some(Ok(result)) => result,
            None => Ok(()),
        }
    })?;
    match back == bytes {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "other bytes came back",
        )),
    }
}

/// Whether the other side has ended the connection.
pub fn ended(mut stream: &UnixStream) -> io::Result<bool> {
    match stream.read(&mut [0; 64]) {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error),
    }
}
