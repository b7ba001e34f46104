//! What a comparison has come to, and how it is told. Pure.

use std::fmt;
use std::time::Duration;

use results::figures::statistics::{self, Interval, Verdict};
use results::figures::{Direction, Fingerprint, Metric, Record};
use results::{CaseId, CaseResult, Outcome, Part, Tier};
use serde::{Deserialize, Serialize};

use super::{Pairs, Taken, Thresholds};

/// The seed of the bootstrap: the same pairs are judged the same.
const SEED: u64 = 0x5EED;

/// What is known of all metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The baseline's name.
    pub base: String,
    /// The candidate's name.
    pub new: String,
    /// A row for each metric, by name.
    pub rows: Vec<Row>,
}

/// What is known of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Which way is better.
    pub direction: Direction,
    /// How much does not count.
    pub margin: f64,
    /// New to old, and how sure; `None` while there are too few pairs.
    pub interval: Option<Interval>,
    /// What that comes to.
    pub verdict: Verdict,
    /// What was measured: old and new, in the order taken.
    pub pairs: Vec<(f64, f64)>,
}

impl Comparison {
    /// Judges the pairs.
    pub(super) fn of(
        (base, new): (&str, &str),
        taken: &Taken,
        thresholds: &Thresholds,
    ) -> Result<Comparison, String> {
        let rows = taken.iter().map(|(name, pairs)| {
            let threshold = thresholds.metric.get(name).ok_or_else(|| {
                format!("{name} is measured, and the thresholds do not say how to judge it")
            })?;
            let interval = statistics::ratio(pairs, SEED);
            let verdict = interval.map_or(Verdict::Unsure, |ratio| {
                statistics::judge(&cost(ratio, threshold.direction), threshold.margin)
            });
            Ok(Row {
                name: name.clone(),
                direction: threshold.direction,
                margin: threshold.margin,
                interval,
                verdict,
                pairs: pairs.clone(),
            })
        });
        Ok(Comparison {
            base: base.into(),
            new: new.into(),
            rows: rows.collect::<Result<_, String>>()?,
        })
    }

    /// Whether more pairs would change nothing, or are not to be had.
    pub(super) fn is_decided(&self, pairs: Pairs) -> bool {
        let taken = self.pairs();
        let unsure = self.rows.iter().any(|row| row.verdict == Verdict::Unsure);
        taken >= pairs.most || (taken >= pairs.fewest && !unsure)
    }

    /// How many pairs were taken.
    pub fn pairs(&self) -> usize {
        self.rows
            .iter()
            .map(|row| row.pairs.len())
            .max()
            .unwrap_or(0)
    }

    /// The whole: the worst of what is known, and better only when nothing is worse or unsure.
    pub fn verdict(&self) -> Verdict {
        let any = |verdict| self.rows.iter().any(|row| row.verdict == verdict);
        [Verdict::Worse, Verdict::Unsure, Verdict::Better]
            .into_iter()
            .find(|verdict| any(*verdict))
            .unwrap_or(Verdict::Same)
    }

    /// 0 when nothing got worse, 1 when something did, 75 when this host could not tell.
    pub fn exit_code(&self) -> u8 {
        match self.verdict() {
            Verdict::Better | Verdict::Same => 0,
            Verdict::Worse => 1,
            Verdict::Unsure => Outcome::EXIT_INFRASTRUCTURE,
        }
    }

    /// What was measured, as reports read it: in nanoseconds of the guest's clock for one operation, the
    /// baseline as the candidate's peer.
    pub fn record(&self, fingerprint: Fingerprint) -> Record {
        // Two builds of one tree can have one name.
        let new = match self.new == self.base {
            true => format!("{} (new)", self.new),
            false => self.new.clone(),
        };
        let metrics = self.rows.iter().flat_map(|row| {
            let metric = |subject: &str, samples: Vec<f64>| Metric {
                samples,
                ..Metric::new(&row.name, subject, "ns", row.direction)
            };
            let (base, after): (Vec<f64>, Vec<f64>) = row.pairs.iter().copied().unzip();
            [metric(&new, after), metric(&self.base, base).beside(&new)]
        });
        Record::new(fingerprint, metrics.collect())
    }

    /// As a case with a part for each metric, for JUnit. What is unsure is an error of the host, never
    /// a pass.
    pub fn case(&self, variant: &str, took: Duration, facts: &[(String, String)]) -> CaseResult {
        let parts = self.rows.iter().map(|row| Part {
            name: row.name.clone(),
            outcome: row.outcome(),
        });
        let title = format!("{} against {}: {}", self.new, self.base, self.verdict());
        CaseResult {
            took,
            properties: facts.to_vec(),
            transcript: self.to_string(),
            parts: parts.collect(),
            ..CaseResult::new(
                CaseId::new(variant, Tier::Full, "perf_compare"),
                match self.verdict() {
                    Verdict::Better | Verdict::Same => Outcome::Pass,
                    Verdict::Worse => Outcome::fail("performance", title, self.to_string()),
                    Verdict::Unsure => Outcome::Infrastructure {
                        what: format!("{title}\n{self}"),
                    },
                },
            )
        }
    }
}

