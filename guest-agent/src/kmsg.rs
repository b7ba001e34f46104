//! The kernel log, from a mark on.
//!
//! `/dev/kmsg` gives one record per read(2) (kernel: Documentation/ABI/testing/dev-kmsg), and keeps
//! what tells the kernel's own lines from those user space wrote.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use agent_protocol::message::KmsgRecord;
use agent_protocol::{Event, Fault, FaultKind, Reply};
use nix::errno::Errno;
use nix::libc;
use nix::unistd;
use tokio::io::Interest;

use crate::dispatch::stopped;
use crate::flow::{Outlet, Stop};
use crate::{Agent, off_thread, raw};

/// The kernel's own limit for one record (PRINTKRB_RECORD_MAX, CONSOLE_EXT_LOG_MAX: 8192 or less); a
/// smaller buffer would get EINVAL.
const RECORD: usize = 8192;
/// Records in one event, at most.
const BATCH: usize = 64;
/// Weight at which an event is sent before it has [`BATCH`] records.
const BATCH_WEIGHT: usize = agent_protocol::CHUNK;

/// What one read of `/dev/kmsg` gave.
enum Next {
    Record(KmsgRecord),
    /// The ring overwrote what was to be read; the next read goes on with what is left.
    Overwritten,
    /// No record yet.
    End,
}

/// An open `/dev/kmsg` and the next sequence number not yet seen through it.
pub struct LogEnd {
    file: OwnedFd,
    next: u64,
}

fn open() -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")?;
    Ok(file.into())
}

fn read_next(file: impl AsFd) -> io::Result<Next> {
    let mut buffer = [0; RECORD];
    loop {
        match unistd::read(&file, &mut buffer) {
            Ok(0) => return Ok(Next::End),
            Ok(length) => {
                if let Some(record) = KmsgRecord::parse(&buffer[..length]) {
                    return Ok(Next::Record(record));
                }
            }
            Err(Errno::EAGAIN) => return Ok(Next::End),
            Err(Errno::EPIPE) => return Ok(Next::Overwritten),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The sequence number the next record will have. The kernel does not tell it, so all records are
/// read; only those that came since the last mark, because the file is kept open.
///
/// # Errors
/// When `/dev/kmsg` cannot be read.
pub async fn mark(agent: &Arc<Agent>) -> Result<Reply, Fault> {
    let agent = Arc::clone(agent);
    off_thread(move || {
        let failed = |error: &io::Error| Fault::from_io("/dev/kmsg", error);
        let mut known = agent
            .log_end
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if known.is_none() {
            *known = Some(LogEnd {
                file: open().map_err(|error| failed(&error))?,
                next: 0,
            });
        }
        let end = known.as_mut().expect("just made");
        loop {
            match read_next(&end.file).map_err(|error| failed(&error))? {
                Next::Record(record) => end.next = record.sequence + 1,
                Next::Overwritten => {}
                Next::End => return Ok(Reply::Mark { next: end.next }),
            }
        }
    })
    .await
}

/// Sends records from sequence number `from`, to the end or for ever.
///
/// # Errors
/// When `/dev/kmsg` cannot be read, and when stopped without `follow`.
pub async fn read(from: u64, follow: bool, outlet: &Outlet, stop: &Stop) -> Result<Reply, Fault> {
    let failed = |error: &io::Error| Fault::from_io("/dev/kmsg", error);
    let file = open().map_err(|error| failed(&error))?;
    let file = raw::watch(file, Interest::READABLE).map_err(|error| failed(&error))?;
    let mut reader = Reader {
        next: from,
        batch: Vec::new(),
        weight: 0,
    };
    let work = async {
        loop {
            match read_next(file.get_ref()).map_err(|error| failed(&error))? {
                Next::Record(record) => reader.take(record, outlet).await?,
                Next::Overwritten => {}
                Next::End => {
                    reader.flush(outlet).await?;
                    if !follow {
                        return Ok(());
                    }
                    file.readable()
                        .await
                        .map_err(|error| failed(&error))?
                        .clear_ready();
                }
            }
        }
    };
    tokio::select! {
        result = work => result?,
        // With `follow` this is the only way to end, and no fault.
        because = stop.wait() => if !follow { return Err(stopped(because)) },
    }
    Ok(Reply::Mark { next: reader.next })
}

struct Reader {
    /// First sequence number not taken.
    next: u64,
    batch: Vec<KmsgRecord>,
    weight: usize,
}

impl Reader {
    async fn take(&mut self, record: KmsgRecord, outlet: &Outlet) -> Result<(), Fault> {
        if record.sequence < self.next {
            return Ok(());
        }
        let lost = record.sequence - self.next;
        if lost > 0 && self.next > 0 {
            self.flush(outlet).await?;
            outlet
                .send(Event::KmsgLost { records: lost })
                .await
                .map_err(|_| gone())?;
        }
        self.next = record.sequence + 1;
        self.weight += record.weight();
        self.batch.push(record);
        if self.batch.len() == BATCH || self.weight >= BATCH_WEIGHT {
            self.flush(outlet).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, outlet: &Outlet) -> Result<(), Fault> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.weight = 0;
        outlet
            .send(Event::Kmsg(std::mem::take(&mut self.batch)))
            .await
            .map_err(|_| gone())
    }
}

fn gone() -> Fault {
    Fault::new(FaultKind::Cancelled, "the connection ended")
}
