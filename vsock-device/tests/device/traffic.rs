//! What one connection does, by the specification and vsock(7).

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use vsock_device::driver::{CID, Machine, Port, plug};
use vsock_device::packet::{HOST_CID, Header, STREAM, op};

use crate::daemon::Daemon;
use crate::program::{PATIENCE, answered, connect, dial, echo, ended};

pub fn refused() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let _machine = Machine::boot(&daemon.settings.vhost)?;
    let stream = dial(&daemon, 4711)?;
    assert!(ended(&stream)?, "it answered");
    Ok(())
}

pub fn waits() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let early = dial(&daemon, Port::Echo as u32)?;
    early.set_read_timeout(Some(Duration::from_millis(50)))?;
    assert!(answered(&early).is_err(), "there is no guest");
    let machine = Machine::plug(&daemon.settings.vhost)?;
    assert!(answered(&early).is_err(), "there is no driver");
    machine.start()?;
    early.set_read_timeout(Some(PATIENCE))?;
    answered(&early)?;
    echo(&early, b"at last")?;
    Ok(())
}

pub fn gives_up() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    for _ in 0..50 {
        drop(dial(&daemon, Port::Echo as u32)?);
    }
    let machine = Machine::boot(&daemon.settings.vhost)?;
    machine.deafen()?;
    // These have been asked for when they go.
    for _ in 0..50 {
        let stream = dial(&daemon, Port::Deaf as u32)?;
        std::thread::sleep(Duration::from_micros(300));
        drop(stream);
    }
    let stream = connect(&daemon, Port::Echo)?;
    echo(&stream, b"still there")?;
    known(&machine, 1, "the guest has only the one that is open")?;
    Ok(())
}

/// Waits until the guest has just so many connections.
fn known(machine: &Machine, wanted: usize, what: &str) -> Result<(), Failed> {
    let begin = Instant::now();
    let (tell, told) = std::sync::mpsc::channel();
    while begin.elapsed() < PATIENCE {
        let tell = tell.clone();
        machine.order(move |_, stack| tell.send(stack.len()).map_err(std::io::Error::other))?;
        if told.recv()? == wanted {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(format!("not so: {what}").into())
}

pub fn too_many() -> Result<(), Failed> {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 4096, 4096)?;
    let daemon = Daemon::start()?;
    let machine = Machine::boot(&daemon.settings.vhost)?;
    // 1024 are connected at a time. What is dialled beyond that stands in the socket's backlog.
    let open: Vec<_> = (0..1024)
        .map(|_| connect(&daemon, Port::Echo))
        .collect::<Result<_, _>>()?;
    let beyond: Vec<_> = (0..32)
        .map(|_| dial(&daemon, Port::Echo as u32))
        .collect::<Result<_, _>>()?;
    echo(&open[1023], b"the last one works")?;
    beyond[0].set_read_timeout(Some(Duration::from_millis(50)))?;
    assert!(answered(&beyond[0]).is_err(), "it is one too many");
    drop(open);
    beyond[0].set_read_timeout(Some(PATIENCE))?;
    for stream in &beyond {
        answered(stream)?;
        echo(stream, b"its turn came")?;
    }
    drop(machine);
    Ok(())
}

pub fn back_pressure() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let _machine = Machine::boot(&daemon.settings.vhost)?;
    // The guest wants to send 64 MiB that nobody reads, and gets 64 MiB that it does not read.
    let mut greedy = connect(&daemon, Port::Source)?;
    greedy.write_all(&(64u64 << 20).to_le_bytes())?;
    let mut talker = connect(&daemon, Port::Echo)?;
    talker.set_write_timeout(Some(Duration::from_millis(200)))?;
    let block = vec![7; 1 << 20];
    let taken = (0..64)
        .take_while(|_| talker.write_all(&block).is_ok())
        .count();
    assert!(taken < 8, "{taken} MiB went to an echo nobody reads");
    let other = connect(&daemon, Port::Echo)?;
    let begin = Instant::now();
    echo(&other, &vec![1; 1 << 20])?;
    let memory = daemon.memory()?;
    assert!(memory < 32 << 10, "{memory} KiB in use");
    println!(
        "1 MiB there and back in {:?}, {memory} KiB in use",
        begin.elapsed()
    );
    // Nothing of what was held up is missing.
    let mut got = 0;
    let mut buffer = vec![0; 1 << 20];
    while got < 64 << 20 {
        let count = greedy.read(&mut buffer)?;
        assert!(count > 0, "only {got} bytes came");
        got += count;
    }
    Ok(())
}

