//! The driver's side of a split virtqueue (virtio 1.2, 2.7).

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::packet::{HEADER, Header, PAYLOAD};

/// Entries of a ring, as QEMU's vsock device has them.
pub const ENTRIES: u16 = 128;
/// Packets a ring can hold: each takes two entries, for header and payload, as with Linux.
pub const SLOTS: u16 = ENTRIES / 2;

const AVAILABLE: u64 = 16 * ENTRIES as u64;
const USED: u64 = AVAILABLE + 4096;
const BUFFERS: u64 = 16 * 1024;
const SLOT: u64 = 64 + PAYLOAD as u64;

/// Guest memory one ring takes with its buffers, in bytes.
pub(super) const SIZE: u64 = BUFFERS + SLOT * SLOTS as u64;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A ring, its buffers, and its two bells.
#[derive(Debug)]
pub struct Queue {
    base: u64,
    memory: GuestMemoryMmap,
    added: u16,
    seen: u16,
    free: Vec<u16>,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
}

impl Queue {
    pub(super) fn new(memory: GuestMemoryMmap, base: u64) -> std::io::Result<Queue> {
        memory
            .write_slice(&[0; BUFFERS as usize], GuestAddress(base))
            .map_err(std::io::Error::other)?;
        Ok(Queue {
            base,
            memory,
            added: 0,
            seen: 0,
            free: (0..SLOTS).rev().collect(),
            kick: EventFd::new(nonblocking())?,
            call: EventFd::new(nonblocking())?,
        })
    }

    /// Where its three parts are: descriptors, available and used.
    pub(super) fn parts(&self) -> [u64; 3] {
        [0, AVAILABLE, USED].map(|offset| self.base + offset)
    }

    fn put<T: vm_memory::ByteValued>(&self, offset: u64, value: T) {
        let at = GuestAddress(self.base + offset);
        self.memory.write_obj(value, at).expect("within memory");
    }

    fn number(&self, offset: u64) -> u16 {
        let at = GuestAddress(self.base + offset);
        self.memory
            .load(at, Ordering::Acquire)
            .expect("within memory")
    }

    fn set_number(&self, offset: u64, value: u16) {
        let at = GuestAddress(self.base + offset);
        self.memory
            .store(value, at, Ordering::Release)
            .expect("within memory");
    }

    /// Writes a descriptor as it is, sensible or not.
    pub fn describe(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = u64::from(index) * 16;
        self.put(at, address);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Makes a chain available by the index of its head, sensible or not.
    pub fn offer(&mut self, head: u16) {
        self.put(AVAILABLE + 4 + 2 * u64::from(self.added % ENTRIES), head);
        self.added = self.added.wrapping_add(1);
        self.set_number(AVAILABLE + 2, self.added);
    }

    /// Claims to have made that many chains available.
    pub fn claim(&mut self, added: u16) {
        self.added = added;
        self.set_number(AVAILABLE + 2, added);
    }

    /// Rings the bell, whether or not anybody wants to hear it.
    pub fn ring(&self) {
        let _full = self.kick.write(1);
    }

    /// Rings it if the device wants to know of what was added since `before` (virtio 1.2, 2.7.10).
    pub(super) fn ring_if_wanted(&self, before: u16) {
        fence(Ordering::SeqCst);
        let event = self.number(USED + 4 + 8 * u64::from(ENTRIES));
        if self.added.wrapping_sub(event).wrapping_sub(1) < self.added.wrapping_sub(before) {
            self.ring();
        }
    }

    pub(super) fn added(&self) -> u16 {
        self.added
    }

    /// Address of a slot's header; its payload follows 64 bytes later.
    pub fn buffer(&self, slot: u16) -> u64 {
        self.base + BUFFERS + SLOT * u64::from(slot)
    }

    /// Gives the device a slot to write a packet of at most `room` bytes into.
    pub(super) fn offer_room(&mut self, slot: u16, room: u32) {
        let at = self.buffer(slot);
        self.describe(2 * slot, at, HEADER as u32, NEXT | WRITE, 2 * slot + 1);
        self.describe(2 * slot + 1, at + 64, room, WRITE, 0);
        self.offer(2 * slot);
    }

    /// Gives the device a packet. False when no slot is free.
    pub(super) fn offer_packet(&mut self, header: &Header, payload: &[u8]) -> bool {
        let Some(slot) = self.free.pop() else {
            return false;
        };
        let at = self.buffer(slot);
        self.memory
            .write_slice(&header.encode(), GuestAddress(at))
            .expect("within memory");
        self.describe(
            2 * slot,
            at,
            HEADER as u32,
            NEXT * u16::from(!payload.is_empty()),
            2 * slot + 1,
        );
        if !payload.is_empty() {
            self.memory
                .write_slice(payload, GuestAddress(at + 64))
                .expect("within memory");
            self.describe(2 * slot + 1, at + 64, payload.len() as u32, 0, 0);
        }
        self.offer(2 * slot);
        true
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn all_slots(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.free)
    }

    pub(super) fn give_back(&mut self, slot: u16) {
        self.free.push(slot);
    }

    /// The next slot the device is done with.
    pub(super) fn used(&mut self) -> Option<u16> {
        if self.number(USED + 2) == self.seen {
            // Ring for the next one, and look again: it may have come meanwhile.
            self.set_number(AVAILABLE + 4 + 2 * u64::from(ENTRIES), self.seen);
            fence(Ordering::SeqCst);
            if self.number(USED + 2) == self.seen {
                return None;
            }
        }
        let at = USED + 4 + 8 * u64::from(self.seen % ENTRIES);
        let head = self.number(at);
        self.seen = self.seen.wrapping_add(1);
        Some(head / 2)
    }

    /// The packet the device wrote into a slot.
    pub(super) fn packet(&self, slot: u16) -> (Header, Vec<u8>) {
        let mut bytes = [0; HEADER];
        let at = self.buffer(slot);
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .expect("within memory");
        let header = Header::decode(&bytes);
        let mut payload = vec![0; header.len as usize];
        self.memory
            .read_slice(&mut payload, GuestAddress(at + 64))
            .expect("within memory");
        (header, payload)
    }
}

/// `O_NONBLOCK` as vmm-sys-util takes it.
pub(super) fn nonblocking() -> i32 {
    nix::fcntl::OFlag::O_NONBLOCK.bits()
}
