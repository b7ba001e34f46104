//! One virtqueue as a frontend sets it up: where it is, and the eventfds that go with it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::rc::Rc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

/// Most entries a ring may have.
pub(crate) const ENTRIES: u16 = 1024;

/// A ring to or from the guest.
pub(crate) struct Ring {
    pub(crate) queue: Queue,
    kick: Option<Kick>,
    call: Option<File>,
    /// Between SET_VRING_KICK and GET_VRING_BASE.
    started: bool,
    /// Where it stood when it was stopped: in what the guest offered, and in what was used of it.
    left_at: Option<(u16, u16)>,
    pub(crate) enabled: bool,
}

impl Ring {
    pub(crate) fn new() -> Ring {
        Ring {
            queue: Queue::new(ENTRIES).expect("a power of two"),
            kick: None,
            call: None,
            started: false,
            left_at: None,
            enabled: false,
        }
    }

    /// Whether packets may be put on it and taken from it.
    pub(crate) fn works(&self, memory: &GuestMemoryMmap) -> bool {
        self.started && self.enabled && self.queue.is_valid(memory)
    }

    pub(crate) fn start(&mut self, kick: Option<Kick>) {
        self.kick = kick;
        self.started = true;
        self.queue.set_ready(true);
    }

    /// Whether it goes on where it was stopped: then the guest was paused. A new driver begins anew.
    pub(crate) fn goes_on(&self) -> bool {
        self.left_at == Some((self.queue.next_avail(), self.queue.next_used()))
    }

    /// Stops it, and says where it was.
    pub(crate) fn stop(&mut self) -> u16 {
        self.left_at = Some((self.queue.next_avail(), self.queue.next_used()));
        self.started = false;
        self.queue.set_ready(false);
        self.kick = None;
        self.call = None;
        self.queue.next_avail()
    }

    pub(crate) fn set_call(&mut self, call: Option<File>) {
        self.call = call;
    }

    /// The guest has rung: that is all one learns from it, so a bell that did not ring is no error.
    pub(crate) fn hear_kick(&mut self) {
        if let Some(kick) = &mut self.kick {
            let mut count = [0; 8];
            let _rang = kick.file.read(&mut count);
        }
    }

    /// Tells the guest that something was used, unless it does not want to know.
    pub(crate) fn notify(&mut self, memory: &GuestMemoryMmap) {
        if !self.queue.needs_notification(memory).unwrap_or(true) {
            return;
        }
        if let Some(call) = &mut self.call {
            // A full counter rings all the same.
            let _rung = call.write(&1u64.to_ne_bytes());
        }
    }
}

/// The eventfd by which the guest says that it has put something on a ring, watched as long as it
/// is here.
pub(crate) struct Kick {
    file: File,
    epoll: Rc<Epoll>,
}

impl Kick {
    pub(crate) fn watch(file: File, epoll: &Rc<Epoll>, token: u64) -> std::io::Result<Kick> {
        let flags = OFlag::from_bits_retain(fcntl(file.as_fd(), FcntlArg::F_GETFL)?);
        fcntl(file.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        epoll.add(&file, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        Ok(Kick {
            file,
            epoll: epoll.clone(),
        })
    }
}

impl Drop for Kick {
    /// Closing is not enough: epoll watches the open file, of which the frontend holds a descriptor
    /// too (epoll(7), the first question and answer about closing).
    fn drop(&mut self) {
        let _was_watched = self.epoll.delete(&self.file);
    }
}
