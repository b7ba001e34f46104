//! What a frontend (QEMU) says over the vhost-user socket: where the guest's memory and rings are.
//!
//! Message by message as QEMU's `docs/interop/vhost-user.rst` has it. Only what a vsock device needs
//! is supported, and nothing else is offered.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;

use nix::sys::epoll::Epoll;
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandler};
use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::ring::{Kick, Ring};

/// Index of the ring to the guest (virtio 1.2, 5.10.2).
pub(crate) const RX: usize = 0;
/// Index of the ring from the guest.
pub(crate) const TX: usize = 1;
/// The third, for events, is QEMU's own business.
const RINGS: usize = 2;

/// VIRTIO_F_VERSION_1 (virtio 1.2, 6).
const VERSION_1: u64 = 1 << 32;
/// VIRTIO_RING_F_EVENT_IDX (virtio 1.2, 6).
const EVENT_IDX: u64 = 1 << 29;

const FEATURES: u64 = VERSION_1 | EVENT_IDX | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// What is known of one frontend's guest.
pub(crate) struct Setup {
    pub(crate) memory: Rc<GuestMemoryMmap>,
    pub(crate) rings: [Ring; RINGS],
    /// Where the frontend has what it calls guest memory: its address, size, and the guest's.
    mapped: Vec<(u64, u64, u64)>,
}

impl Setup {
    /// Whether both rings can be used.
    pub(crate) fn works(&self) -> bool {
        self.rings.iter().all(|ring| ring.works(&self.memory))
    }

    /// Whether both rings go on where they were stopped.
    pub(crate) fn goes_on(&self) -> bool {
        self.rings.iter().all(Ring::goes_on)
    }

    fn guest_address(&self, address: u64) -> Result<u64> {
        self.mapped
            .iter()
            .find(|(at, size, _)| {
                address
                    .checked_sub(*at)
                    .is_some_and(|offset| offset < *size)
            })
            .map(|(at, _, guest)| address - at + guest)
            .ok_or(Error::InvalidParam)
    }

    fn stop_all(&mut self) {
        for ring in &mut self.rings {
            ring.stop();
            ring.enabled = false;
        }
    }
}

/// The handler of one frontend's requests. One thread does everything: the cell is never contended.
pub(crate) struct Frontend {
    cid: u64,
    epoll: Rc<Epoll>,
    /// Tokens of the rings' kicks are this and the following.
    first_token: u64,
    setup: RefCell<Setup>,
}

impl Frontend {
    pub(crate) fn new(cid: u64, epoll: Rc<Epoll>, first_token: u64) -> Frontend {
        let setup = RefCell::new(Setup {
            memory: Rc::default(),
            rings: std::array::from_fn(|_| Ring::new()),
            mapped: Vec::new(),
        });
        Frontend {
            cid,
            epoll,
            first_token,
            setup,
        }
    }

    /// What it has set up so far.
    pub(crate) fn setup(&self) -> std::cell::RefMut<'_, Setup> {
        self.setup.borrow_mut()
    }

    fn ring<T>(&self, index: usize, change: impl FnOnce(&mut Ring) -> T) -> Result<T> {
        let mut setup = self.setup();
        setup
            .rings
            .get_mut(index)
            .map(change)
            .ok_or(Error::InvalidParam)
    }
}

fn unsupported<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered by this device"))
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

impl VhostUserBackendReqHandler for Frontend {
    fn set_owner(&self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&self) -> Result<()> {
        self.setup().stop_all();
        Ok(())
    }

    fn get_features(&self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        for ring in &mut self.setup().rings {
            ring.queue.set_event_idx(features & EVENT_IDX != 0);
            // Without the feature there is no message that enables rings: they are at once.
            ring.enabled |= features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        }
        Ok(())
    }

