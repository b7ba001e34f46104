//! How fast is the vsock device, beside another daemon of its kind? No guest and no QEMU: a driver
//! in this process plays both, so the figures are the daemons' alone.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use keeper::{Child, Kept};
use tempfile::TempDir;
use vsock_device::Settings;
use vsock_device::driver::{CID, Machine, Port};

use results::figures::{Direction, Metric};

/// Names a vhost-device-vsock 0.3.0 to stand beside ours.
const PEER: &str = "VEXFS_PEER_VSOCK";

/// Bytes of one sample, and questions of one.
const BYTES: u64 = 64 << 20;
const QUESTIONS: u32 = 2000;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Subject {
    name: &'static str,
    /// Below this the daemon ends.
    _daemon: Child,
    _machine: Machine,
    socket: PathBuf,
    _dir: TempDir,
}

/// Throughput each way and the round trip, of our device and of the peer that `VEXFS_PEER_VSOCK` names.
///
/// # Errors
/// When a daemon does not start or does not carry what it is given.
pub async fn measure(rounds: usize) -> io::Result<Vec<Metric>> {
    let mut subjects = vec![start("vsock-device", None).await?];
    if let Some(peer) = std::env::var_os(PEER) {
        subjects.push(start("vhost-device-vsock", Some(peer.into())).await?);
    }
    let mut metrics = Vec::new();
    for (what, unit, direction) in [
        ("to_guest", "MB/s", Direction::Higher),
        ("from_guest", "MB/s", Direction::Higher),
        ("round_trip", "ms", Direction::Lower),
    ] {
        for subject in &subjects {
            let metric = Metric::new(&format!("vsock/{what}"), subject.name, unit, direction);
            metrics.push(match subject.name == subjects[0].name {
                true => metric,
                false => metric.beside(subjects[0].name),
            });
        }
    }
    // In turns, so that what slows the host down slows all of them.
    for _ in 0..rounds {
        for (number, subject) in subjects.iter().enumerate() {
            let sample = [
                to_guest(subject)?,
                from_guest(subject)?,
                round_trip(subject)?,
            ];
            for (what, value) in sample.into_iter().enumerate() {
                metrics[what * subjects.len() + number].samples.push(value);
            }
        }
    }
    Ok(metrics)
}

async fn start(name: &'static str, peer: Option<PathBuf>) -> io::Result<Subject> {
    let dir = TempDir::new()?;
    let settings = Settings {
        cid: CID,
        vhost: dir.path().join("vhost"),
        socket: dir.path().join("vsock"),
    };
    let program = match peer {
        Some(peer) => Kept::new(peer).args([
            format!("--guest-cid={CID}"),
            format!("--socket={}", settings.vhost.display()),
            format!("--uds-path={}", settings.socket.display()),
        ]),
        None => Kept::new("/proc/self/exe").args(settings.arguments()),
    };
    let daemon = program.spawn().await?;
    let begin = Instant::now();
    while !settings.vhost.exists() || !settings.socket.exists() {
        if begin.elapsed() > PATIENCE {
            return Err(io::Error::other(format!(
                "{name} does not open its sockets"
            )));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The peer is not told apart from one that is not ready by anything else.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let machine = Machine::boot(&settings.vhost)?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(Subject {
        name,
        _daemon: daemon,
        _machine: machine,
        socket: settings.socket,
        _dir: dir,
    })
}

fn connect(subject: &Subject, port: Port) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(&subject.socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("CONNECT {}\n", port as u32).as_bytes())?;
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(stream)
}

fn megabytes(begin: Instant) -> f64 {
    BYTES as f64 / 1e6 / begin.elapsed().as_secs_f64()
}

fn to_guest(subject: &Subject) -> io::Result<f64> {
    let mut stream = connect(subject, Port::Sink)?;
    let block = vec![0x55; 256 * 1024];
    let begin = Instant::now();
    stream.write_all(&BYTES.to_le_bytes())?;
    for _ in 0..BYTES / block.len() as u64 {
        stream.write_all(&block)?;
    }
    stream.read_exact(&mut [0])?;
    Ok(megabytes(begin))
}

fn from_guest(subject: &Subject) -> io::Result<f64> {
    let mut stream = connect(subject, Port::Source)?;
    let mut block = vec![0; 256 * 1024];
    let begin = Instant::now();
    stream.write_all(&BYTES.to_le_bytes())?;
    let mut left = BYTES;
    while left > 0 {
        match stream.read(&mut block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count as u64,
        }
    }
    Ok(megabytes(begin))
}

fn round_trip(subject: &Subject) -> io::Result<f64> {
    let mut stream = connect(subject, Port::Echo)?;
    let mut frame = [7; 64];
    let begin = Instant::now();
    for _ in 0..QUESTIONS {
        stream.write_all(&frame)?;
        stream.read_exact(&mut frame)?;
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3 / f64::from(QUESTIONS))
}
