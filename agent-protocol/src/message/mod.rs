//! The messages: requests, replies, events, inputs and faults.
//!
//! Two envelopes go over the wire, [`ToAgent`] and [`FromAgent`]. The shapes they carry are grouped
//! by what they are about: [`exec`], [`files`], [`kernel`], [`kmsg`], [`system`], and [`fault`] for what goes
//! wrong. A new message is a new variant at the end of its enum and a raised
//! [`crate::NEWEST_VERSION`].

pub mod exec;
pub mod fault;
pub mod files;
pub mod kernel;
pub mod kmsg;
pub mod system;

use serde::{Deserialize, Serialize};

use crate::Bytes;
use crate::bounded;

pub use exec::{Ended, ExecRequest, ExecResult, KilledBecause, WindowSize};
pub use fault::{Fault, FaultKind};
pub use files::{DirEntry, FileKind, FileStat, GuestPath};
pub use kernel::{ModuleInfo, ModuleSource, MountFlags, MountRequest, UnmountFlags};
pub use kmsg::KmsgRecord;
pub use system::{MountInfo, Pong, PowerAction, PowerHow, SystemInfo};

/// Names one request on one connection. Chosen by the host, never used twice on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Host to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Begin a request.
    Request {
        /// Its name from now on.
        id: RequestId,
        /// Milliseconds from its arrival after which the agent gives up: a program is killed, any
        /// other request ends in [`FaultKind::DeadlinePassed`]. The host keeps its own clock too.
        deadline_ms: u64,
        /// What is wanted.
        request: Request,
    },
    /// More for a running request that takes input.
    Input {
        /// Which one.
        id: RequestId,
        /// The piece.
        input: Input,
    },
    /// End a request now. It still gets its reply; unknown ids are ignored, because the reply may
    /// already be under way.
    Cancel {
        /// Which one.
        id: RequestId,
    },
    /// The host has consumed events of that weight; the agent may send as much again.
    Grant {
        /// Which request.
        id: RequestId,
        /// Sum of [`Event::weight`].
        bytes: u32,
    },
}

/// Agent to host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromAgent {
    /// The end of a request.
    Reply {
        /// Which one.
        id: RequestId,
        /// How it ended.
        result: Result<Reply, Fault>,
    },
    /// Something on the way there.
    Event {
        /// Which request.
        id: RequestId,
        /// The piece.
        event: Event,
    },
    /// The agent has consumed input of that weight; the host may send as much again.
    Grant {
        /// Which request.
        id: RequestId,
        /// Sum of [`Input::weight`].
        bytes: u32,
    },
}

/// What the host may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Are you there? Answered by [`Reply::Pong`].
    Ping,
    /// Facts about the running system. Answered by [`Reply::Info`].
    Info,
    /// Run a program. Events [`Event::Stdout`] and [`Event::Stderr`], inputs [`Input::Data`],
    /// [`Input::End`] and [`Input::Resize`]; answered by [`Reply::Exec`].
    Exec(ExecRequest),
    /// Write a file: inputs [`Input::Data`] then [`Input::End`]. The content goes to a temporary
    /// file beside it, is synced, and renamed over `path`: a reader sees the old or the new file,
    /// never half of one. Answered by [`Reply::Transferred`].
    PutFile {
        /// Where; its directory must exist.
        path: GuestPath,
        /// Permission bits, set exactly (no umask).
        mode: u32,
    },
    /// Read a file: events [`Event::Data`], answered by [`Reply::Transferred`].
    GetFile {
        /// Which file; devices and `/proc` files too.
        path: GuestPath,
        /// First byte wanted. Not for files that cannot seek unless 0.
        offset: u64,
        /// Most bytes wanted; to the end of the file when absent.
        limit: Option<u64>,
    },
    /// stat(2) or lstat(2); answered by [`Reply::Stat`].
    Stat {
        /// Which file.
        path: GuestPath,
        /// Whether to follow a symbolic link at the end.
        follow: bool,
    },
    /// The entries of a directory without `.` and `..`, in the file system's order: events
    /// [`Event::Entries`], answered by [`Reply::Done`].
    List {
        /// Which directory.
        path: GuestPath,
    },
    /// Load a kernel module; answered by [`Reply::Done`].
    LoadModule {
        /// Which one.
        module: ModuleSource,
        /// `name=value` words, as on a modprobe(8) command line.
        parameters: String,
    },
    /// delete_module(2) with `O_NONBLOCK`: fails when in use. Answered by [`Reply::Done`].
    UnloadModule {
        /// Name as in `/proc/modules`.
        name: String,
    },
    /// Loaded modules; answered by [`Reply::Modules`].
    ListModules,
    /// mount(2); answered by [`Reply::Done`].
    Mount(MountRequest),
    /// umount2(2); answered by [`Reply::Done`].
    Unmount {
        /// Mount point.
        target: GuestPath,
        /// How hard.
        flags: UnmountFlags,
    },
    /// Where the kernel log ends now; answered by [`Reply::Mark`].
    KmsgMark,
    /// Kernel log records from a mark on: events [`Event::Kmsg`] and [`Event::KmsgLost`], answered
    /// by [`Reply::Mark`] with the first sequence number not sent. With `follow` it ends only by
    /// [`ToAgent::Cancel`].
    KmsgRead {
        /// First sequence number wanted (a mark, or 0 for all there is).
        from: u64,
        /// Go on with what comes.
        follow: bool,
    },
    /// clock_settime(2) on `CLOCK_REALTIME`; answered by [`Reply::Done`].
    SetClock {
        /// Seconds since 1970-01-01 UTC.
        seconds: i64,
        /// 0 to 999 999 999.
        nanoseconds: u32,
    },
    /// Mix bytes into the kernel's random pool, credit them, and reseed at once (random(4):
    /// RNDADDENTROPY, RNDRESEEDCRNG). Answered by [`Reply::Done`].
    AddEntropy {
        /// 1 to 1024 random bytes.
        bytes: Bytes,
    },
    /// sync(2); answered by [`Reply::Done`].
    Sync,
    /// Reboot or power off. [`Reply::Done`] comes first, then the connection ends.
    Power {
        /// Which of the two.
        action: PowerAction,
        /// Through systemd, or at once.
        how: PowerHow,
    },
    /// Write to `/proc/sysrq-trigger`, which no sysrq mask holds back. [`Reply::Done`] comes for
    /// those keys that leave a system running.
    SysRq {
        /// ASCII letter or digit, for example `b'w'` (blocked tasks) or `b'l'` (all CPUs).
        key: u8,
    },
    /// Have the kernel give back what it only keeps: sync(2), all clean caches
    /// (`/proc/sys/vm/drop_caches`), and the free objects of the slab caches whose name begins with
    /// `caches`. Answered by [`Reply::Reclaimed`].
    Reclaim {
        /// Beginning of the names below `/sys/kernel/slab`; not empty.
        caches: String,
    },
    /// Whole small files at one time, such as those of `/proc`: under emulation every request of its
    /// own costs more than the reading. Answered by [`Reply::Contents`].
    ReadFiles {
        /// Which; together they hold at most [`crate::CONTENTS`] bytes.
        #[serde(deserialize_with = "bounded::list")]
        paths: Vec<GuestPath>,
    },
}

