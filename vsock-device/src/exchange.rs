//! All connections, and which packet belongs to which.
//!
//! Nothing the guest sends can make this grow without bound: connections are counted, answers to
//! packets that belong to none stand in a line of which [`Exchange::crowded`] tells, and then no
//! packet is taken from the guest until it has taken some.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::connection::{Connection, Fate, Phase, Ports};
use crate::packet::{HEADER, HOST_CID, Header, STREAM, op};
use crate::span::Span;

/// Most connections at a time.
pub(crate) const CONNECTIONS: usize = 1024;

/// How many resets may wait for the guest before nothing more is taken from it.
const RESETS: usize = 1024;

/// How long rings may have stopped before the guest is taken for lost. QEMU stops them alike for a
/// reset and for a pause (`stop` and `cont`, a disk error): a harness that pauses a guest to look at
/// it must not find its connections gone, and one whose guest reboots must not wait for it.
const PAUSE: Duration = Duration::from_secs(2);

/// Host ports begin here: below are those of services (vsock(7), `VMADDR_PORT_ANY` aside).
const FIRST_PORT: u32 = 1024;

/// The connections of one guest.
pub(crate) struct Exchange {
    cid: u64,
    /// A guest's connection to port P goes to this path with `_P` appended.
    socket: PathBuf,
    epoll: Rc<Epoll>,
    /// By epoll's token, which is never used again.
    connections: HashMap<u64, Connection>,
    tokens: HashMap<Ports, u64>,
    next_token: u64,
    next_port: u32,
    /// Those with something to say to the guest, in turns.
    line: VecDeque<u64>,
    resets: VecDeque<Ports>,
    /// Whether there are rings.
    open: bool,
    /// Since when there are none any more, while that may be a pause.
    paused: Option<Instant>,
}

impl Exchange {
    pub(crate) fn new(cid: u64, socket: &Path, epoll: Rc<Epoll>, first_token: u64) -> Exchange {
        Exchange {
            cid,
            socket: socket.to_owned(),
            epoll,
            connections: HashMap::new(),
            tokens: HashMap::new(),
            next_token: first_token,
            next_port: FIRST_PORT,
            line: VecDeque::new(),
            resets: VecDeque::new(),
            open: false,
            paused: None,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.connections.len() >= CONNECTIONS
    }

    /// Whether the guest must take something first.
    pub(crate) fn crowded(&self) -> bool {
        self.resets.len() >= RESETS
    }

    /// Whether there is anything to say to the guest.
    pub(crate) fn has_word(&self) -> bool {
        !self.resets.is_empty() || !self.line.is_empty()
    }

    /// The rings have stopped: the guest is paused or has been reset, which is not told. So nobody is
    /// hung up on yet; see [`Exchange::expire`].
    pub(crate) fn pause(&mut self) {
        if self.open {
            self.open = false;
            self.paused = Some(Instant::now());
        }
    }

    /// The rings work. Unless they go on where they were stopped the guest has started anew.
    pub(crate) fn resume(&mut self, goes_on: bool) {
        if self.open {
            return;
        }
        if !goes_on {
            self.guest_lost();
        }
        self.open = true;
        self.paused = None;
        let tokens: Vec<u64> = self.connections.keys().copied().collect();
        for token in tokens {
            self.settle(token, Fate::Lives);
        }
    }

    /// How long it may still be a pause, if the rings have stopped.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.paused
            .map(|since| PAUSE.saturating_sub(since.elapsed()))
    }

    /// Takes for lost a guest whose pause has been too long.
    pub(crate) fn expire(&mut self) {
        if self.patience() == Some(Duration::ZERO) {
            self.guest_lost();
        }
    }

    /// The guest has lost its end of all connections, or will not know of it: then a reset at the
    /// next occasion tells it, which does no harm to one that has started anew. Ports it chose
    /// itself are left out: it may choose them again.
    pub(crate) fn guest_lost(&mut self) {
        self.open = false;
        self.paused = None;
        self.line.clear();
        self.resets.clear();
        let tokens: Vec<u64> = self.connections.keys().copied().collect();
        for token in tokens {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            connection.queued = false;
            let known = !matches!(connection.phase, Phase::Greeting(_) | Phase::Waiting);
            let ports = connection.ports;
            if known {
                self.tokens.remove(&ports);
                if !connection.by_guest {
                    self.resets.push_back(ports);
                }
            }
            if !connection.survives() {
                self.remove(token);
            }
        }
    }

    /// A program on the host has connected.
    pub(crate) fn accept(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.insert(Connection::from_host(stream)).map(drop)
    }

