//! Taking packets off the ring from the guest and putting packets on the ring to it.

use virtio_queue::{QueueOwnedT, QueueT};

use crate::exchange::Exchange;
use crate::frontend::{RX, Setup, TX};
use crate::packet::{HEADER, Header, PAYLOAD};
use crate::ring::Ring;
use crate::span::Span;
use vm_memory::GuestMemoryMmap;

/// How many packets are moved one way before the other way, and then everybody else, gets a turn:
/// a guest that never stops sending must not stop the daemon from listening.
const TURN: usize = 256;

/// Moves packets both ways. True when there is more to do, which needs no event.
pub(crate) fn pump(setup: &mut Setup, exchange: &mut Exchange) -> bool {
    if !setup.works() {
        return false;
    }
    let memory = setup.memory.clone();
    let mut more = false;
    // A ring on which something cannot be read or written is left alone until the guest resets it.
    for _ in 0..2 {
        let from = take(&mut setup.rings[TX], &memory, exchange).unwrap_or_default();
        let to = put(&mut setup.rings[RX], &memory, exchange).unwrap_or_default();
        more = from.more || to.more;
        // What came may be answered, and what went may have made room for more to come.
        if from.moved + to.moved == 0 {
            return false;
        }
        if from.moved >= TURN || to.moved >= TURN {
            return more;
        }
        more = true;
    }
    more
}

#[derive(Default)]
struct Moved {
    moved: usize,
    more: bool,
}

/// From the guest, as long as there is room for the answers.
fn take(
    ring: &mut Ring,
    memory: &GuestMemoryMmap,
    exchange: &mut Exchange,
) -> Result<Moved, virtio_queue::Error> {
    let mut moved = 0;
    let mut more = true;
    for _ in 0..TURN {
        if exchange.crowded() {
            break;
        }
        let Some(chain) = ring.queue.iter(memory)?.next() else {
            more = ring.queue.enable_notification(memory)?;
            if more {
                continue;
            }
            break;
        };
        let head = chain.head_index();
        if let Some(mut packet) = Span::readable(chain, memory)
            && let Some(bytes) = packet.take::<HEADER>()
        {
            let header = Header::decode(&bytes);
            let len = header.len as usize;
            match len <= packet.len() && len <= PAYLOAD {
                true => exchange.hear(&header, packet.split(len)),
                false => exchange.hear_nonsense(&header),
            }
        }
        moved += 1;
        give_back(ring, memory, head, 0);
    }
    if moved > 0 {
        ring.notify(memory);
    }
    Ok(Moved { moved, more })
}

/// To the guest, as long as it gives room.
fn put(
    ring: &mut Ring,
    memory: &GuestMemoryMmap,
    exchange: &mut Exchange,
) -> Result<Moved, virtio_queue::Error> {
    let mut moved = 0;
    let mut more = true;
    for _ in 0..TURN {
        if !exchange.has_word() {
            break;
        }
        let Some(chain) = ring.queue.iter(memory)?.next() else {
            more = ring.queue.enable_notification(memory)?;
            if more {
                continue;
            }
            break;
        };
        let head = chain.head_index();
        let used = match Span::writable(chain, memory) {
            // Without room for data it could not be told from one that has to wait.
            Some(room) if room.len() > HEADER => match exchange.say(room.first(HEADER + PAYLOAD)) {
                Some(used) => used,
                None => {
                    ring.queue.go_to_previous_position();
                    break;
                }
            },
            _ => 0,
        };
        moved += 1;
        give_back(ring, memory, head, used as u32);
    }
    more &= exchange.has_word();
    if moved > 0 {
        ring.notify(memory);
    }
    Ok(Moved { moved, more })
}

/// What cannot be given back was never in the guest's ring: its loss alone.
fn give_back(ring: &mut Ring, memory: &GuestMemoryMmap, head: u16, used: u32) {
    let _no_such_descriptor = ring.queue.add_used(memory, head, used);
}
