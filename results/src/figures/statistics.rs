//! Is one thing slower than another, and how sure is that? Pure.
//!
//! What is compared comes in pairs taken close to each other in time, so that what slows a host down
//! for seconds slows both sides of a pair. Of each pair the logarithm of the ratio is kept (twice as
//! slow and twice as fast are then equally far from the same), and of those the trimmed mean. How far
//! that can be trusted is found by the bootstrap: the pairs are drawn again, with replacement, a few
//! thousand times, and the estimates so found are spread about as the estimate itself is (Efron 1979;
//! Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, whose correction for small
//! samples is used: percentile intervals of few observations are too narrow by the factor by which
//! Student's quantile exceeds the normal one, and by sqrt(n / (n - 1))).

use serde::{Deserialize, Serialize};

/// Times the pairs are drawn again.
const DRAWS: usize = 4000;

/// The share of the smallest and of the largest ratios that the mean leaves out, each.
const TRIM: f64 = 0.2;

/// The normal quantile of the two-sided confidence of 99 %: several metrics are judged in one run,
/// and a gate that cries wolf is switched off.
const Z: f64 = 2.575_829;

/// Fewer pairs than this say nothing.
pub const FEWEST_PAIRS: usize = 4;

/// The middle value; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// A ratio and the interval that holds the true one with a confidence of 99 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The best guess.
    pub ratio: f64,
    /// Hardly below this.
    pub low: f64,
    /// Hardly above this.
    pub high: f64,
}

/// The interval of the ratio that pairs of (before, after) show; `None` of fewer than
/// [`FEWEST_PAIRS`], or when a value is not above zero.
pub fn ratio(pairs: &[(f64, f64)], seed: u64) -> Option<Interval> {
    let sound = |value: f64| value.is_finite() && value > 0.0;
    if pairs.len() < FEWEST_PAIRS || !pairs.iter().all(|(a, b)| sound(*a) && sound(*b)) {
        return None;
    }
    let logs: Vec<f64> = pairs.iter().map(|(a, b)| (b / a).ln()).collect();
    let mut scratch = logs.clone();
    let centre = trimmed_mean(&mut scratch);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .map(|_| {
            for value in &mut scratch {
                *value = logs[random.usize(..logs.len())];
            }
            trimmed_mean(&mut scratch)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    // 0.5 % at each end.
    let tail = DRAWS / 200;
    let wider = widening(logs.len());
    let low = centre - (centre - drawn[tail]) * wider;
    let high = centre + (drawn[DRAWS - 1 - tail] - centre) * wider;
    Some(Interval {
        ratio: centre.exp(),
        low: low.exp(),
        high: high.exp(),
    })
}

/// The interval of the ratio of two medians whose samples were not taken in turns: all that two records
/// can show. `None` as for [`ratio`].
pub fn ratio_of_medians(before: &[f64], after: &[f64], seed: u64) -> Option<Interval> {
    let sound = |values: &[f64]| {
        values.len() >= FEWEST_PAIRS && values.iter().all(|v| v.is_finite() && *v > 0.0)
    };
    if !sound(before) || !sound(after) {
        return None;
    }
    let centre = (median(after)? / median(before)?).ln();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut again = |values: &[f64]| {
        let drawn: Vec<f64> = values
            .iter()
            .map(|_| values[random.usize(..values.len())])
            .collect();
        median(&drawn)
    };
    let mut drawn = (0..DRAWS)
        .map(|_| Some((again(after)? / again(before)?).ln()))
        .collect::<Option<Vec<f64>>>()?;
    drawn.sort_by(f64::total_cmp);
    let tail = DRAWS / 200;
    let wider = widening(before.len().min(after.len()));
    Some(Interval {
        ratio: centre.exp(),
        low: (centre - (centre - drawn[tail]) * wider).exp(),
        high: (centre + (drawn[DRAWS - 1 - tail] - centre) * wider).exp(),
    })
}

/// The mean of what is left without the extremes; sorts its argument.
fn trimmed_mean(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and positive"
    )]
    let out = (values.len() as f64 * TRIM) as usize;
    let kept = &values[out..values.len() - out];
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// By how much the percentile interval of `n` observations is too narrow.
fn widening(n: usize) -> f64 {
    let n = n as f64;
    student(n - 1.0) / Z * (n / (n - 1.0)).sqrt()
}

/// Student's quantile for the confidence of [`Z`], by its expansion in the degrees of freedom
/// (Abramowitz and Stegun 26.7.5): 4 % too small for three of them, and soon exact.
fn student(freedom: f64) -> f64 {
    let (z3, z5, z7) = (Z.powi(3), Z.powi(5), Z.powi(7));
    Z + (z3 + Z) / (4.0 * freedom)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / (96.0 * freedom.powi(2))
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * Z) / (384.0 * freedom.powi(3))
}

/// What became of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// By more than the margin, without doubt.
    Better,
    /// By more than the margin, without doubt.
    Worse,
    /// Within the margin, without doubt.
    Same,
    /// More pairs would tell.
    Unsure,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Same => "same",
            Verdict::Unsure => "unsure",
        })
    }
}