    fn set_mem_table(
        &self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let mut guest = Vec::new();
        for (region, file) in regions.iter().zip(files) {
            let at = GuestAddress(region.guest_phys_addr);
            let region = GuestRegionMmap::new(region.mmap_region(file)?, at);
            guest.push(region.ok_or(Error::InvalidParam)?);
        }
        let memory = GuestMemoryMmap::from_regions(guest).map_err(failed)?;
        let mut setup = self.setup();
        setup.memory = Rc::new(memory);
        setup.mapped = regions
            .iter()
            .map(|region| (region.user_addr, region.memory_size, region.guest_phys_addr))
            .collect();
        Ok(None)
    }

    fn set_vring_num(&self, index: u32, num: u32) -> Result<()> {
        let num = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        self.ring(index as usize, |ring| ring.queue.try_set_size(num))?
            .map_err(|_| Error::InvalidParam)
    }

    fn set_vring_addr(
        &self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let (memory, [descriptor, used, available]) = {
            let setup = self.setup();
            let address = |address| setup.guest_address(address).map(GuestAddress);
            (
                setup.memory.clone(),
                [address(descriptor)?, address(used)?, address(available)?],
            )
        };
        self.ring(index as usize, |ring| {
            ring.queue.try_set_desc_table_address(descriptor)?;
            ring.queue.try_set_avail_ring_address(available)?;
            ring.queue.try_set_used_ring_address(used)?;
            // SET_VRING_BASE tells where the guest's side is; ours is where the guest sees it.
            let used = ring
                .queue
                .used_idx(&*memory, std::sync::atomic::Ordering::Acquire)?;
            ring.queue.set_next_used(used.0);
            Ok::<_, virtio_queue::Error>(())
        })?
        .map_err(failed)
    }

    fn set_vring_base(&self, index: u32, base: u32) -> Result<()> {
        self.ring(index as usize, |ring| {
            ring.queue.set_next_avail(base as u16)
        })
    }

    fn get_vring_base(&self, index: u32) -> Result<VhostUserVringState> {
        let base = self.ring(index as usize, Ring::stop)?;
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&self, index: u8, file: Option<File>) -> Result<()> {
        let token = self.first_token + u64::from(index);
        let watch = |file| Kick::watch(file, &self.epoll, token).map_err(failed);
        let kick = file.map(watch).transpose()?;
        self.ring(index.into(), |ring| ring.start(kick))
    }

    fn set_vring_call(&self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index.into(), |ring| ring.set_call(file))
    }

    fn set_vring_err(&self, _index: u8, _file: Option<File>) -> Result<()> {
        Ok(())
    }

    fn get_protocol_features(&self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG)
    }

    fn set_protocol_features(&self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&self) -> Result<u64> {
        Ok(RINGS as u64)
    }

    fn set_vring_enable(&self, index: u32, enable: bool) -> Result<()> {
        self.ring(index as usize, |ring| ring.enabled = enable)
    }

    /// The configuration is the guest's CID (virtio 1.2, 5.10.4).
    fn get_config(&self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let config = self.cid.to_le_bytes();
        let end = offset.saturating_add(size) as usize;
        Ok(config
            .get(offset as usize..end)
            .unwrap_or_default()
            .to_vec())
    }

    fn set_config(&self, _offset: u32, _bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        unsupported()
    }

    fn set_gpu_socket(&self, _backend: GpuBackend) -> Result<()> {
        unsupported()
    }

    fn get_shared_object(&self, _uuid: VhostUserSharedMsg) -> Result<File> {
        unsupported()
    }

    fn get_inflight_fd(&self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        unsupported()
    }

    fn set_inflight_fd(&self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        unsupported()
    }

    fn get_max_mem_slots(&self) -> Result<u64> {
        unsupported()
    }

    fn add_mem_region(
        &self,
        _region: &VhostUserSingleMemoryRegion,
        _file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        unsupported()
    }

    fn remove_mem_region(&self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        unsupported()
    }

    fn set_device_state_fd(
        &self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        unsupported()
    }

    fn check_device_state(&self) -> Result<()> {
        unsupported()
    }

    fn get_shmem_config(&self) -> Result<VhostUserShMemConfig> {
        unsupported()
    }

    fn set_log_base(&self, _log: &VhostUserLog, _file: File) -> Result<()> {
        unsupported()
    }
}
