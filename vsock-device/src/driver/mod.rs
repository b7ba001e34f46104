//! A guest's driver without a guest: drives the daemon as QEMU and a Linux guest would, for tests
//! and benchmarks, thousands of times in the time one guest takes to boot.
//!
//! [`Guest`] is the machine: its memory, its rings, and QEMU's side of the vhost-user socket. What
//! runs in it is [`Stack`]: programs that listen on a few ports. [`Machine`] is both in a thread.

mod machine;
mod queue;
mod stack;

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::packet::Header;
pub use machine::{Machine, plug};
pub use queue::{ENTRIES, Queue, SLOTS};
pub use stack::{Port, Stack};

/// The CID daemons under test are told.
pub const CID: u64 = 3;

/// Where QEMU has guest memory: of no interest but to itself.
const AT: u64 = 0x7f00_0000_0000;

/// Bytes of data in a packet to the guest: Linux offers pages.
const ROOM: u32 = 4096;

/// A machine with a vsock device.
pub struct Guest {
    frontend: Frontend,
    memory: GuestMemoryMmap,
    /// The rings, while a driver has them set up.
    rings: Option<[Queue; 2]>,
    bells: Epoll,
    waker: EventFd,
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Guest {
    /// Plugs the device in, as QEMU does: its memory is known, its rings are not.
    ///
    /// # Errors
    /// When the daemon does not do as the protocol says.
    pub fn plug(vhost: &Path) -> io::Result<Guest> {
        let file = memfd_create("guest", MFdFlags::MFD_CLOEXEC)?;
        let file = std::fs::File::from(file);
        let size = 2 * queue::SIZE;
        file.set_len(size)?;
        let range = (
            GuestAddress(0),
            size as usize,
            Some(FileOffset::new(file, 0)),
        );
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).map_err(failed)?;
        let mut frontend = Frontend::from_stream(UnixStream::connect(vhost)?, 2);
        let features = frontend.get_features().map_err(failed)?;
        let offered = frontend.get_protocol_features().map_err(failed)?;
        let wanted = vhost::vhost_user::message::VhostUserProtocolFeatures::MQ
            | vhost::vhost_user::message::VhostUserProtocolFeatures::CONFIG;
        frontend
            .set_protocol_features(offered & wanted)
            .map_err(failed)?;
        let (_, config) = frontend
            .get_config(0, 8, VhostUserConfigFlags::WRITABLE, &[0; 8])
            .map_err(failed)?;
        if config != CID.to_le_bytes() {
            return Err(failed(format!("the device says its CID is {config:?}")));
        }
        frontend.set_owner().map_err(failed)?;
        let wanted = 1 << 32 | 1 << 29 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        frontend.set_features(features & wanted).map_err(failed)?;
        let (bells, waker) = (Epoll::new()?, EventFd::new(queue::nonblocking())?);
        listen_to(&bells, &waker)?;
        Ok(Guest {
            frontend,
            memory,
            rings: None,
            bells,
            waker,
        })
    }

    /// The driver is loaded: rings are set up and started, one after the other.
    ///
    /// # Errors
    /// See [`Guest::plug`].
    pub fn boot(&mut self) -> io::Result<()> {
        self.frontend
            .set_mem_table(&[self.region()?])
            .map_err(failed)?;
        let mut rings = [
            Queue::new(self.memory.clone(), 0)?,
            Queue::new(self.memory.clone(), queue::SIZE)?,
        ];
        for slot in rings[0].all_slots().into_iter().rev() {
            rings[0].offer_room(slot, ROOM);
        }
        for ring in &rings {
            listen_to(&self.bells, &ring.call)?;
        }
        self.rings = Some(rings);
        self.resume([0; 2])
    }

