//! Boots, resets, unplugs and new daemons, with connections made at every moment of it.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use vsock_device::driver::{Machine, Port};

use crate::daemon::Daemon;
use crate::program::{answered, dial, echo, ended};

/// After how many cycles the next daemon is started, as for a fork.
const PER_DAEMON: u64 = 20;

#[derive(Debug, Default)]
struct Tally {
    cycles: u64,
    connections: u64,
    /// Ended by a reset after they had been accepted, as they should be.
    voided: u64,
    abandoned: u64,
    bytes: u64,
    lost: Vec<String>,
}

pub fn hundreds() -> Result<(), Failed> {
    run(500)
}

pub fn ten_thousand() -> Result<(), Failed> {
    run(10_000)
}

fn run(cycles: u64) -> Result<(), Failed> {
    let begin = Instant::now();
    let mut tally = Tally::default();
    let mut daemon = Daemon::start()?;
    for seed in 0..cycles {
        if seed % PER_DAEMON == 0 {
            daemon = Daemon::start()?;
        }
        let before = tally.lost.len();
        if let Err(error) = cycle(&daemon, seed, &mut tally) {
            tally.lost.push(format!("cycle {seed}: {error}"));
        }
        tally.cycles += 1;
        if tally.lost.len() > before {
            // One that has lost a connection is not to be blamed for the next cycles.
            daemon = Daemon::start()?;
        }
    }
    let lost = std::mem::take(&mut tally.lost);
    println!(
        "{tally:?}, {} lost, {:.1} s",
        lost.len(),
        begin.elapsed().as_secs_f32()
    );
    match lost.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} of {}: {first}", lost.len(), tally.connections).into()),
    }
}

fn cycle(daemon: &Daemon, seed: u64, tally: &mut Tally) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut dialled = Vec::new();
    // Before there is a device, and before there are rings.
    dial_some(daemon, &mut random, &mut dialled, tally)?;
    let machine = Machine::plug(&daemon.settings.vhost)?;
    dial_some(daemon, &mut random, &mut dialled, tally)?;
    let during = dial_while(daemon, &mut random, tally, || machine.start())?;
    dialled.extend(during);
    dial_some(daemon, &mut random, &mut dialled, tally)?;
    dialled.retain(|stream| hold_to_it(stream, &mut random, tally, false));

    // A reset, with some that are connected, one that is not answered, and some more coming.
    machine.deafen()?;
    let unanswered = dial(daemon, Port::Deaf as u32)?;
    tally.connections += 1;
    let late = dial_while(daemon, &mut random, tally, || {
        machine.reset()?;
        machine.start()
    })?;
    void(dialled, tally)?;
    hold_to_it(&unanswered, &mut random, tally, false);
    let mut open = vec![unanswered];
    for stream in late {
        if hold_to_it(&stream, &mut random, tally, true) {
            open.push(stream);
        }
    }
    let mut dialled = Vec::new();
    dial_some(daemon, &mut random, &mut dialled, tally)?;

    // The device is taken away: those who wait wait for the next.
    drop(machine);
    void(open, tally)?;
    let mut waiting = Vec::new();
    dial_some(daemon, &mut random, &mut waiting, tally)?;
    let machine = Machine::plug(&daemon.settings.vhost)?;
    let during = dial_while(daemon, &mut random, tally, || machine.start())?;
    for stream in &dialled {
        hold_to_it(stream, &mut random, tally, true);
    }
    for stream in waiting.iter().chain(&during) {
        hold_to_it(stream, &mut random, tally, false);
    }
    Ok(())
}

/// The guest of these has gone, and so must they.
fn void(open: Vec<UnixStream>, tally: &mut Tally) -> io::Result<()> {
    for stream in open {
        match ended(&stream)? {
            true => tally.voided += 1,
            false => tally.lost.push("a connection outlived its guest".into()),
        }
    }
    Ok(())
}

/// Makes a few connections, and some that come to nothing.
fn dial_some(
    daemon: &Daemon,
    random: &mut fastrand::Rng,
    dialled: &mut Vec<UnixStream>,
    tally: &mut Tally,
) -> io::Result<()> {
    for _ in 0..random.u32(0..3) {
        if random.u8(0..4) == 0 {
            tally.abandoned += 1;
            abandon(daemon, random)?;
        }
        dialled.push(dial(daemon, Port::Echo as u32)?);
        tally.connections += 1;
    }
    Ok(())
}

/// Connects and goes, having said all, some or nothing.
fn abandon(daemon: &Daemon, random: &mut fastrand::Rng) -> io::Result<()> {
    let mut stream = UnixStream::connect(&daemon.settings.socket)?;
    let words: [&[u8]; 5] = [
        b"",
        b"CONN",
        b"CONNECT 7\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 100],
    ];
    match stream.write_all(words[random.usize(0..words.len())]) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Makes connections while something happens.
fn dial_while(
    daemon: &Daemon,
    random: &mut fastrand::Rng,
    tally: &mut Tally,
    happens: impl FnOnce() -> io::Result<()>,
) -> io::Result<Vec<UnixStream>> {
    let pauses: Vec<u64> = (0..random.usize(1..5))
        .map(|_| random.u64(0..150))
        .collect();
    tally.connections += pauses.len() as u64;
    std::thread::scope(|scope| {
        let dialler = scope.spawn(|| {
            let each = pauses.iter().map(|pause| {
                std::thread::sleep(Duration::from_micros(*pause));
                dial(daemon, Port::Echo as u32)
            });
            each.collect()
        });
        happens()?;
        dialler
            .join()
            .map_err(|_| io::Error::other("the dialler panicked"))?
    })
}

/// A connection must be accepted, and carry what it is given. One that was made before a reset may
/// be ended by it, but only after it has been accepted. True when it is open.
fn hold_to_it(
    stream: &UnixStream,
    random: &mut fastrand::Rng,
    tally: &mut Tally,
    voidable: bool,
) -> bool {
    if let Err(error) = answered(stream) {
        tally
            .lost
            .push(format!("a connection was not accepted: {error}"));
        return false;
    }
    let mut bytes = vec![0; random.usize(1..20_000)];
    random.fill(&mut bytes);
    match echo(stream, &bytes) {
        Ok(()) => {
            tally.bytes += bytes.len() as u64;
            true
        }
        Err(error) if voidable && error.kind() != io::ErrorKind::WouldBlock => {
            tally.voided += 1;
            false
        }
        Err(error) => {
            tally.lost.push(format!("a connection broke: {error}"));
            false
        }
    }
}
