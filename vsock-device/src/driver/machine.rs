//! A machine in a thread of its own, as a guest runs beside its host.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use super::{Guest, Stack};

/// How long QEMU would wait for the daemon.
const PATIENCE: Duration = Duration::from_secs(20);

type Order = Box<dyn FnOnce(&mut Guest, &mut Stack) -> io::Result<()> + Send>;

/// A [`Guest`] with a [`Stack`] that runs by itself. Dropped = its device is unplugged.
#[derive(Debug)]
pub struct Machine {
    orders: Option<SyncSender<(Order, SyncSender<io::Result<()>>)>>,
    waker: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Plugs the device in, by the daemon's socket for frontends.
    ///
    /// # Errors
    /// See [`Guest::plug`].
    pub fn plug(vhost: &Path) -> io::Result<Machine> {
        let guest = plug(vhost)?;
        let waker = guest.waker()?;
        let (orders, received) = sync_channel(1);
        let thread = std::thread::spawn(move || run(guest, &received));
        Ok(Machine {
            orders: Some(orders),
            waker,
            thread: Some(thread),
        })
    }

    /// A machine that is up.
    ///
    /// # Errors
    /// See [`Guest::plug`].
    pub fn boot(vhost: &Path) -> io::Result<Machine> {
        let machine = Machine::plug(vhost)?;
        machine.start()?;
        Ok(machine)
    }

    /// Its driver is loaded.
    ///
    /// # Errors
    /// See [`Guest::plug`].
    pub fn start(&self) -> io::Result<()> {
        self.order(|guest, _| guest.boot())
    }

    /// It is reset: programs and driver are gone.
    ///
    /// # Errors
    /// See [`Guest::plug`].
    pub fn reset(&self) -> io::Result<()> {
        self.order(|guest, stack| {
            *stack = Stack::default();
            guest.reset()
        })
    }

    /// Has [`super::Port::Deaf`] be deaf until the next reset.
    ///
    /// # Errors
    /// When it has ended.
    pub fn deafen(&self) -> io::Result<()> {
        self.order(|_, stack| {
            stack.deaf = true;
            Ok(())
        })
    }

    /// Has something done between two packets.
    ///
    /// # Errors
    /// Those of `order`, and when nothing comes of it in time.
    pub fn order(
        &self,
        order: impl FnOnce(&mut Guest, &mut Stack) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let (done, told) = sync_channel(1);
        let gone = || io::Error::other("the guest's thread has ended");
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send((Box::new(order), done)).map_err(|_| gone())?;
        self.waker.write(1)?;
        match told.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                Err(io::Error::other("the daemon does not answer QEMU"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.orders = None;
        let _full = self.waker.write(1);
        if let Some(thread) = self.thread.take() {
            let panicked = thread.join().is_err();
            assert!(
                !panicked || std::thread::panicking(),
                "the guest's thread has panicked"
            );
        }
    }
}

/// Connects to the daemon's socket, which may take a moment to listen once it is there.
///
/// # Errors
/// See [`Guest::plug`].
pub fn plug(vhost: &Path) -> io::Result<Guest> {
    let begin = Instant::now();
    loop {
        match Guest::plug(vhost) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && begin.elapsed() < PATIENCE =>
            {
                std::thread::sleep(Duration::from_micros(100));
            }
            other => return other,
        }
    }
}

fn run(mut guest: Guest, orders: &Receiver<(Order, SyncSender<io::Result<()>>)>) {
    let mut stack = Stack::default();
    loop {
        match orders.try_recv() {
            Ok((order, done)) => {
                let result = order(&mut guest, &mut stack);
                let _nobody_waits = done.send(result);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        if !stack.turn(&mut guest) {
            guest.wait(Duration::from_millis(100));
        }
    }
}
