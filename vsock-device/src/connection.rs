//! One connection: what it hears from the guest, and what it has to say to it.
//!
//! It looks at its own stream and its own accounts and at nothing else: which connection a packet
//! is for, and when there is room on a ring, is the business of [`super::exchange`]. The stream is
//! watched edge-triggered, so `readable` and `writable` here are what is known of it until a read
//! or write says otherwise.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use nix::sys::epoll::EpollFlags;

use crate::credit::Credit;
use crate::packet::{Header, op, shutdown};
use crate::span::Span;

/// Names a connection to the guest: it never has two with the same ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ports {
    pub(crate) host: u32,
    pub(crate) guest: u32,
}

/// How far a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The host's program has not yet said all of which port it wants.
    Greeting(Vec<u8>),
    /// The guest is to be asked when it has rings.
    Waiting,
    /// The guest was asked.
    Asked,
    /// Both ends are connected.
    Open,
}

/// What becomes of a connection after something happened to it.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Fate {
    /// It goes on.
    Lives,
    /// It is over, and the guest knows.
    Over,
    /// It is over, and the guest must be told.
    Reset,
}

/// A packet for the guest, but for addresses and credit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Say {
    pub(crate) op: u16,
    pub(crate) flags: u32,
    pub(crate) len: usize,
}

impl Say {
    fn only(op: u16) -> Say {
        Say {
            op,
            flags: 0,
            len: 0,
        }
    }
}

/// A connection between a program on the host and one in the guest.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    pub(crate) ports: Ports,
    pub(crate) phase: Phase,
    pub(crate) credit: Credit,
    /// Whether the guest asked for it, and so chose the ports.
    pub(crate) by_guest: bool,
    /// Whether it stands in line for the ring to the guest.
    pub(crate) queued: bool,
    readable: bool,
    writable: bool,
    /// Bytes of the guest's that the host's program has not taken yet; bounded by credit.
    backlog: VecDeque<u8>,
    /// Each is true until the side in question says otherwise.
    host_sends: bool,
    host_receives: bool,
    guest_sends: bool,
    guest_receives: bool,
    /// Flags of a SHUTDOWN the guest is to hear of.
    closing: u32,
    /// Whether the guest is to hear that its request is granted.
    granted: bool,
    /// Whether the guest asked for our credit, or we asked for its.
    asked_for_credit: bool,
    asking_for_credit: bool,
}

impl Connection {
    fn new(stream: UnixStream, ports: Ports, phase: Phase) -> Connection {
        Connection {
            stream,
            ports,
            phase,
            credit: Credit::default(),
            by_guest: false,
            queued: false,
            readable: false,
            writable: true,
            backlog: VecDeque::new(),
            host_sends: true,
            host_receives: true,
            guest_sends: true,
            guest_receives: true,
            closing: 0,
            granted: false,
            asked_for_credit: false,
            asking_for_credit: false,
        }
    }

    /// A program on the host has connected. The stream must not block.
    pub(crate) fn from_host(stream: UnixStream) -> Connection {
        Connection::new(
            stream,
            Ports { host: 0, guest: 0 },
            Phase::Greeting(Vec::new()),
        )
    }

    /// The guest asked for a connection, and the host's program has been reached.
    pub(crate) fn from_guest(stream: UnixStream, ports: Ports, request: &Header) -> Connection {
        let mut connection = Connection::new(stream, ports, Phase::Open);
        connection.by_guest = true;
        connection.granted = true;
        connection.credit.hear(request.buf_alloc, request.fwd_cnt);
        connection
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What epoll says of the stream.
    pub(crate) fn notice(&mut self, events: EpollFlags) -> Fate {
        let gone = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        self.readable |= events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP) || gone;
        self.writable |= events.contains(EpollFlags::EPOLLOUT);
        match self.phase {
            Phase::Greeting(_) => self.greet(),
            // Nobody waits for the answer any more.
            Phase::Waiting if gone => Fate::Over,
            Phase::Asked if gone => Fate::Reset,
            Phase::Waiting | Phase::Asked => Fate::Lives,
            Phase::Open => {
                if gone {
                    self.host_is_deaf();
                }
                self.flush()
            }
        }
    }

