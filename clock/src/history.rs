//! When a machine lost how much.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Most spans that are kept apart, half an hour of looks; beyond, older ones are joined by twos.
const MOST: usize = 18_000;

/// A stretch of time, and how much of it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from: Instant,
    to: Instant,
    lost: Duration,
}

impl Span {
    fn length(&self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }

    /// What of it was lost from `from` to `to`, taken as spread evenly.
    fn lost(&self, from: Instant, to: Instant) -> Duration {
        let common = self
            .to
            .min(to)
            .saturating_duration_since(self.from.max(from));
        match self.length().is_zero() {
            true => Duration::ZERO,
            false => self
                .lost
                .mul_f64(common.as_secs_f64() / self.length().as_secs_f64()),
        }
    }
}

/// What a machine lost, in the order of time. Never more than there was.
#[derive(Debug, Default)]
pub(super) struct History {
    spans: VecDeque<Span>,
}

impl History {
    /// Adds what was lost from `from`, where the last one ended, to `to`. What is too much for that was lost
    /// before.
    pub(super) fn push(&mut self, from: Instant, to: Instant, lost: Duration) {
        let length = to.saturating_duration_since(from);
        if let Some(last) = self.spans.back_mut() {
            let before = lost.saturating_sub(length);
            last.lost += before.min(last.length().saturating_sub(last.lost));
            if last.lost.is_zero() && lost.is_zero() {
                last.to = to;
                return;
            }
        }
        let lost = lost.min(length);
        self.spans.push_back(Span { from, to, lost });
        if self.spans.len() > MOST {
            self.join();
        }
    }

    /// All of it.
    pub(super) fn total(&self) -> Duration {
        self.spans.iter().map(|span| span.lost).sum()
    }

    /// What was lost from `from` to `to`.
    pub(super) fn lost(&self, from: Instant, to: Instant) -> Duration {
        let first = self.spans.partition_point(|span| span.to <= from);
        let spans = self.spans.range(first..);
        let spans = spans.take_while(|span| span.from < to);
        spans.map(|span| span.lost(from, to)).sum()
    }

    fn join(&mut self) {
        let spans = self.spans.make_contiguous();
        let joined = spans.chunks(2).map(|two| Span {
            from: two[0].from,
            to: two[two.len() - 1].to,
            lost: two.iter().map(|span| span.lost).sum(),
        });
        self.spans = joined.collect();
    }
}

/// What was lost from `from` to `to` by the one of several that lost most, moment for moment.
pub(super) fn lost_by_any(histories: &[&History], from: Instant, to: Instant) -> Duration {
    if let [one] = histories {
        return one.lost(from, to);
    }
    let spans = histories.iter().flat_map(|history| history.spans.iter());
    let ends = spans.flat_map(|span| [span.from, span.to]);
    let mut moments: Vec<Instant> = ends.filter(|at| from < *at && *at < to).collect();
    moments.extend([from, to]);
    moments.sort();
    moments.dedup();
    let worst = |two: &[Instant]| {
        let each = histories.iter().map(|one| one.lost(two[0], two[1]));
        each.max().unwrap_or_default()
    };
    moments.windows(2).map(worst).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn history(begin: Instant, spans: &[(u64, u64, u64)]) -> History {
        let mut history = History::default();
        for (from, to, lost) in spans {
            history.push(begin + s(*from), begin + s(*to), s(*lost));
        }
        history
    }

    #[test]
    fn what_was_lost_is_known_for_any_stretch() {
        let begin = Instant::now();
        let at = |seconds| begin + s(seconds);
        let history = history(begin, &[(0, 10, 0), (10, 20, 5), (20, 30, 10), (30, 40, 0)]);
        assert_eq!(history.total(), s(15));
        assert_eq!(history.lost(at(0), at(40)), s(15));
        assert_eq!(history.lost(at(0), at(10)), s(0));
        assert_eq!(history.lost(at(14), at(22)), s(5));
        assert_eq!(history.lost(at(35), at(90)), s(0));
        assert_eq!(history.lost(at(20), at(10)), s(0));
    }

    #[test]
    fn a_wait_told_late_was_lost_before_and_never_more_than_there_was() {
        let begin = Instant::now();
        let at = |seconds| begin + s(seconds);
        let mut one = history(begin, &[(0, 10, 3), (10, 11, 4)]);
        assert_eq!(one.lost(at(10), at(11)), s(1));
        assert_eq!(one.total(), s(7));
        one.push(at(11), at(12), s(100));
        assert_eq!(one.total(), s(8));
        // Nothing and nothing are one.
        let quiet = history(begin, &[(0, 1, 0), (1, 2, 0), (2, 3, 2)]);
        assert_eq!(quiet.total(), s(2));
    }

    #[test]
    fn several_machines_lose_what_the_worst_of_them_loses_at_each_moment() {
        let begin = Instant::now();
        let first = history(begin, &[(0, 10, 10), (10, 20, 2), (20, 30, 0)]);
        let second = history(begin, &[(5, 15, 5), (15, 30, 15)]);
        let both = |from, to| lost_by_any(&[&first, &second], begin + s(from), begin + s(to));
        // All of the first's ten, half of the next five, all of the rest.
        assert_eq!(both(0, 30), Duration::from_millis(27_500));
        assert_eq!(both(20, 25), s(5));
        assert_eq!(lost_by_any(&[], begin, begin + s(9)), s(0));
    }

    #[test]
    fn a_long_history_is_told_more_roughly() {
        let begin = Instant::now();
        let mut history = History::default();
        for n in 0..2 * MOST as u64 {
            history.push(begin + s(n), begin + s(n + 1), Duration::from_millis(500));
        }
        assert!(history.spans.len() <= MOST);
        assert_eq!(history.total(), s(MOST as u64));
        assert_eq!(history.lost(begin + s(8), begin + s(16)), s(4));
    }
}