/// The ratio of costs: for what is better when it is more, the other way round.
fn cost(ratio: Interval, direction: Direction) -> Interval {
    match direction {
        Direction::Lower => ratio,
        Direction::Higher => Interval {
            ratio: 1.0 / ratio.ratio,
            low: 1.0 / ratio.high,
            high: 1.0 / ratio.low,
        },
    }
}

impl Row {
    fn outcome(&self) -> Outcome {
        match self.verdict {
            Verdict::Better | Verdict::Same => Outcome::Pass,
            Verdict::Worse => Outcome::fail("performance", self.to_string(), ""),
            Verdict::Unsure => Outcome::Infrastructure {
                what: self.to_string(),
            },
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        write!(f, "{:<16} {:<7}", self.name, self.verdict)?;
        match self.interval {
            Some(Interval { ratio, low, high }) => write!(
                f,
                " {:+6.1} %  (99 % sure: {:+.1} to {:+.1} %; {:.0} % does not count)",
                percent(ratio),
                percent(low),
                percent(high),
                self.margin * 100.0
            ),
            None => write!(f, " too few pairs"),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        write!(
            f,
            "{} is {} ({} pairs) beside {}",
            self.new,
            self.verdict(),
            self.pairs(),
            self.base
        )
    }
}

#[cfg(test)]
mod tests {
    use results::figures::HostKind;

    use super::*;

    fn comparison(shifts: &[(&str, f64)], pairs: usize) -> Comparison {
        let mut random = fastrand::Rng::with_seed(1);
        let taken = shifts
            .iter()
            .map(|(name, shift)| {
                let mut one = || 100.0 + random.f64();
                let pairs = (0..pairs).map(|_| (one(), one() * shift)).collect();
                ((*name).to_owned(), pairs)
            })
            .collect();
        Comparison::of(("old", "new"), &taken, &Thresholds::default()).expect("all are known")
    }

    #[test]
    fn one_that_is_worse_is_enough() {
        let all = comparison(
            &[("fio/create", 1.15), ("fio/stat", 0.8), ("fio/fsync", 1.0)],
            6,
        );
        let verdicts: Vec<Verdict> = all.rows.iter().map(|row| row.verdict).collect();
        assert_eq!(verdicts, [Verdict::Worse, Verdict::Same, Verdict::Better]);
        assert_eq!((all.verdict(), all.exit_code()), (Verdict::Worse, 1));
        let case = all.case("minimal", Duration::ZERO, &[]);
        assert!(matches!(case.outcome, Outcome::Fail { .. }));
        let failed = |part: &Part| matches!(part.outcome, Outcome::Fail { .. });
        let red: Vec<_> = case.parts.iter().filter(|p| failed(p)).collect();
        assert_eq!(red.len(), 1);
        assert_eq!(red[0].name, "fio/create");
    }

    #[test]
    fn what_cannot_be_told_is_no_pass() {
        let all = comparison(&[("fio/create", 1.05)], 6);
        assert_eq!((all.verdict(), all.exit_code()), (Verdict::Unsure, 75));
        let few = comparison(&[("fio/create", 1.0)], 2);
        assert_eq!(few.verdict(), Verdict::Unsure);
        let case = few.case("minimal", Duration::ZERO, &[]);
        assert!(matches!(case.outcome, Outcome::Infrastructure { .. }));
    }

    #[test]
    fn it_goes_on_until_it_knows_or_the_limit_is_reached() {
        let pairs = Pairs { fewest: 5, most: 9 };
        assert!(!comparison(&[("fio/create", 1.0)], 4).is_decided(pairs));
        assert!(comparison(&[("fio/create", 1.0)], 5).is_decided(pairs));
        assert!(!comparison(&[("fio/create", 1.05)], 8).is_decided(pairs));
        assert!(comparison(&[("fio/create", 1.05)], 9).is_decided(pairs));
    }

    #[test]
    fn more_is_better_where_the_table_says_so() {
        let ratio = Interval {
            ratio: 2.0,
            low: 1.0,
            high: 4.0,
        };
        assert_eq!(cost(ratio, Direction::Lower), ratio);
        let turned = cost(ratio, Direction::Higher);
        assert_eq!((turned.ratio, turned.low, turned.high), (0.5, 0.25, 1.0));
    }

    #[test]
    fn what_was_measured_is_kept_pair_by_pair() {
        let all = comparison(&[("fio/create", 1.1)], 5);
        let here = Fingerprint {
            host: HostKind::default(),
            guest_kernel: "6.1.0".into(),
            image_sha256: "00".into(),
            variant: "minimal".into(),
        };
        let record = all.record(here.clone());
        let [new, old] = &record.metrics[..] else {
            panic!("{record:?}");
        };
        assert_eq!((new.subject.as_str(), old.subject.as_str()), ("new", "old"));
        assert_eq!(old.peer_of.as_deref(), Some("new"));
        assert_eq!((old.samples[4], new.samples[4]), all.rows[0].pairs[4]);
        let twin = Comparison {
            new: "old".into(),
            ..all
        };
        let twins = twin.record(here).metrics;
        assert_ne!(twins[0].subject, twins[1].subject);
    }

    #[test]
    fn what_nobody_said_how_to_judge_is_an_error() {
        let taken = [("fio/other".to_owned(), vec![(1.0, 1.0)])].into();
        let said = Comparison::of(("a", "b"), &taken, &Thresholds::default());
        assert!(said.expect_err("refused").contains("fio/other"));
    }
}