pub fn half_close() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let machine = Machine::boot(&daemon.settings.vhost)?;
    for size in [0, 1, 300_000] {
        let mut stream = connect(&daemon, Port::Echo)?;
        let sent = vec![3; size];
        let mut back = Vec::new();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (&stream).write_all(&sent)?;
                // All was said; the echo of it is still to come.
                stream.shutdown(Shutdown::Write)
            });
            (&stream).read_to_end(&mut back)?;
            writer.join().expect("does not panic")
        })?;
        assert_eq!(back.len(), size);
        // The guest closed both halves after it: writing is an error now.
        assert!(stream.write_all(b"too late").is_err());
    }
    known(&machine, 0, "the guest knows that it is over")?;
    // All that was written before a close arrives.
    let mut stream = connect(&daemon, Port::Sink)?;
    stream.write_all(&100_000u64.to_le_bytes())?;
    stream.write_all(&vec![5; 100_000])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, [1]);
    Ok(())
}

pub fn from_guest() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let listener = UnixListener::bind(daemon.port(6000))?;
    let mut guest = plug(&daemon.settings.vhost)?;
    guest.boot()?;
    let packet = |port, op, fwd_cnt| Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: 1234,
        dst_port: port,
        kind: STREAM,
        op,
        buf_alloc: 1 << 16,
        fwd_cnt,
        ..Header::default()
    };
    let hear = |guest: &mut vsock_device::driver::Guest| loop {
        if let Some(packet) = guest.receive().pop() {
            return packet;
        }
        guest.wait(Duration::from_secs(1));
    };
    guest.send(&packet(6001, op::REQUEST, 0), &[]);
    assert_eq!(hear(&mut guest).0.op, op::RST, "nobody listens there");
    guest.send(&packet(6000, op::REQUEST, 0), &[]);
    let (answer, _) = hear(&mut guest);
    assert_eq!(
        (answer.op, answer.src_port, answer.dst_port),
        (op::RESPONSE, 6000, 1234)
    );
    let (mut program, _) = listener.accept()?;
    let hello = Header {
        len: 5,
        ..packet(6000, op::RW, 0)
    };
    guest.send(&hello, b"hello");
    let mut heard = [0; 5];
    program.read_exact(&mut heard)?;
    assert_eq!(&heard, b"hello");
    program.write_all(b"hi")?;
    let (answer, payload) = hear(&mut guest);
    assert_eq!((answer.op, &payload[..]), (op::RW, &b"hi"[..]));
    // A packet from, or for, somebody else is not for us.
    guest.send(
        &Header {
            src_cid: 9,
            ..hello
        },
        b"wrong",
    );
    guest.send(
        &Header {
            dst_cid: 9,
            ..hello
        },
        b"wrong",
    );
    // One of a type there is not ends the connection.
    guest.send(&Header { kind: 2, ..hello }, b"seqpk");
    assert_eq!(hear(&mut guest).0.op, op::RST);
    assert_eq!(program.read(&mut heard)?, 0, "nothing else came");
    Ok(())
}

pub fn next_frontend() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    for _ in 0..20 {
        let machine = Machine::boot(&daemon.settings.vhost)?;
        let stream = connect(&daemon, Port::Echo)?;
        echo(&stream, b"hello")?;
        drop(machine);
        assert!(ended(&stream)?, "its guest has gone");
    }
    Ok(())
}

pub fn paused() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let machine = Machine::boot(&daemon.settings.vhost)?;
    let stream = connect(&daemon, Port::Echo)?;
    for _ in 0..20 {
        echo(&stream, b"before")?;
        machine.order(|guest, _| {
            let bases = guest.pause()?;
            std::thread::sleep(Duration::from_millis(20));
            guest.resume(bases)
        })?;
        echo(&stream, b"after")?;
        echo(&connect(&daemon, Port::Echo)?, b"another")?;
    }
    Ok(())
}

pub fn paused_for_long() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let machine = Machine::boot(&daemon.settings.vhost)?;
    let stream = connect(&daemon, Port::Echo)?;
    echo(&stream, b"before")?;
    machine.order(move |guest, _| {
        let bases = guest.pause()?;
        let begin = Instant::now();
        assert!(ended(&stream)?, "it is not hung up on");
        assert!(
            begin.elapsed() > Duration::from_secs(1),
            "{:?}",
            begin.elapsed()
        );
        guest.resume(bases)
    })?;
    known(&machine, 0, "the guest knows that it is over")?;
    echo(&connect(&daemon, Port::Echo)?, b"after")?;
    Ok(())
}
