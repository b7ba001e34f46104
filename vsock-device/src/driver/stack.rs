//! What runs in the guest: programs that listen on vsock ports.

use std::collections::{HashMap, VecDeque};

use super::{CID, Guest};
use crate::credit::Credit;
use crate::packet::{HOST_CID, Header, PAYLOAD, STREAM, op, shutdown};

/// What [`Port::Source`] sends.
static BLOCK: [u8; PAYLOAD] = [0x5a; PAYLOAD];

/// Where somebody listens in the guest. All other ports refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Port {
    /// Sends back what it gets, and ends when the host does.
    Echo = 7,
    /// Takes the number of bytes its first eight bytes say, and answers with one byte.
    Sink = 9,
    /// Sends as many bytes as its first eight bytes say.
    Source = 19,
    /// Takes [`Stack::deaf`] at its word: does not even answer while that is set, and is an
    /// [`Port::Echo`] otherwise.
    Deaf = 13,
}

impl Port {
    fn of(number: u32) -> Option<Port> {
        [Port::Echo, Port::Sink, Port::Source, Port::Deaf]
            .into_iter()
            .find(|port| *port as u32 == number)
    }
}

#[derive(Debug)]
struct Stream {
    port: Port,
    credit: Credit,
    /// What it was told to expect or to send.
    left: Option<u64>,
    out: VecDeque<u8>,
    host_sends: bool,
    /// Whether our SHUTDOWN is out.
    said: bool,
}

/// All programs of one boot of a guest.
#[derive(Debug, Default)]
pub struct Stack {
    streams: HashMap<(u32, u32), Stream>,
    /// Replies for which there was no room on the ring.
    replies: VecDeque<Header>,
    /// Whether [`Port::Deaf`] is.
    pub deaf: bool,
}

impl Stack {
    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Does what there is to do. True when there was something.
    pub fn turn(&mut self, guest: &mut Guest) -> bool {
        let packets = guest.receive();
        let mut busy = !packets.is_empty();
        for (header, payload) in packets {
            self.hear(&header, &payload);
        }
        while let Some(reply) = self.replies.front() {
            if !guest.send(reply, &[]) {
                return busy;
            }
            self.replies.pop_front();
        }
        for (ports, stream) in &mut self.streams {
            busy |= stream.speak(*ports, guest);
        }
        busy
    }

    fn hear(&mut self, header: &Header, payload: &[u8]) {
        let ports = (header.src_port, header.dst_port);
        if header.op == op::REQUEST {
            match Port::of(header.dst_port) {
                Some(Port::Deaf) if self.deaf => {}
                Some(port) => {
                    let mut stream = Stream {
                        port,
                        credit: Credit::default(),
                        left: None,
                        out: VecDeque::new(),
                        host_sends: true,
                        said: false,
                    };
                    stream.credit.hear(header.buf_alloc, header.fwd_cnt);
                    self.replies
                        .push_back(packet(ports, &mut stream.credit, op::RESPONSE));
                    self.streams.insert(ports, stream);
                }
                None => self
                    .replies
                    .push_back(packet(ports, &mut Credit::default(), op::RST)),
            }
            return;
        }
        let Some(stream) = self.streams.get_mut(&ports) else {
            if header.op != op::RST {
                self.replies
                    .push_back(packet(ports, &mut Credit::default(), op::RST));
            }
            return;
        };
        stream.credit.hear(header.buf_alloc, header.fwd_cnt);
        match header.op {
            op::RW => {
                assert!(
                    stream.credit.receive(payload.len() as u32),
                    "the host sent more than it may"
                );
                stream.take(payload);
            }
            op::CREDIT_REQUEST => {
                let update = packet(ports, &mut stream.credit, op::CREDIT_UPDATE);
                self.replies.push_back(update);
            }
            op::SHUTDOWN if header.flags & shutdown::BOTH == shutdown::BOTH => {
                self.replies
                    .push_back(packet(ports, &mut stream.credit, op::RST));
                self.streams.remove(&ports);
            }
            op::SHUTDOWN => stream.host_sends &= header.flags & shutdown::SEND == 0,
            op::CREDIT_UPDATE => {}
            _ => drop(self.streams.remove(&ports)),
        }
    }
}

impl Stream {
    fn take(&mut self, mut payload: &[u8]) {
        let len = payload.len() as u32;
        match self.port {
            // Passed on when it is sent back: an echo that is not read takes no more.
            Port::Echo | Port::Deaf => return self.out.extend(payload),
            Port::Sink | Port::Source if self.left.is_none() => {
                let count;
                (count, payload) = payload
                    .split_first_chunk()
                    .expect("eight bytes come at once");
                self.left = Some(u64::from_le_bytes(*count));
            }
            _ => {}
        }
        self.credit.pass(len);
        if let (Port::Sink, Some(left)) = (self.port, &mut self.left) {
            *left -= payload.len() as u64;
            if *left == 0 {
                self.out.push_back(1);
            }
        }
    }

    /// Sends what it has, as far as credit and ring allow.
    fn speak(&mut self, ports: (u32, u32), guest: &mut Guest) -> bool {
        let mut busy = false;
        while let (Port::Source, Some(left @ 1..)) = (self.port, self.left)
            && guest.can_send()
        {
            let most = left.min(PAYLOAD as u64) as u32;
            let count = most.min(self.credit.allowed());
            if count == 0 {
                break;
            }
            self.left = Some(left - u64::from(count));
            self.credit.send(count);
            let mut header = packet(ports, &mut self.credit, op::RW);
            header.len = count;
            guest.send(&header, &BLOCK[..count as usize]);
            busy = true;
        }
        while !self.out.is_empty() && guest.can_send() {
            let count = self
                .out
                .len()
                .min(self.credit.allowed() as usize)
                .min(PAYLOAD);
            if count == 0 {
                break;
            }
            let payload: Vec<u8> = self.out.drain(..count).collect();
            if matches!(self.port, Port::Echo | Port::Deaf) {
                self.credit.pass(count as u32);
            }
            self.credit.send(count as u32);
            let mut header = packet(ports, &mut self.credit, op::RW);
            header.len = count as u32;
            guest.send(&header, &payload);
            busy = true;
        }
        if self.credit.stale() && guest.can_send() {
            let update = packet(ports, &mut self.credit, op::CREDIT_UPDATE);
            guest.send(&update, &[]);
            busy = true;
        }
        if !self.host_sends && self.out.is_empty() && !self.said && guest.can_send() {
            self.said = true;
            let mut last = packet(ports, &mut self.credit, op::SHUTDOWN);
            last.flags = shutdown::BOTH;
            guest.send(&last, &[]);
            busy = true;
        }
        busy
    }
}

/// A packet to the host's port `ports.0` from the guest's `ports.1`.
fn packet(ports: (u32, u32), credit: &mut Credit, op: u16) -> Header {
    let (buf_alloc, fwd_cnt) = credit.tell();
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: ports.1,
        dst_port: ports.0,
        kind: STREAM,
        op,
        buf_alloc,
        fwd_cnt,
        ..Header::default()
    }
}