/// How a request ended well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// To [`Request::Ping`].
    Pong(Pong),
    /// To [`Request::Info`].
    Info(Box<SystemInfo>),
    /// To [`Request::Exec`].
    Exec(ExecResult),
    /// To [`Request::PutFile`] and [`Request::GetFile`].
    Transferred {
        /// Bytes of content.
        bytes: u64,
        /// Permission bits of the file.
        mode: u32,
    },
    /// To [`Request::Stat`].
    Stat(FileStat),
    /// To [`Request::ListModules`].
    Modules(#[serde(deserialize_with = "bounded::list")] Vec<ModuleInfo>),
    /// To [`Request::KmsgMark`] and [`Request::KmsgRead`]: the next sequence number.
    Mark {
        /// Sequence number the next record will have, or the first one not sent.
        next: u64,
    },
    /// To [`Request::Reclaim`].
    Reclaimed {
        /// Names of those slab caches that SLUB has merged with one of another owner.
        #[serde(deserialize_with = "bounded::list")]
        merged: Vec<String>,
    },
    /// To [`Request::ReadFiles`]: what is in each, in order.
    Contents {
        /// One for each path.
        #[serde(deserialize_with = "bounded::list")]
        files: Vec<Bytes>,
    },
}

/// What comes before a reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A program wrote to its standard output, or to its terminal.
    Stdout(Bytes),
    /// A program wrote to its standard error.
    Stderr(Bytes),
    /// Content of a file.
    Data(Bytes),
    /// Entries of a directory.
    Entries(#[serde(deserialize_with = "bounded::list")] Vec<DirEntry>),
    /// Kernel log records in order.
    Kmsg(#[serde(deserialize_with = "bounded::list")] Vec<KmsgRecord>),
    /// The kernel's ring overwrote records before they were read.
    KmsgLost {
        /// How many.
        records: u64,
    },
}

/// What a running request takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Standard input of a program, or content of a file.
    Data(Bytes),
    /// No more data.
    End,
    /// The terminal has a new size.
    Resize(WindowSize),
}

/// Counted for an event or input over its bulk data, so that empty ones are not free either.
const OVERHEAD: usize = 64;

impl Event {
    /// What this event takes from the [`crate::WINDOW`].
    #[must_use]
    pub fn weight(&self) -> u32 {
        let bulk = match self {
            Self::Stdout(bytes) | Self::Stderr(bytes) | Self::Data(bytes) => bytes.len(),
            Self::Entries(entries) => entries.iter().map(DirEntry::weight).sum(),
            Self::Kmsg(records) => records.iter().map(KmsgRecord::weight).sum(),
            Self::KmsgLost { .. } => 0,
        };
        weigh(bulk)
    }
}

impl Input {
    /// What this input takes from the [`crate::WINDOW`].
    #[must_use]
    pub fn weight(&self) -> u32 {
        weigh(if let Self::Data(bytes) = self {
            bytes.len()
        } else {
            0
        })
    }
}

fn weigh(bulk: usize) -> u32 {
    u32::try_from(bulk.saturating_add(OVERHEAD)).unwrap_or(u32::MAX)
}
