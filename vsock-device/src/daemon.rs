//! The event loop: one thread waits for everything there is.
//!
//! An error ends what it belongs to, a connection or a frontend, and never the loop: the daemon
//! ends when it is killed, or when it cannot wait for events at all.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::Settings;
use crate::exchange::{CONNECTIONS, Exchange};
use crate::frontend::Frontend;
use crate::pump::pump;

/// What epoll's tokens mean; connections have those from [`FIRST_CONNECTION`] on.
const FRONTENDS: u64 = 0;
const FRONTEND: u64 = 1;
const PROGRAMS: u64 = 2;
const FIRST_KICK: u64 = 3;
const FIRST_CONNECTION: u64 = 16;

/// A connected frontend.
struct Connected {
    requests: BackendReqHandler<Frontend>,
    /// The same socket, to be watched.
    socket: UnixStream,
    frontend: Arc<Frontend>,
}

struct Daemon {
    cid: u64,
    epoll: Rc<Epoll>,
    frontends: UnixListener,
    programs: UnixListener,
    /// Whether programs may connect: not while there are too many.
    accepting: bool,
    connected: Option<Connected>,
    exchange: Exchange,
}

/// Serves until killed.
pub(crate) fn serve(settings: &Settings) -> io::Result<std::convert::Infallible> {
    // Usual is 1024 descriptors, which is not enough for as many connections.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let enough = (2 * CONNECTIONS as u64).clamp(soft.min(hard), hard);
    setrlimit(Resource::RLIMIT_NOFILE, enough, hard)?;
    let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
    // This one first: who sees the frontends' socket may rely on both.
    let programs = listen(&settings.socket)?;
    let frontends = listen(&settings.vhost)?;
    let mut daemon = Daemon {
        cid: settings.cid,
        exchange: Exchange::new(
            settings.cid,
            &settings.socket,
            epoll.clone(),
            FIRST_CONNECTION,
        ),
        epoll,
        frontends,
        programs,
        accepting: false,
        connected: None,
    };
    watch(&daemon.epoll, &daemon.frontends, FRONTENDS)?;
    let mut events = [EpollEvent::empty(); 64];
    let mut more = false;
    loop {
        daemon.open_or_close();
        let patience = match daemon.exchange.patience() {
            _ if more => EpollTimeout::ZERO,
            // A millisecond more, for epoll counts in whole ones.
            Some(left) => {
                EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
            }
            None => EpollTimeout::NONE,
        };
        let count = match daemon.epoll.wait(&mut events, patience) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            daemon.happened(event.data(), event.events());
        }
        daemon.exchange.expire();
        more = daemon.pump();
    }
}

fn listen(path: &std::path::Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {}: {error}", path.display()),
        )
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn watch(epoll: &Epoll, what: impl AsFd, token: u64) -> io::Result<()> {
    Ok(epoll.add(what, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
}

impl Daemon {
    fn happened(&mut self, token: u64, events: EpollFlags) {
        match token {
            FRONTENDS => self.frontend_came(),
            FRONTEND => self.frontend_spoke(),
            PROGRAMS => self.program_came(),
            FIRST_KICK..FIRST_CONNECTION => {
                // Which packets there are, the rings tell.
                if let Some(connected) = &self.connected {
                    let index = (token - FIRST_KICK) as usize;
                    if let Some(ring) = connected.frontend.setup().rings.get_mut(index) {
                        ring.hear_kick();
                    }
                }
            }
            token => self.exchange.notice(token, events),
        }
    }

    fn pump(&mut self) -> bool {
        let Some(connected) = &self.connected else {
            return false;
        };
        pump(&mut connected.frontend.setup(), &mut self.exchange)
    }

    /// One frontend at a time: the next one waits in the socket's backlog.
    fn frontend_came(&mut self) {
        let Ok((socket, _)) = self.frontends.accept() else {
            return;
        };
        if let Err(error) = self.connect(socket) {
            eprintln!("a frontend could not be served: {error}");
        }
    }

    fn connect(&mut self, socket: UnixStream) -> io::Result<()> {
        socket.set_nonblocking(false)?;
        #[expect(
            clippy::arc_with_non_send_sync,
            reason = "what the vhost crate takes; there is one thread"
        )]
        let frontend = Arc::new(Frontend::new(self.cid, self.epoll.clone(), FIRST_KICK));
        let requests = BackendReqHandler::from_stream(socket.try_clone()?, frontend.clone());
        watch(&self.epoll, &socket, FRONTEND)?;
        let _was_watched = self.epoll.delete(&self.frontends);
        self.connected = Some(Connected {
            requests,
            socket,
            frontend,
        });
        Ok(())
    }

    /// Handles one request; epoll comes back for the next.
    fn frontend_spoke(&mut self) {
        let Some(connected) = &mut self.connected else {
            return;
        };
        let result = connected.requests.handle_request();
        let setup = connected.frontend.setup();
        match setup.works() {
            true => self.exchange.resume(setup.goes_on()),
            false => self.exchange.pause(),
        }
        drop(setup);
        match result {
            Ok(()) => {}
            // The request is refused, and the next one can still be understood.
            Err(
                error @ (Error::InvalidParam
                | Error::InvalidOperation(_)
                | Error::InactiveFeature(_)
                | Error::InactiveOperation(_)
                | Error::BackendInternalError
                | Error::ReqHandlerError(_)),
            ) => eprintln!("a request of the frontend was refused: {error}"),
            Err(Error::Disconnected) => self.frontend_went(),
            Err(error) => {
                eprintln!("the frontend is hung up on: {error}");
                self.frontend_went();
            }
        }
    }

    fn frontend_went(&mut self) {
        if let Some(connected) = self.connected.take() {
            // Before the descriptors close: epoll watches the open file, see `ring::Kick`.
            let _was_watched = self.epoll.delete(&connected.socket);
        }
        self.exchange.guest_lost();
        if let Err(error) = watch(&self.epoll, &self.frontends, FRONTENDS) {
            eprintln!("no further frontend can come: {error}");
        }
    }

    /// Accepts programs' connections only while there is room for them; others wait.
    fn open_or_close(&mut self) {
        let wanted = !self.exchange.is_full();
        if wanted == self.accepting {
            return;
        }
        let done = match wanted {
            true => watch(&self.epoll, &self.programs, PROGRAMS).is_ok(),
            false => self.epoll.delete(&self.programs).is_ok(),
        };
        self.accepting ^= done;
    }

    fn program_came(&mut self) {
        while !self.exchange.is_full() {
            let accepted = self.programs.accept();
            match accepted.and_then(|(stream, _)| self.exchange.accept(stream)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Out of descriptors, perhaps: hardly for long, and no reason to spin.
                Err(_) => return std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}
