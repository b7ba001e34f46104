//! The latest time at which a request to the guest is over.

use std::time::Duration;

use tokio::time::Instant;

/// A time granted from a moment on. Made from a [`Duration`] from now, or once for several requests that
/// share it. By which clock it passes is the client's affair: a guest's is the machine's (see
/// [`clock::Clock`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    made: Instant,
    at: Instant,
}

impl Deadline {
    /// That long from now; a century when that is more than a clock can say.
    #[must_use]
    pub fn within(duration: Duration) -> Self {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let made = Instant::now();
        Self {
            made,
            at: made + duration.min(CENTURY),
        }
    }

    /// What is left by the wall; zero when it has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The whole time it gave when it was made.
    #[must_use]
    pub fn granted(&self) -> Duration {
        self.at.duration_since(self.made)
    }

    /// From when on it grants that.
    pub(super) fn made(&self) -> Instant {
        self.made
    }
}

impl From<Duration> for Deadline {
    fn from(duration: Duration) -> Self {
        Self::within(duration)
    }
}
