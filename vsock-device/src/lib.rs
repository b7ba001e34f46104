//! The host's half of a guest's vsock device, for hosts whose kernel has none: a vhost-user daemon.
//!
//! QEMU's `vhost-user-vsock-pci` speaks to it over one Unix socket, programs on the host over
//! another, where they write `CONNECT PORT\n` and read `OK NUMBER\n` when the guest has accepted. A
//! guest's connection to port P of the host goes to the second socket's path with `_P` appended.
//!
//! **The daemon is this same executable started again**, as with `keeper`: a main calls [`hook`]
//! first thing, and [`Settings::arguments`] are what to start `/proc/self/exe` with. So there is
//! nothing to install, and no second program whose version could differ.
//!
//! **It cannot be brought down by what a guest or a program does.** An error belongs to a connection
//! or to a frontend and ends that alone. One thread waits for everything in one epoll instance, so
//! that nothing can happen half: there is no moment at which a ring is watched and not ready. (The
//! `vhost-user-backend` crate is not used for both reasons: requests and rings are in threads of
//! their own there, and the latter ends at the first error of any kind, silently.)
//!
//! **A connection may be made at any moment.** Until the guest's driver has its rings set up it
//! waits, and it waits on when the guest is reset before it has answered; established connections
//! end then. A pause is no reset: which is told from the rings when they start again, and after two
//! seconds without any.
//!
//! | file | what is there |
//! |---|---|
//! | `daemon` | the event loop |
//! | `frontend`, `ring` | what QEMU says: the guest's memory, the rings and their eventfds |
//! | `pump` | packets off one ring and onto the other |
//! | `exchange` | all connections, and which packet is for which |
//! | `connection`, `credit`, `packet` | one connection's states, accounts and header, by the specification |
//! | `span` | guest memory that a descriptor chain names |
//! | `driver` | a guest's driver without a guest, for tests and benchmarks |
//!
//! It leaves to others: who starts it and sees to its end (`keeper`), QEMU, and what is spoken over
//! a connection. Migration, other socket types than streams, and connections between guests are
//! not offered.

mod connection;
mod credit;
mod daemon;
pub mod driver;
mod exchange;
mod frontend;
pub mod packet;
mod pump;
mod ring;
mod span;

use std::ffi::OsString;
use std::path::PathBuf;

/// First argument that turns an executable into the daemon.
pub const MARK: &str = "__vexfs-vsock";

/// What a daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The guest's CID. A daemon serves one guest, so it need not be unique on the host.
    pub cid: u64,
    /// Where frontends connect; must not exist.
    pub vhost: PathBuf,
    /// Where programs connect; must not exist. Appears before `vhost` does.
    pub socket: PathBuf,
}

impl Settings {
    /// Arguments that make an executable with [`hook`] in its main this daemon.
    pub fn arguments(&self) -> [OsString; 4] {
        [
            MARK.into(),
            self.cid.to_string().into(),
            self.vhost.clone().into(),
            self.socket.clone().into(),
        ]
    }

    fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Settings> {
        let settings = Settings {
            cid: args.next()?.to_str()?.parse().ok()?,
            vhost: args.next()?.into(),
            socket: args.next()?.into(),
        };
        args.next().is_none().then_some(settings)
    }
}

/// Must be among the first things a `main` does in any program that starts the daemon: if this
/// process was started as one it serves and never returns, otherwise this returns at once.
pub fn hook() {
    let mut args = std::env::args_os();
    let arg0 = args.next();
    if args.next().as_deref() != Some(MARK.as_ref()) {
        return;
    }
    match Settings::parse(args) {
        Some(settings) => {
            let Err(error) = daemon::serve(&settings);
            eprintln!("the vsock device cannot go on: {error}");
            std::process::exit(1);
        }
        None => {
            eprintln!("{arg0:?}: {MARK} is for this program's own use");
            std::process::exit(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_told_what_was_meant() {
        let settings = Settings {
            cid: 3,
            vhost: "/run/a b/vhost".into(),
            socket: "/run/a b/vsock".into(),
        };
        let mut told = settings.arguments().into_iter();
        assert_eq!(told.next(), Some(MARK.into()));
        assert_eq!(Settings::parse(told), Some(settings));
        assert_eq!(Settings::parse(std::iter::empty()), None);
    }
}
