//! Whatever the guest puts on the rings and programs say meanwhile, the daemon goes on, and the next
//! well-behaved guest and program are served.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libtest_mimic::Failed;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vsock_device::driver::{CID, ENTRIES, Machine, Port, SLOTS, plug};
use vsock_device::packet::{HOST_CID, Header, STREAM, op};

use crate::daemon::Daemon;
use crate::program::{connect, echo};

/// How many sequences are tried, of how many steps.
const CASES: u32 = 150;
const STEPS: usize = 60;

#[derive(Debug, Clone)]
enum Step {
    /// A packet with these fields, and a payload that need not be as long as it says.
    Packet(Header, usize),
    /// A descriptor of a ring: where, its index, address, length, flags and next.
    Describe(usize, u16, u64, u32, u16, u16),
    /// A chain, by its head.
    Offer(usize, u16),
    /// A number of chains that may never have been offered.
    Claim(usize, u16),
    /// A bell for nothing.
    Ring(usize),
    /// The guest takes what came.
    Receive,
    /// A program connects and says something.
    Dial(Vec<u8>),
    /// One of the programs says something.
    Say(usize, usize),
    /// One of them ends one half, or goes.
    End(usize, bool),
}

fn header() -> impl Strategy<Value = Header> {
    let cid = prop_oneof![20 => Just(CID), 1 => any::<u64>()];
    let host = prop_oneof![20 => Just(HOST_CID), 1 => any::<u64>()];
    // Ports the daemon gives to programs come one after the other.
    let host_port = prop_oneof![10 => 1024u32..1040, 1 => any::<u32>()];
    let guest_port = prop_oneof![Just(7u32), Just(13), 0..4u32, any::<u32>()];
    let len = prop_oneof![5 => 0u32..300, 1 => any::<u32>()];
    let op = prop_oneof![10 => 0u16..9, 1 => any::<u16>()];
    let kind = prop_oneof![20 => Just(STREAM), 1 => any::<u16>()];
    let room = prop_oneof![0u32..70_000, any::<u32>()];
    let passed = prop_oneof![Just(0u32), any::<u32>()];
    (
        cid,
        host,
        host_port,
        guest_port,
        len,
        kind,
        op,
        0u32..5,
        room,
        passed,
    )
        .prop_map(
            |(src_cid, dst_cid, dst_port, src_port, len, kind, op, flags, buf_alloc, fwd_cnt)| {
                Header {
                    src_cid,
                    dst_cid,
                    src_port,
                    dst_port,
                    len,
                    kind,
                    op,
                    flags,
                    buf_alloc,
                    fwd_cnt,
                }
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    let address = prop_oneof![0u64..0x90_0000, any::<u64>()];
    let len = prop_oneof![0u32..100, 0u32..100_000, any::<u32>()];
    let index = prop_oneof![10 => 0..ENTRIES, 1 => any::<u16>()];
    let words = prop_oneof![
        Just(b"CONNECT 7\n".to_vec()),
        Just(b"CONNECT 13\n".to_vec()),
        Just(b"CONNECT 4711\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..50),
    ];
    prop_oneof![
        20 => (header(), 0usize..400).prop_map(|(header, len)| Step::Packet(header, len)),
        3 => (0usize..2, 0..ENTRIES, address, len, 0u16..8, index.clone())
            .prop_map(|(ring, index, address, len, flags, next)| Step::Describe(ring, index, address, len, flags, next)),
        3 => (0usize..2, index).prop_map(|(ring, head)| Step::Offer(ring, head)),
        1 => (0usize..2, any::<u16>()).prop_map(|(ring, added)| Step::Claim(ring, added)),
        2 => (0usize..2).prop_map(Step::Ring),
        5 => Just(Step::Receive),
        5 => words.prop_map(Step::Dial),
        3 => (0usize..8, 1usize..100_000).prop_map(|(which, len)| Step::Say(which, len)),
        3 => (0usize..8, any::<bool>()).prop_map(|(which, half)| Step::End(which, half)),
    ]
}

pub fn packets_and_chains() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let steps = proptest::collection::vec(step(), 1..STEPS);
    TestRunner::new(config)
        .run(&steps, |steps| {
            abuse(&daemon, steps).map_err(|error| TestCaseError::fail(error.to_string()))?;
            serves(&daemon).map_err(|error| TestCaseError::fail(error.to_string()))
        })
        .map_err(|error| error.to_string())?;
    let memory = daemon.memory()?;
    assert!(memory < 64 << 10, "{memory} KiB in use");
    Ok(())
}

fn abuse(daemon: &Daemon, steps: Vec<Step>) -> std::io::Result<()> {
    let mut guest = plug(&daemon.settings.vhost)?;
    guest.boot()?;
    let mut programs: Vec<UnixStream> = Vec::new();
    for step in steps {
        match step {
            Step::Packet(header, len) => drop(guest.send(&header, &vec![0xaa; len])),
            Step::Receive => drop(guest.receive()),
            Step::Dial(words) => {
                let mut program = UnixStream::connect(&daemon.settings.socket)?;
                program.set_nonblocking(true)?;
                let _hung_up_on = program.write(&words);
                programs.push(program);
            }
            Step::Say(which, len) => {
                if let Some(program) = programs.get_mut(which) {
                    let _full_or_closed = program.write(&vec![0x55; len]);
                }
            }
            Step::End(which, half) if which < programs.len() => match half {
                true => drop(programs[which].shutdown(Shutdown::Write)),
                false => drop(programs.swap_remove(which)),
            },
            Step::End(..) => {}
            Step::Describe(ring, index, address, len, flags, next) => {
                if let Some(rings) = guest.rings() {
                    rings[ring].describe(index, address, len, flags, next);
                }
            }
            Step::Offer(ring, head) => {
                if let Some(rings) = guest.rings() {
                    rings[ring].offer(head);
                    rings[ring].ring();
                }
            }
            Step::Claim(ring, added) => {
                if let Some(rings) = guest.rings() {
                    rings[ring].claim(added);
                    rings[ring].ring();
                }
            }
            Step::Ring(ring) => {
                if let Some(rings) = guest.rings() {
                    rings[ring].ring();
                }
            }
        }
    }
    Ok(())
}

/// What a well-behaved guest and program get.
fn serves(daemon: &Daemon) -> std::io::Result<()> {
    let _machine = Machine::boot(&daemon.settings.vhost)?;
    let stream = connect(daemon, Port::Echo)?;
    echo(&stream, &[9; 10_000])
}

pub fn flood() -> Result<(), Failed> {
    let daemon = Daemon::start()?;
    let mut guest = plug(&daemon.settings.vhost)?;
    guest.boot()?;
    let before = daemon.memory()?;
    let stray = |port| Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: port,
        dst_port: 1,
        kind: STREAM,
        op: op::RW,
        ..Header::default()
    };
    let mut sent = 0u32;
    let mut refused = 0;
    while refused < 20 {
        match guest.send(&stray(sent), &[]) {
            true => (sent, refused) = (sent + 1, 0),
            false => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(sent < 10_000, "it still listens");
    }
    let grown = daemon.memory()?.saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB more");
    // All that was taken is answered, once there is room for the answers.
    let mut answers = 0;
    while answers < sent {
        let packets = guest.receive();
        assert!(packets.iter().all(|(header, _)| header.op == op::RST));
        answers += packets.len() as u32;
        if packets.is_empty() {
            guest.wait(Duration::from_secs(1));
        }
    }
    println!(
        "{sent} packets were taken, {} of them wait on the ring",
        SLOTS
    );
    drop(guest);
    serves(&daemon)?;
    Ok(())
}
