use std::io::Read;

use super::*;
use crate::packet::PAYLOAD;

/// A connection and the program's end of it.
fn dialled() -> (Connection, UnixStream) {
    let (ours, program) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket");
    (Connection::from_host(ours), program)
}

fn heard(op: u16) -> Header {
    Header {
        op,
        buf_alloc: 1 << 20,
        ..Header::default()
    }
}

/// One that is open.
fn open() -> (Connection, UnixStream) {
    let (mut connection, mut program) = dialled();
    program.write_all(b"CONNECT 5000\n").expect("writes");
    assert_eq!(connection.notice(EpollFlags::EPOLLIN), Fate::Lives);
    let mut memory = vec![0; PAYLOAD];
    let (say, _) = connection.say(&room(&mut memory));
    assert_eq!(say, Some(Say::only(op::REQUEST)));
    assert_eq!(hear(&mut connection, &heard(op::RESPONSE)), Fate::Lives);
    let mut answer = [0; 5];
    program.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"OK 0\n");
    (connection, program)
}

fn room(memory: &mut [u8]) -> Span<'_> {
    Span::over(memory)
}

fn hear(connection: &mut Connection, header: &Header) -> Fate {
    connection.hear(header, Span::default())
}

#[test]
fn a_greeting_may_come_in_pieces() {
    let (mut connection, mut program) = dialled();
    for piece in ["CON", "NECT 50", "00"] {
        program.write_all(piece.as_bytes()).expect("writes");
        assert_eq!(connection.notice(EpollFlags::EPOLLIN), Fate::Lives);
        assert!(!connection.has_word());
    }
    // What follows the line is for the guest.
    program.write_all(b"\nhello").expect("writes");
    assert_eq!(connection.notice(EpollFlags::EPOLLIN), Fate::Lives);
    assert_eq!(connection.phase, Phase::Waiting);
    assert_eq!(connection.ports.guest, 5000);
    assert!(connection.has_word());
}

#[test]
fn only_a_port_can_be_asked_for() {
    assert_eq!(wanted(b"CONNECT 5000"), Some(5000));
    assert_eq!(wanted(b"connect 5000\r"), Some(5000));
    for odd in [
        "",
        "CONNECT",
        "CONNECT -1",
        "CONNECT 4294967296",
        "CONNECT 1 2",
        "GET 80",
    ] {
        assert_eq!(wanted(odd.as_bytes()), None, "{odd}");
    }
    let (mut connection, mut program) = dialled();
    program.write_all(&[b'x'; 40]).expect("writes");
    assert_eq!(connection.notice(EpollFlags::EPOLLIN), Fate::Over);
}

#[test]
fn a_program_that_goes_is_forgotten_and_the_guest_told_if_it_was_asked() {
    let gone = EpollFlags::EPOLLHUP;
    let (mut connection, mut program) = dialled();
    program.write_all(b"CONNECT 1\n").expect("writes");
    assert_eq!(connection.notice(EpollFlags::EPOLLIN), Fate::Lives);
    assert_eq!(
        connection.notice(EpollFlags::EPOLLRDHUP),
        Fate::Lives,
        "one half"
    );
    connection.phase = Phase::Asked;
    assert_eq!(connection.notice(gone), Fate::Reset);
    connection.phase = Phase::Waiting;
    assert_eq!(connection.notice(gone), Fate::Over);
}

#[test]
fn one_that_was_asked_for_waits_again_after_a_reset_and_an_open_one_does_not() {
    let (mut connection, _program) = dialled();
    connection.phase = Phase::Asked;
    assert!(connection.survives());
    assert_eq!(connection.phase, Phase::Waiting);
    assert!(!open().0.survives());
}

#[test]
fn what_does_not_belong_ends_it() {
    for op in [op::REQUEST, op::RESPONSE, 0, 99] {
        assert_eq!(hear(&mut open().0, &heard(op)), Fate::Reset, "{op}");
    }
    let (mut connection, _program) = dialled();
    connection.phase = Phase::Asked;
    assert_eq!(hear(&mut connection, &heard(op::RW)), Fate::Reset);
    assert_eq!(hear(&mut open().0, &heard(op::RST)), Fate::Over);
}

#[test]
fn data_needs_credit_and_asks_for_it_once() {
    let (mut connection, mut program) = open();
    program.write_all(b"hello").expect("writes");
    assert_eq!(connection.notice(EpollFlags::EPOLLIN), Fate::Lives);
    let none = Header {
        buf_alloc: 0,
        ..heard(op::CREDIT_UPDATE)
    };
    assert_eq!(hear(&mut connection, &none), Fate::Lives);
    let mut memory = vec![0; PAYLOAD];
    assert_eq!(
        connection.say(&room(&mut memory)).0,
        Some(Say::only(op::CREDIT_REQUEST))
    );
    assert!(!connection.has_word());
    assert_eq!(connection.say(&room(&mut memory)).0, None);
    let some = Header {
        buf_alloc: 3,
        ..heard(op::CREDIT_UPDATE)
    };
    assert_eq!(hear(&mut connection, &some), Fate::Lives);
    assert!(connection.has_word());
    let (say, _) = connection.say(&room(&mut memory));
    assert_eq!(say.map(|say| (say.op, say.len)), Some((op::RW, 3)));
    assert_eq!(&memory[..3], b"hel");
}

#[test]
fn a_program_that_reads_nothing_is_held_for_up_to_its_credit() {
    let (mut connection, mut program) = open();
    let mut memory = vec![7; PAYLOAD];
    let data = heard(op::RW);
    let mut sent = 0;
    while connection.hear(&data, Span::over(&mut memory)) == Fate::Lives {
        sent += PAYLOAD;
        assert!(sent < 10 << 20, "it takes everything");
    }
    assert!(connection.backlog.len() <= crate::credit::ROOM as usize);
    // What was taken before is delivered.
    let mut got = vec![0; sent - connection.backlog.len()];
    program.read_exact(&mut got).expect("reads");
}

#[test]
fn a_guest_that_has_said_its_last_word_is_answered_when_all_is_delivered() {
    let (mut connection, mut program) = open();
    let mut hello = *b"hello";
    let data = heard(op::RW);
    assert_eq!(connection.hear(&data, Span::over(&mut hello)), Fate::Lives);
    let last = Header {
        flags: shutdown::BOTH,
        ..heard(op::SHUTDOWN)
    };
    assert_eq!(hear(&mut connection, &last), Fate::Reset);
    drop(connection);
    let mut got = Vec::new();
    program.read_to_end(&mut got).expect("reads");
    assert_eq!(got, b"hello");
}

#[test]
fn the_end_of_a_program_is_told_after_its_last_words() {
    let (mut connection, mut program) = open();
    program.write_all(b"bye").expect("writes");
    drop(program);
    let gone = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP;
    assert_eq!(connection.notice(gone), Fate::Lives);
    let mut memory = vec![0; PAYLOAD];
    assert_eq!(
        connection.say(&room(&mut memory)).0.map(|say| say.op),
        Some(op::RW)
    );
    let (say, fate) = connection.say(&room(&mut memory));
    assert_eq!(
        say.map(|say| (say.op, say.flags)),
        Some((op::SHUTDOWN, shutdown::BOTH))
    );
    assert_eq!(fate, Fate::Over);
}