    fn insert(&mut self, connection: Connection) -> io::Result<u64> {
        let token = self.next_token;
        self.next_token += 1;
        let all = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        self.epoll
            .add(connection.stream(), EpollEvent::new(all, token))?;
        self.connections.insert(token, connection);
        Ok(token)
    }

    /// What epoll says of a stream. One that has gone since it was asked is no error.
    pub(crate) fn notice(&mut self, token: u64, events: EpollFlags) {
        if let Some(connection) = self.connections.get_mut(&token) {
            let fate = connection.notice(events);
            self.settle(token, fate);
        }
    }

    /// A packet of the guest's.
    pub(crate) fn hear(&mut self, header: &Header, payload: Span<'_>) {
        if header.src_cid != self.cid || header.dst_cid != HOST_CID {
            return;
        }
        let ports = Ports {
            host: header.dst_port,
            guest: header.src_port,
        };
        match self.tokens.get(&ports).copied() {
            Some(token) if header.kind == STREAM => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    let fate = connection.hear(header, payload);
                    self.settle(token, fate);
                }
            }
            Some(token) => self.settle(token, Fate::Reset),
            None if header.kind == STREAM && header.op == op::REQUEST => {
                if self.reach(header, ports).is_err() {
                    self.resets.push_back(ports);
                }
            }
            None if header.op == op::RST => {}
            None => self.resets.push_back(ports),
        }
    }

    /// A packet whose payload is not what its header says.
    pub(crate) fn hear_nonsense(&mut self, header: &Header) {
        let kind = 0;
        self.hear(&Header { kind, ..*header }, Span::default());
    }

    /// Connects the guest to whoever listens on the host. Never waits: a listener that does not
    /// accept refuses.
    fn reach(&mut self, request: &Header, ports: Ports) -> io::Result<()> {
        if self.is_full() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let mut path = self.socket.clone().into_os_string();
        path.push(format!("_{}", ports.host));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(stream.as_raw_fd(), &UnixAddr::new(Path::new(&path))?)?;
        let token = self.insert(Connection::from_guest(stream.into(), ports, request))?;
        self.tokens.insert(ports, token);
        self.settle(token, Fate::Lives);
        Ok(())
    }

    /// Draws the consequences.
    fn settle(&mut self, token: u64, fate: Fate) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        match fate {
            Fate::Lives if self.open && !connection.queued && connection.has_word() => {
                connection.queued = true;
                self.line.push_back(token);
            }
            Fate::Lives => {}
            Fate::Over => self.remove(token),
            Fate::Reset => {
                self.resets.push_back(connection.ports);
                self.remove(token);
            }
        }
    }

    /// Closes a connection; its place in the line is skipped when its turn comes.
    fn remove(&mut self, token: u64) {
        if let Some(connection) = self.connections.remove(&token) {
            if self.tokens.get(&connection.ports) == Some(&token) {
                self.tokens.remove(&connection.ports);
            }
            let _was_watched = self.epoll.delete(connection.stream());
        }
    }

    /// Writes the next packet for the guest to `room` and returns its size, if there is one.
    pub(crate) fn say(&mut self, room: Span<'_>) -> Option<usize> {
        if let Some(ports) = self.resets.pop_front() {
            let header = Header {
                op: op::RST,
                ..self.address(ports)
            };
            room.put(&header.encode());
            return Some(HEADER);
        }
        let mut payload = room.clone();
        payload.split(HEADER);
        while let Some(token) = self.line.pop_front() {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            connection.queued = false;
            if connection.phase == Phase::Waiting {
                // A port of its own for each time the guest is asked, so that a late answer to an
                // earlier question cannot be taken for one to this.
                let ports = Ports {
                    host: self.next_port,
                    ..connection.ports
                };
                self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
                if self.tokens.contains_key(&ports) {
                    connection.queued = true;
                    self.line.push_back(token);
                    continue;
                }
                connection.ports = ports;
                self.tokens.insert(ports, token);
            }
            let (say, fate) = connection.say(&payload);
            let packet = say.map(|say| {
                let (buf_alloc, fwd_cnt) = connection.credit.tell();
                let header = Header {
                    op: say.op,
                    flags: say.flags,
                    len: say.len as u32,
                    buf_alloc,
                    fwd_cnt,
                    ..address(self.cid, connection.ports)
                };
                room.put(&header.encode());
                HEADER + say.len
            });
            self.settle(token, fate);
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    fn address(&self, ports: Ports) -> Header {
        address(self.cid, ports)
    }
}

fn address(cid: u64, ports: Ports) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: cid,
        src_port: ports.host,
        dst_port: ports.guest,
        kind: STREAM,
        ..Header::default()
    }
}
