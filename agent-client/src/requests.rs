//! Requests that are a question and an answer.

use std::time::Duration;

use agent_protocol::message::{
    DirEntry, FileStat, GuestPath, ModuleInfo, ModuleSource, MountRequest, Pong, PowerAction,
    PowerHow, SystemInfo, UnmountFlags,
};
use agent_protocol::{Bytes, Event, Reply, Request};

use super::talk::Next;
use super::{AgentError, Client, Deadline};

/// Most directory entries collected.
const MOST_ENTRIES: usize = 100_000;

impl Client {
    /// Whether the agent is there.
    ///
    /// # Errors
    /// Every [`AgentError`], as with all that follow.
    pub async fn ping(&self, deadline: impl Into<Deadline>) -> Result<Pong, AgentError> {
        self.ask(Request::Ping, deadline, |reply| match reply {
            Reply::Pong(pong) => Some(pong),
            _ => None,
        })
        .await
    }

    /// Facts about the running system.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn info(&self, deadline: impl Into<Deadline>) -> Result<SystemInfo, AgentError> {
        self.ask(Request::Info, deadline, |reply| match reply {
            Reply::Info(info) => Some(*info),
            _ => None,
        })
        .await
    }

    /// stat(2), or lstat(2) without `follow`.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn stat(
        &self,
        path: impl Into<GuestPath>,
        follow: bool,
        deadline: impl Into<Deadline>,
    ) -> Result<FileStat, AgentError> {
        self.ask(
            Request::Stat {
                path: path.into(),
                follow,
            },
            deadline,
            |reply| match reply {
                Reply::Stat(stat) => Some(stat),
                _ => None,
            },
        )
        .await
    }

    /// The entries of a directory, as the file system orders them.
    ///
    /// # Errors
    /// See [`AgentError`]; [`AgentError::TooLarge`] past 100,000 entries.
    pub async fn list(
        &self,
        path: impl Into<GuestPath>,
        deadline: impl Into<Deadline>,
    ) -> Result<Vec<DirEntry>, AgentError> {
        let mut entries = Vec::new();
        let mut talk = self
            .begin(Request::List { path: path.into() }, deadline)
            .await?;
        loop {
            match talk.next().await? {
                Next::Event(Event::Entries(more)) => entries.extend(more),
                Next::Reply(Reply::Done) => return Ok(entries),
                other => return Err(talk.unfit(&other)),
            }
            if entries.len() > MOST_ENTRIES {
                return Err(talk.too_large(MOST_ENTRIES as u64));
            }
        }
    }

    /// Loads a module by modprobe(8), with dependencies. `parameters` are `name=value` words.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn load_module(
        &self,
        name: &str,
        parameters: &str,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        let module = ModuleSource::Name(name.to_owned());
        self.order(
            Request::LoadModule {
                module,
                parameters: parameters.to_owned(),
            },
            deadline,
        )
        .await
    }

    /// Loads the module in a file of the guest by finit_module(2).
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn load_module_file(
        &self,
        path: impl Into<GuestPath>,
        parameters: &str,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        let module = ModuleSource::File(path.into());
        self.order(
            Request::LoadModule {
                module,
                parameters: parameters.to_owned(),
            },
            deadline,
        )
        .await
    }

    /// Unloads a module that nobody uses.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn unload_module(
        &self,
        name: &str,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(
            Request::UnloadModule {
                name: name.to_owned(),
            },
            deadline,
        )
        .await
    }

    /// Loaded modules, by name.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn modules(
        &self,
        deadline: impl Into<Deadline>,
    ) -> Result<Vec<ModuleInfo>, AgentError> {
        self.ask(Request::ListModules, deadline, |reply| match reply {
            Reply::Modules(modules) => Some(modules),
            _ => None,
        })
        .await
    }

    /// mount(2).
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn mount(
        &self,
        request: MountRequest,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(Request::Mount(request), deadline).await
    }

    /// umount2(2).
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn unmount(
        &self,
        target: impl Into<GuestPath>,
        flags: UnmountFlags,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(
            Request::Unmount {
                target: target.into(),
                flags,
            },
            deadline,
        )
        .await
    }

    /// Sets the guest's clock, as time since 1970 UTC.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn set_clock(
        &self,
        since_1970: Duration,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
        let nanoseconds = since_1970.subsec_nanos();
        self.order(
            Request::SetClock {
                seconds,
                nanoseconds,
            },
            deadline,
        )
        .await
    }

    /// Mixes 1 to 1024 random bytes into the guest's pool and makes it use them at once.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn add_entropy(
        &self,
        bytes: Vec<u8>,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(
            Request::AddEntropy {
                bytes: bytes.into(),
            },
            deadline,
        )
        .await
    }

    /// sync(2).
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn sync(&self, deadline: impl Into<Deadline>) -> Result<(), AgentError> {
        self.order(Request::Sync, deadline).await
    }

    /// Has the kernel give back what it only keeps: dirty data, clean caches, free slab objects of the
    /// caches whose name begins with `caches`. Returns the names of those that are merged with a cache
    /// of another owner.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn reclaim(
        &self,
        caches: &str,
        deadline: impl Into<Deadline>,
    ) -> Result<Vec<String>, AgentError> {
        let caches = caches.to_owned();
        self.ask(Request::Reclaim { caches }, deadline, |reply| match reply {
            Reply::Reclaimed { merged } => Some(merged),
            _ => None,
        })
        .await
    }

    /// What is in each of these small files, in order, read at one time.
    ///
    /// # Errors
    /// See [`AgentError`]; when one cannot be read, and when they hold more than
    /// [`agent_protocol::CONTENTS`] bytes together.
    pub async fn read_files<const N: usize>(
        &self,
        paths: [&str; N],
        deadline: impl Into<Deadline>,
    ) -> Result<[Vec<u8>; N], AgentError> {
        let paths = paths.map(Into::into).to_vec();
        let request = Request::ReadFiles { paths };
        self.ask(request, deadline, |reply| match reply {
            Reply::Contents { files } => <[Bytes; N]>::try_from(files)
                .ok()
                .map(|files| files.map(|file| file.0)),
            _ => None,
        })
        .await
    }

    /// Begins an orderly reboot.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn reboot(&self, deadline: impl Into<Deadline>) -> Result<(), AgentError> {
        self.power(PowerAction::Reboot, PowerHow::Orderly, deadline)
            .await
    }

    /// Begins an orderly power-off.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn power_off(&self, deadline: impl Into<Deadline>) -> Result<(), AgentError> {
        self.power(PowerAction::PowerOff, PowerHow::Orderly, deadline)
            .await
    }

    /// Reboot or power off, in good order or like pulling the plug.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn power(
        &self,
        action: PowerAction,
        how: PowerHow,
        deadline: impl Into<Deadline>,
    ) -> Result<(), AgentError> {
        self.order(Request::Power { action, how }, deadline).await
    }

    /// Presses a sysrq key, such as `b'w'` for blocked tasks; the kernel log tells what came of it.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn sysrq(&self, key: u8, deadline: impl Into<Deadline>) -> Result<(), AgentError> {
        self.order(Request::SysRq { key }, deadline).await
    }
}