    fn region(&self) -> io::Result<VhostUserMemoryRegionInfo> {
        let region = self
            .memory
            .iter()
            .next()
            .ok_or_else(|| failed("no memory"))?;
        let file = region.file_offset().ok_or_else(|| failed("no file"))?;
        Ok(VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: region.len(),
            userspace_addr: AT,
            mmap_offset: 0,
            mmap_handle: file.file().as_raw_fd(),
        })
    }

    /// The machine is paused: its rings stop as they are. Returns where they were.
    ///
    /// # Errors
    /// See [`Guest::plug`].
    pub fn pause(&mut self) -> io::Result<[u16; 2]> {
        let base = |index| self.frontend.get_vring_base(index).map_err(failed);
        Ok([base(0)? as u16, base(1)? as u16])
    }

    /// The machine goes on: its rings start where they were.
    ///
    /// # Errors
    /// See [`Guest::plug`].
    pub fn resume(&mut self, bases: [u16; 2]) -> io::Result<()> {
        let Some(rings) = &self.rings else {
            return Ok(());
        };
        for (index, ring) in rings.iter().enumerate() {
            let [desc_table_addr, avail_ring_addr, used_ring_addr] = ring.parts().map(|at| AT + at);
            let config = VringConfigData {
                queue_max_size: ENTRIES,
                queue_size: ENTRIES,
                flags: 0,
                desc_table_addr,
                used_ring_addr,
                avail_ring_addr,
                log_addr: None,
            };
            let done = (|| {
                self.frontend.set_vring_num(index, ENTRIES)?;
                self.frontend.set_vring_base(index, bases[index])?;
                self.frontend.set_vring_addr(index, &config)?;
                self.frontend.set_vring_kick(index, &ring.kick)?;
                self.frontend.set_vring_call(index, &ring.call)
            })();
            done.map_err(failed)?;
        }
        for index in 0..rings.len() {
            self.frontend
                .set_vring_enable(index, true)
                .map_err(failed)?;
        }
        rings[0].ring();
        Ok(())
    }

    /// The machine is reset, or its driver unloaded.
    ///
    /// # Errors
    /// See [`Guest::plug`].
    pub fn reset(&mut self) -> io::Result<()> {
        if let Some(rings) = self.rings.take() {
            for (index, ring) in rings.iter().enumerate() {
                let bell = (ring.call.as_raw_fd(), EpollEvent::default());
                // Closing is not enough: the daemon has a descriptor of it too.
                self.bells.ctl(ControlOperation::Delete, bell.0, bell.1)?;
                self.frontend.get_vring_base(index).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The rings to and from the guest, for tests that do to them what no driver does.
    pub fn rings(&mut self) -> Option<&mut [Queue; 2]> {
        self.rings.as_mut()
    }

    /// Sends a packet. False when there are no rings or they are full.
    pub fn send(&mut self, header: &Header, payload: &[u8]) -> bool {
        let Some([_, tx]) = &mut self.rings else {
            return false;
        };
        while let Some(slot) = tx.used() {
            tx.give_back(slot);
        }
        let before = tx.added();
        let sent = tx.offer_packet(header, payload);
        tx.ring_if_wanted(before);
        sent
    }

    /// Whether a packet could be sent now.
    pub fn can_send(&mut self) -> bool {
        let Some([_, tx]) = &mut self.rings else {
            return false;
        };
        while let Some(slot) = tx.used() {
            tx.give_back(slot);
        }
        tx.has_free()
    }

    /// Takes the packets that have come.
    pub fn receive(&mut self) -> Vec<(Header, Vec<u8>)> {
        let Some([rx, _]) = &mut self.rings else {
            return Vec::new();
        };
        let mut packets = Vec::new();
        let before = rx.added();
        while let Some(slot) = rx.used() {
            packets.push(rx.packet(slot));
            rx.offer_room(slot, ROOM);
        }
        rx.ring_if_wanted(before);
        packets
    }

    /// Ends [`Guest::wait`] when written to.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn waker(&self) -> io::Result<EventFd> {
        self.waker.try_clone()
    }

    /// Waits until a bell rings, the waker is used, or the time is up.
    pub fn wait(&self, patience: Duration) {
        let mut events = [EpollEvent::default(); 4];
        let _whatever_came = self.bells.wait(patience.as_millis() as i32, &mut events);
        for bell in self.rings.iter().flatten().map(|ring| &ring.call) {
            let _how_often = bell.read();
        }
        let _how_often = self.waker.read();
    }
}

fn listen_to(bells: &Epoll, bell: &EventFd) -> io::Result<()> {
    let event = EpollEvent::new(EventSet::IN, 0);
    bells.ctl(ControlOperation::Add, bell.as_raw_fd(), event)
}
