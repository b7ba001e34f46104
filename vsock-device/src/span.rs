//! A descriptor chain as the bytes of guest memory it names.
//!
//! What the guest writes into a chain is never trusted: a descriptor outside of its memory makes
//! the whole chain void, a loop ends when the chain is longer than the ring, and a header is copied
//! out before it is looked at, so that it cannot change meanwhile.

use std::io;

use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{
    GuestMemory, GuestMemoryMmap, Permissions, ReadVolatile, VolatileMemoryError, VolatileSlice,
    WriteVolatile,
};

/// Guest memory of one chain, from front to back.
#[derive(Debug, Default, Clone)]
pub(crate) struct Span<'m> {
    parts: Vec<VolatileSlice<'m>>,
}

impl<'m> Span<'m> {
    /// What the guest wrote for us. `None` when the chain is not in its memory.
    pub(crate) fn readable(
        chain: DescriptorChain<&'m GuestMemoryMmap>,
        memory: &'m GuestMemoryMmap,
    ) -> Option<Span<'m>> {
        Span::of(chain.readable(), memory, Permissions::Read)
    }

    /// Where we may write for the guest. `None` when the chain is not in its memory.
    pub(crate) fn writable(
        chain: DescriptorChain<&'m GuestMemoryMmap>,
        memory: &'m GuestMemoryMmap,
    ) -> Option<Span<'m>> {
        Span::of(chain.writable(), memory, Permissions::Write)
    }

    fn of(
        descriptors: impl Iterator<Item = Descriptor>,
        memory: &'m GuestMemoryMmap,
        access: Permissions,
    ) -> Option<Span<'m>> {
        let mut parts = Vec::new();
        for descriptor in descriptors {
            let slices = GuestMemory::get_slices(
                memory,
                descriptor.addr(),
                descriptor.len() as usize,
                access,
            )
            .ok()?;
            for slice in slices {
                parts.push(slice.ok()?);
            }
        }
        Some(Span { parts })
    }

    #[cfg(test)]
    pub(crate) fn over(memory: &'m mut [u8]) -> Span<'m> {
        let parts = vec![VolatileSlice::from(memory)];
        Span { parts }
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.len()))
    }

    /// Takes bytes off the front. `None` when there are not enough.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        if self.len() < N {
            return None;
        }
        let mut done = 0;
        while done < N {
            let part = self.parts.first()?;
            let count = part.copy_to(&mut bytes[done..]);
            self.skip(count);
            done += count;
        }
        Some(bytes)
    }

    /// The first `count` bytes as a span of their own; the rest stays here.
    pub(crate) fn split(&mut self, mut count: usize) -> Span<'m> {
        let mut front = Span::default();
        while count > 0
            && let Some(part) = self.parts.first()
        {
            let here = part.len().min(count);
            if let Ok(piece) = part.subslice(0, here) {
                front.parts.push(piece);
            }
            self.skip(here);
            count -= here;
        }
        front
    }

    /// The same, but for what is beyond `count` bytes.
    pub(crate) fn first(mut self, count: usize) -> Span<'m> {
        self.split(count)
    }

    /// Writes `bytes` over the front; true when all of them found room.
    pub(crate) fn put(&self, bytes: &[u8]) -> bool {
        let mut done = 0;
        for part in &self.parts {
            let count = part.len().min(bytes.len() - done);
            part.copy_from(&bytes[done..done + count]);
            done += count;
        }
        done == bytes.len()
    }

    /// Appends all of it to `to`.
    pub(crate) fn append(&self, to: &mut std::collections::VecDeque<u8>) {
        let mut bytes = vec![0; self.len()];
        let mut done = 0;
        for part in &self.parts {
            done += part.copy_to(&mut bytes[done..]);
        }
        to.extend(bytes);
    }

    /// Fills it from `stream` as far as one look at the stream goes. 0 is the stream's end, or that
    /// there is no room.
    pub(crate) fn read_from(&mut self, stream: &mut impl ReadVolatile) -> io::Result<usize> {
        let mut done = 0;
        for part in &mut self.parts {
            match stream.read_volatile(part) {
                Ok(count) => {
                    done += count;
                    if count < part.len() {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(cause(error)),
            }
        }
        Ok(done)
    }

    /// Gives it to `stream` as far as that takes it, and drops what was taken.
    pub(crate) fn write_to(&mut self, stream: &mut impl WriteVolatile) -> io::Result<usize> {
        let mut done = 0;
        while let Some(part) = self.parts.first() {
            match stream.write_volatile(part) {
                Ok(count) => {
                    let whole = count == part.len();
                    self.skip(count);
                    done += count;
                    if !whole {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(cause(error)),
            }
        }
        Ok(done)
    }

    /// Drops `count` bytes, which must be within the first part.
    fn skip(&mut self, count: usize) {
        let rest = self.parts.first().and_then(|part| part.offset(count).ok());
        match rest {
            Some(rest) if !rest.is_empty() => self.parts[0] = rest,
            _ => drop(self.parts.remove(0)),
        }
    }
}

fn cause(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}
