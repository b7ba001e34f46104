//! Time as a machine was given it: what every deadline over a machine is counted by.
//!
//! A guest can do nothing while the host does not run it, and the host's own clock goes on meanwhile: on a
//! host at a load of nine, checks that take seconds pass deadlines of minutes. A [`Clock`] stands still while
//! the machine's threads are ready to run and do not, or are stopped from outside; a deadline that follows
//! it grants the machine its time and not the host's. So that a wait has an end all the same, a wall clock
//! far above bounds it, see [`bound`].
//!
//! `account` computes from two looks at the threads what was lost between them, `history` remembers when,
//! `threads` looks. Where the host does not count what its threads wait for, a clock is the wall's, but
//! for machines that are stopped.
//!
//! What the host itself is not given by a hypervisor below it (steal time) is in none of these counts.
//!
//! The types to know: [`Clock`], [`Passed`] (a granted time is over) and [`Whose`] fault that is. The last is
//! here because this is the lowest room that has to answer it; every room above answers it too. What a machine
//! is, and what is done about one that is late, is left to those above.

mod account;
mod history;
mod threads;
mod whose;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use self::account::Account;
use self::history::History;
pub use self::whose::{HOST_TROUBLE, TRIES, Tries, Whose};

/// How often a machine's threads are looked at. What they lost is exact at any interval; when a stopped
/// machine was stopped, and how a loss is spread over time, is known to this.
const LOOK: Duration = Duration::from_millis(100);

/// A look so soon after another would mistake a thread that runs between two ticks of the scheduler, at
/// which its time is counted, for one that waits.
const SOON: Duration = Duration::from_millis(20);

/// The longest a deadline may be: a century.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// By the wall, a granted time is over after ten times as long and this much.
const FLOOR: Duration = Duration::from_secs(30);

/// Time lost that is worth a word.
const WORTH_A_WORD: Duration = Duration::from_secs(1);

/// The wall-clock time after which `within` has passed, whatever the machine was given.
#[must_use]
pub fn bound(within: Duration) -> Duration {
    within.min(CENTURY).saturating_mul(10) + FLOOR
}

/// What follows a granted time in a sentence: how much longer it took by the wall. Empty when that is
/// next to nothing.
#[must_use]
pub fn waited(lost: Duration) -> String {
    if lost < WORTH_A_WORD {
        return String::new();
    }
    format!(
        " (the host kept its machine waiting for another {:.0} s)",
        lost.as_secs_f64()
    )
}

/// A granted time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("within {} s{}", within.as_secs_f32(), waited(*lost))]
pub struct Passed {
    /// What was granted.
    pub within: Duration,
    /// What the machine lost meanwhile, and did not count.
    pub lost: Duration,
}

impl Passed {
    /// Whose fault that is: the guest's, unless it was the wall's bound that ended it, for then the machine
    /// was never given the time that it was granted.
    #[must_use]
    pub fn whose(&self) -> Whose {
        let by_the_wall = self.within + self.lost >= bound(self.within);
        if by_the_wall {
            Whose::Host
        } else {
            Whose::Guest
        }
    }
}

/// A machine's clock. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Mutex<Books>>>);

#[derive(Debug)]
struct Books {
    pids: Vec<u32>,
    born: Instant,
    looked: Instant,
    account: Account,
    history: History,
}

impl Clock {
    /// One that never stands still.
    #[must_use]
    pub fn wall() -> Clock {
        Clock(None)
    }

    /// That of the processes which together are a machine, born when it was started. Somebody has to
    /// [`watch`](Clock::watch) it.
    #[must_use]
    pub fn of(pids: Vec<u32>, born: impl Into<Instant>) -> Clock {
        let mut account = Account::default();
        account.look(threads::look(&pids), Duration::ZERO);
        Clock(Some(Arc::new(Mutex::new(Books {
            pids,
            born: born.into(),
            looked: Instant::now(),
            account,
            history: History::default(),
        }))))
    }