    /// Reads `CONNECT PORT`, byte by byte, for what follows it is the guest's.
    fn greet(&mut self) -> Fate {
        let Phase::Greeting(line) = &mut self.phase else {
            return Fate::Lives;
        };
        let mut byte = [0];
        while line.len() < 32 {
            match io::Read::read(&mut &self.stream, &mut byte) {
                Ok(0) => return Fate::Over,
                Ok(_) if byte[0] == b'\n' => {
                    let Some(port) = wanted(line) else {
                        return Fate::Over;
                    };
                    self.ports.guest = port;
                    self.phase = Phase::Waiting;
                    return Fate::Lives;
                }
                Ok(_) => line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Fate::Lives;
                }
                Err(_) => return Fate::Over,
            }
        }
        Fate::Over
    }

    /// A packet of the guest's for this connection.
    pub(crate) fn hear(&mut self, header: &Header, payload: Span<'_>) -> Fate {
        let open = self.phase == Phase::Open;
        self.credit.hear(header.buf_alloc, header.fwd_cnt);
        if self.credit.allowed() > 0 {
            self.asking_for_credit = false;
        }
        match header.op {
            op::RST => {
                // What it sent before is still the host's.
                let _at_the_end = self.flush();
                Fate::Over
            }
            op::RESPONSE if self.phase == Phase::Asked => {
                self.phase = Phase::Open;
                let answer = format!("OK {}\n", self.ports.host);
                match (&self.stream).write_all(answer.as_bytes()) {
                    Ok(()) => Fate::Lives,
                    Err(_) => Fate::Reset,
                }
            }
            op::RW if open && self.guest_sends => self.pass_on(payload),
            op::CREDIT_UPDATE if open => Fate::Lives,
            op::CREDIT_REQUEST if open => {
                self.asked_for_credit = true;
                Fate::Lives
            }
            op::SHUTDOWN if open => {
                if header.flags & shutdown::RECEIVE != 0 && self.guest_receives {
                    self.guest_receives = false;
                    // The program on the host gets EPIPE from now on.
                    let _gone_is_fine = self.stream.shutdown(Shutdown::Read);
                }
                if header.flags & shutdown::SEND != 0 {
                    self.guest_sends = false;
                }
                self.flush()
            }
            _ => Fate::Reset,
        }
    }

    /// Data of the guest's for the program on the host.
    fn pass_on(&mut self, mut payload: Span<'_>) -> Fate {
        let len = payload.len();
        if !self.credit.receive(u32::try_from(len).unwrap_or(u32::MAX)) {
            return Fate::Reset;
        }
        if !self.host_receives {
            self.credit.pass(len as u32);
            return Fate::Lives;
        }
        if self.backlog.is_empty() && self.writable {
            while payload.len() > 0 {
                match payload.write_to(&mut &self.stream) {
                    Ok(count) => self.credit.pass(count as u32),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.writable = false;
                        break;
                    }
                    Err(_) => {
                        self.credit.pass(payload.len() as u32);
                        self.host_is_deaf();
                        return self.whether_over();
                    }
                }
            }
        }
        payload.append(&mut self.backlog);
        Fate::Lives
    }

    /// Gives the backlog to the program on the host, as far as it takes it.
    fn flush(&mut self) -> Fate {
        while self.writable && !self.backlog.is_empty() {
            let (front, _) = self.backlog.as_slices();
            match (&self.stream).write(front) {
                Ok(count) => {
                    self.backlog.drain(..count);
                    self.credit.pass(count as u32);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(_) => self.host_is_deaf(),
            }
        }
        if self.backlog.is_empty() && !self.guest_sends && self.host_receives {
            self.host_receives = false;
            let _gone_is_fine = self.stream.shutdown(Shutdown::Write);
        }
        self.whether_over()
    }

    /// The program on the host reads nothing any more.
    fn host_is_deaf(&mut self) {
        if self.host_receives {
            self.host_receives = false;
            self.closing |= shutdown::RECEIVE;
        }
        self.credit.pass(self.backlog.len() as u32);
        self.backlog.clear();
    }

    /// Over when nothing can flow either way any more, and nothing is left to flow or to be said.
    fn whether_over(&self) -> Fate {
        let to_guest = self.host_sends && self.guest_receives;
        let to_host = self.guest_sends && self.host_receives || !self.backlog.is_empty();
        if to_guest || to_host || self.closing != 0 || self.granted {
            return Fate::Lives;
        }
        // A guest that has said its last word waits for a reset (5.10.6.6).
        match !self.guest_sends && !self.guest_receives {
            true => Fate::Reset,
            false => Fate::Over,
        }
    }

    /// Whether there is something to say to the guest.
    pub(crate) fn has_word(&self) -> bool {
        match self.phase {
            Phase::Greeting(_) | Phase::Asked => false,
            Phase::Waiting => true,
            Phase::Open => {
                let data = self.readable && self.host_sends && self.guest_receives;
                self.granted
                    || self.closing != 0
                    || self.asked_for_credit
                    || self.credit.stale()
                    || data && (self.credit.allowed() > 0 || !self.asking_for_credit)
            }
        }
    }

    /// The next packet for the guest, its payload written into `room`, which must have room for
    /// some, if there is something to say.
    pub(crate) fn say(&mut self, room: &Span<'_>) -> (Option<Say>, Fate) {
        if self.phase == Phase::Waiting {
            self.phase = Phase::Asked;
            return (Some(Say::only(op::REQUEST)), Fate::Lives);
        }
        if self.phase != Phase::Open {
            return (None, Fate::Lives);
        }
        if std::mem::take(&mut self.granted) {
            return (Some(Say::only(op::RESPONSE)), self.whether_over());
        }
        if let Some(say) = self.data(room) {
            return (Some(say), Fate::Lives);
        }
        if self.closing != 0 {
            // Once neither side of the host is left, the guest need not wait for anything.
            let flags = std::mem::take(&mut self.closing);
            let say = Say {
                flags,
                ..Say::only(op::SHUTDOWN)
            };
            return (Some(say), self.whether_over());
        }
        if self.asked_for_credit || self.credit.stale() {
            self.asked_for_credit = false;
            return (Some(Say::only(op::CREDIT_UPDATE)), Fate::Lives);
        }
        (None, self.whether_over())
    }

    /// Data of the program on the host, as much as the guest takes.
    fn data(&mut self, room: &Span<'_>) -> Option<Say> {
        while self.readable && self.host_sends && self.guest_receives {
            let allowed = self.credit.allowed() as usize;
            if allowed == 0 {
                let again = std::mem::replace(&mut self.asking_for_credit, true);
                return (!again).then(|| Say::only(op::CREDIT_REQUEST));
            }
            let mut room = room.clone().first(allowed);
            match room.read_from(&mut &self.stream) {
                Ok(0) => {
                    self.host_sends = false;
                    self.closing |= shutdown::SEND;
                }
                Ok(len) => {
                    self.credit.send(len as u32);
                    return Some(Say {
                        len,
                        ..Say::only(op::RW)
                    });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(_) => {
                    self.host_sends = false;
                    self.closing |= shutdown::SEND;
                    self.host_is_deaf();
                }
            }
        }
        None
    }

    /// The guest has lost its end. True when this one waits for the next guest, which is then asked
    /// anew.
    pub(crate) fn survives(&mut self) -> bool {
        match self.phase {
            Phase::Greeting(_) | Phase::Waiting => true,
            Phase::Asked => {
                self.phase = Phase::Waiting;
                true
            }
            Phase::Open => {
                let _at_the_end = self.flush();
                false
            }
        }
    }
}

/// The port in `CONNECT PORT`.
fn wanted(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let connect = words.next()?.eq_ignore_ascii_case("connect");
    let port = words.next()?.parse().ok()?;
    (connect && words.next().is_none()).then_some(port)
}

#[cfg(test)]
mod tests;
