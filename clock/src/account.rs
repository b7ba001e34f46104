//! What was lost between two looks at a machine's threads.
//!
//! The kernel counts for each thread what it ran and what it waited, ready, on a run queue (Linux'
//! Documentation/scheduler/sched-stats.rst, "/proc/PID/schedstat"). The wait is counted when it is over
//! (kernel/sched/stats.h, `sched_info_arrive`), so a thread that waits for seconds shows nothing until then:
//! one that was ready at both looks and has neither run nor left a run queue has waited all the while, and what
//! the kernel counts afterwards is counted already.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It runs, or would.
    Ready,
    /// Somebody has stopped it: SIGSTOP, or a debugger.
    Stopped,
    /// It waits for something.
    Asleep,
}

/// A thread, as one look shows it. Times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) state: State,
    pub(super) run: u64,
    pub(super) wait: u64,
    /// How often it was given a processor; zero for all where the host does not count.
    pub(super) slices: u64,
}

/// All threads by their ids.
pub(super) type Look = BTreeMap<u32, Thread>;

/// What is known of a machine's threads so far.
#[derive(Debug, Default)]
pub(super) struct Account {
    last: Look,
    /// Of threads that still wait, what was counted before the kernel did.
    ahead: BTreeMap<u32, u64>,
    ran: u64,
    waited: u64,
}

impl Account {
    /// Takes a look that comes `wall` after the last one, and says what was lost in between. One thread is
    /// enough to hold a machine up, and what several wait for at the same time is lost once: the longest
    /// wait counts. It can begin before the last look.
    pub(super) fn look(&mut self, now: Look, wall: Duration) -> Duration {
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        let mut lost = 0;
        for (id, thread) in &now {
            // A smaller count is that of another thread which got the same id.
            let before = self
                .last
                .get(id)
                .filter(|before| before.run <= thread.run && before.wait <= thread.wait);
            let stopped = |thread: &Thread| thread.state == State::Stopped;
            if stopped(thread) || before.is_some_and(stopped) {
                lost = lost.max(wall);
            }
            let (ran, counted) = match before {
                Some(before) => (thread.run - before.run, thread.wait - before.wait),
                // Of the first look's threads nothing is known to have been since the machine was made.
                None if self.last.is_empty() => (0, 0),
                None => (thread.run, thread.wait),
            };
            let waits = before.is_some_and(|before| {
                before == thread && thread.state == State::Ready && thread.slices > 0
            });
            let waited = if waits {
                let ahead = self.ahead.entry(*id).or_default();
                *ahead = ahead.saturating_add(wall);
                wall
            } else {
                counted.saturating_sub(self.ahead.remove(id).unwrap_or_default())
            };
            self.ran = self.ran.saturating_add(ran);
            self.waited = self.waited.saturating_add(waited);
            lost = lost.max(waited);
        }
        self.ahead.retain(|id, _| now.contains_key(id));
        if !now.is_empty() {
            self.last = now;
        }
        Duration::from_nanos(lost)
    }

    /// Of the time all threads were ready for, the part they ran; `None` where the host does not count.
    pub(super) fn share(&self) -> Option<f64> {
        let ready = self.ran.saturating_add(self.waited);
        #[allow(clippy::cast_precision_loss)]
        let share = self.ran as f64 / ready as f64;
        (ready > 0).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const WALL: Duration = Duration::from_millis(100);

    fn thread(state: State, run: u64, wait: u64, slices: u64) -> Thread {
        Thread {
            state,
            run: run * MS,
            wait: wait * MS,
            slices,
        }
    }

    /// What is lost at each of these looks, in milliseconds.
    fn lost(looks: &[&[(u32, Thread)]]) -> Vec<u128> {
        let mut account = Account::default();
        let lost = looks
            .iter()
            .map(|look| account.look(look.iter().copied().collect(), WALL));
        lost.map(|lost| lost.as_millis()).collect()
    }

    #[test]
    fn a_busy_machine_that_has_its_processors_loses_nothing() {
        let at = |n| [(1, thread(State::Ready, 100 * n, 0, n))];
        assert_eq!(lost(&[&at(1), &at(2), &at(3)]), [0, 0, 0]);
        // Nor does an idle one.
        let idle = [(1, thread(State::Asleep, 5, 1, 1))];
        assert_eq!(lost(&[&idle, &idle]), [0, 0]);
    }

    #[test]
    fn the_longest_wait_of_one_thread_is_lost() {
        let before = [
            (1, thread(State::Ready, 10, 0, 1)),
            (2, thread(State::Asleep, 10, 5, 1)),
        ];
        let after = [
            (1, thread(State::Ready, 70, 40, 5)),
            (2, thread(State::Asleep, 20, 75, 5)),
        ];
        assert_eq!(lost(&[&before, &after]), [0, 70]);
    }

    #[test]
    fn a_wait_that_is_not_over_counts_at_once_and_once() {
        // Preempted 40 ms before the second look, back 30 ms before the fifth.
        let looks = [
            [(1, thread(State::Ready, 0, 7, 1))],
            [(1, thread(State::Ready, 60, 7, 1))],
            [(1, thread(State::Ready, 60, 7, 1))],
            [(1, thread(State::Ready, 60, 7, 1))],
            [(1, thread(State::Ready, 90, 7 + 40 + 200 + 70, 2))],
            [(1, thread(State::Ready, 190, 7 + 40 + 200 + 70, 2))],
        ];
        let looks: Vec<&[_]> = looks.iter().map(|look| &look[..]).collect();
        assert_eq!(lost(&looks), [0, 0, 100, 100, 110, 0]);
    }

    #[test]
    fn a_stopped_machine_loses_all() {
        let at = |state| {
            [
                (1, thread(state, 1, 0, 1)),
                (2, thread(State::Asleep, 1, 0, 1)),
            ]
        };
        let (up, down) = (at(State::Asleep), at(State::Stopped));
        assert_eq!(lost(&[&up, &down, &down, &up, &up]), [0, 100, 100, 100, 0]);
        // Where the host counts nothing, that is still seen.
        let at = |state| [(1, thread(state, 0, 0, 0))];
        let (ready, down) = (at(State::Ready), at(State::Stopped));
        assert_eq!(lost(&[&ready, &ready, &down]), [0, 0, 100]);
    }

    #[test]
    fn threads_come_and_go() {
        let one = [(1, thread(State::Asleep, 10, 500, 9))];
        let two = [
            (1, thread(State::Asleep, 10, 500, 9)),
            (2, thread(State::Ready, 1, 30, 2)),
        ];
        // The one of the second id is another.
        let three = [(2, thread(State::Ready, 0, 20, 1))];
        assert_eq!(lost(&[&one, &two, &three, &[]]), [0, 30, 20, 0]);
    }

    #[test]
    fn the_share_is_what_ran_of_what_would() {
        let mut account = Account::default();
        assert_eq!(account.share(), None);
        account.look([(1, thread(State::Ready, 900, 900, 1))].into(), WALL);
        account.look([(1, thread(State::Ready, 925, 975, 3))].into(), WALL);
        assert_eq!(account.share(), Some(0.25));
    }
}