    /// Looks at the machine for as long as it is polled.
    pub async fn watch(self) {
        while self.look().is_some() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it is the wall's.
    #[must_use]
    pub fn is_wall(&self) -> bool {
        self.0.is_none()
    }

    /// What the machine lost from `from` to now.
    #[must_use]
    pub fn lost_since(&self, from: Instant) -> Duration {
        self.look().map_or(Duration::ZERO, |books| {
            books.history.lost(from, Instant::now())
        })
    }

    /// What the machine lost between two moments of its life.
    #[must_use]
    pub fn lost_between(&self, from: Duration, to: Duration) -> Duration {
        self.look().map_or(Duration::ZERO, |books| {
            books.history.lost(books.born + from, books.born + to)
        })
    }

    /// What is left now of `within` since `made`.
    #[must_use]
    pub fn left(&self, made: Instant, within: Duration) -> Duration {
        let lost = |made| self.lost_since(made);
        due(made, within, lost).saturating_duration_since(Instant::now())
    }

    /// That `within` has passed since `made`, in words.
    #[must_use]
    pub fn passed(&self, made: Instant, within: Duration) -> Passed {
        let lost = self.lost_since(made);
        Passed { within, lost }
    }

    /// Waits for `future` for as long as the machine was given `within`.
    ///
    /// # Errors
    /// When that has passed.
    pub async fn timeout<F: Future>(
        &self,
        within: Duration,
        future: F,
    ) -> Result<F::Output, Passed> {
        self.timeout_from(Instant::now(), within, future).await
    }

    /// The same for a time granted earlier.
    ///
    /// # Errors
    /// When it has passed.
    pub async fn timeout_from<F: Future>(
        &self,
        made: Instant,
        within: Duration,
        future: F,
    ) -> Result<F::Output, Passed> {
        timeout_by(made, within, |made| self.lost_since(made), future).await
    }

    /// What a report says of the machine: how much of the processor time its threads were ready for they got,
    /// and for how long deadlines stood still.
    #[must_use]
    pub fn properties(&self) -> Vec<(String, String)> {
        let Some(books) = self.look() else {
            return Vec::new();
        };
        let share = match books.account.share() {
            Some(share) => format!("{:.0} %", share * 100.0),
            None => "unknown: this host has no /proc/PID/schedstat".to_owned(),
        };
        let waited = format!("{:.1}", books.history.total().as_secs_f64());
        vec![
            ("processor-share".to_owned(), share),
            ("seconds-waited".to_owned(), waited),
        ]
    }

    /// The books, up to date.
    fn look(&self) -> Option<MutexGuard<'_, Books>> {
        let mut books = self
            .0
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        books.bring_up_to_date();
        Some(books)
    }

    /// One with nothing to look at, for tests that say what was lost: here and in the rooms above.
    #[must_use]
    pub fn told(born: Instant) -> Clock {
        Clock::of(Vec::new(), born)
    }

    /// Says what was lost. The wall's never loses anything.
    pub fn lose(&self, from: Instant, to: Instant, lost: Duration) {
        if let Some(books) = &self.0 {
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            books.history.push(from, to, lost);
        }
    }
}

impl Books {
    fn bring_up_to_date(&mut self) {
        let now = Instant::now();
        let wall = now.saturating_duration_since(self.looked);
        if wall < SOON || self.pids.is_empty() {
            return;
        }
        let lost = self.account.look(threads::look(&self.pids), wall);
        self.history.push(self.looked, now, lost);
        self.looked = now;
    }
}

/// What any of several machines lost from `from` to now: a story stands still while one of its machines does.
#[must_use]
pub fn lost_by_any(clocks: &[Clock], from: Instant) -> Duration {
    let books: Vec<_> = clocks.iter().filter_map(Clock::look).collect();
    let histories: Vec<&History> = books.iter().map(|books| &books.history).collect();
    history::lost_by_any(&histories, from, Instant::now())
}

/// When `within` since `made` has passed, by what is lost so far.
fn due(made: Instant, within: Duration, lost: impl Fn(Instant) -> Duration) -> Instant {
    let within = within.min(CENTURY);
    let limit = made + bound(within);
    // Most are not due yet, and asking costs a look.
    match made + within > Instant::now() {
        true => made + within,
        false => (made + within + lost(made)).min(limit),
    }
}

/// Waits for `future` until `within` has passed since `made`, not counting what `lost` says.
///
/// # Errors
/// When it has passed.
pub async fn timeout_by<F: Future>(
    made: Instant,
    within: Duration,
    lost: impl Fn(Instant) -> Duration,
    future: F,
) -> Result<F::Output, Passed> {
    let mut future = pin!(future);
    let mut next = made + within.min(CENTURY);
    loop {
        if let Ok(done) = timeout_at(next, future.as_mut()).await {
            return Ok(done);
        }
        let now = Instant::now();
        let due = due(made, within, &lost);
        if due <= now {
            let lost = lost(made);
            return Err(Passed { within, lost });
        }
        next = due.max(now + SOON);
    }
}

#[cfg(test)]
mod tests;