/// Judges the ratio of costs, new to old: more than 1 is worse. `margin` is how much does not count,
/// as a share (0.05: from 1/1.05 to 1.05 is the same).
///
/// An effect has to be shown to be larger than the margin, and sameness to be within it; that
/// there is no proof of a difference does not make two things the same.
pub fn judge(cost: &Interval, margin: f64) -> Verdict {
    let (above, below) = (1.0 + margin, 1.0 / (1.0 + margin));
    if cost.low > above {
        Verdict::Worse
    } else if cost.high < below {
        Verdict::Better
    } else if cost.low >= below && cost.high <= above {
        Verdict::Same
    } else {
        Verdict::Unsure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs whose ratio is `shift`, with normal noise of that deviation on each side, now and then a
    /// far larger one, and a host that gets slower all the time.
    fn pairs(n: usize, shift: f64, noise: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut normal = move || {
            let sum: f64 = (0..12).map(|_| random.f64()).sum();
            let wild = if random.u8(..) < 8 { 8.0 } else { 1.0 };
            ((sum - 6.0) * noise * wild).exp()
        };
        (0..n)
            .map(|at| {
                let host = 1.0 + at as f64 / 10.0;
                (host * normal(), host * shift * normal())
            })
            .collect()
    }

    /// Of 200 comparisons, how many come to this verdict.
    fn count(verdict: Verdict, n: usize, shift: f64, noise: f64) -> usize {
        (0..200)
            .filter(|seed| {
                let interval = ratio(&pairs(n, shift, noise, *seed), 7).expect("enough pairs");
                judge(&interval, 0.05) == verdict
            })
            .count()
    }

    #[test]
    fn the_same_is_never_called_worse() {
        for (n, noise) in [(4, 0.02), (5, 0.01), (8, 0.03), (20, 0.05)] {
            let wrong =
                count(Verdict::Worse, n, 1.0, noise) + count(Verdict::Better, n, 1.0, noise);
            assert!(wrong <= 1, "{wrong} of 200 with {n} pairs of noise {noise}");
        }
    }

    #[test]
    fn quiet_pairs_of_the_same_are_the_same() {
        assert!(count(Verdict::Same, 10, 1.0, 0.005) >= 190);
        assert!(count(Verdict::Same, 20, 1.0, 0.02) >= 190);
    }

    #[test]
    fn fifteen_percent_are_seen() {
        assert!(count(Verdict::Worse, 10, 1.15, 0.01) >= 190);
        assert!(count(Verdict::Worse, 20, 1.15, 0.03) >= 190);
        assert!(count(Verdict::Better, 10, 1.0 / 1.15, 0.01) >= 190);
    }

    #[test]
    fn a_difference_within_noise_is_left_open() {
        assert!(count(Verdict::Unsure, 5, 1.0, 0.2) >= 190);
    }

    #[test]
    fn the_interval_holds_the_truth_nearly_always() {
        for n in [4, 5, 8, 16] {
            let held = (0..400)
                .filter(|seed| {
                    let interval = ratio(&pairs(n, 1.3, 0.05, *seed), 3).expect("enough");
                    interval.low <= 1.3 && 1.3 <= interval.high
                })
                .count();
            assert!(held >= 384, "{held} of 400 with {n} pairs");
        }
    }

    #[test]
    fn too_few_or_impossible_values_give_no_interval() {
        assert_eq!(ratio(&[(1.0, 1.0); 3], 1), None);
        assert_eq!(ratio(&[(1.0, 0.0); 8], 1), None);
        assert_eq!(ratio(&[(f64::NAN, 1.0); 8], 1), None);
        let same = ratio(&[(2.0, 2.0); 4], 1).expect("enough");
        assert_eq!((same.ratio, same.low, same.high), (1.0, 1.0, 1.0));
    }

    #[test]
    fn medians_of_two_records_are_compared() {
        let (before, after): (Vec<f64>, Vec<f64>) = pairs(30, 1.5, 0.02, 4).into_iter().unzip();
        let interval = ratio_of_medians(&before, &after, 1).expect("enough");
        assert!(interval.low < 1.5 && 1.5 < interval.high, "{interval:?}");
        assert_eq!(ratio_of_medians(&before[..3], &after, 1), None);
        assert_eq!(ratio_of_medians(&before, &[0.0; 9], 1), None);
    }

    #[test]
    fn one_seed_gives_one_answer() {
        let pairs = pairs(9, 1.1, 0.1, 5);
        assert_eq!(ratio(&pairs, 11), ratio(&pairs, 11));
    }

    #[test]
    fn the_margin_decides() {
        let interval = |low: f64, high: f64| Interval {
            ratio: f64::midpoint(low, high),
            low,
            high,
        };
        assert_eq!(judge(&interval(1.06, 1.2), 0.05), Verdict::Worse);
        assert_eq!(judge(&interval(1.04, 1.2), 0.05), Verdict::Unsure);
        assert_eq!(judge(&interval(0.96, 1.05), 0.05), Verdict::Same);
        assert_eq!(judge(&interval(0.8, 0.95), 0.05), Verdict::Better);
    }

    #[test]
    fn students_quantile_is_near_the_tables() {
        for (freedom, table) in [(4.0, 4.604), (9.0, 3.250), (19.0, 2.861), (1e6, 2.576)] {
            assert!((student(freedom) / table - 1.0).abs() < 0.02, "{freedom}");
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
