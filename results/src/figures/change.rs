//! Where a row of figures changed its level.
//!
//! The method is Pettitt's test (A. N. Pettitt, "A Non-Parametric Approach to the Change-Point Problem",
//! Applied Statistics 28, 1979) within seeded binary segmentation (S. Kovács and others, Biometrika 110,
//! 2023). The test goes by ranks, so one wild figure on a busy host moves nothing, and it assumes no
//! distribution. For figures x1…xn and a point t it sums how the first t rank against the rest,
//!
//! U(t) = Σ over i ≤ t < j of sign(xi − xj),
//!
//! takes the t with the largest |U(t)| = K, and the chance of such a K without any change is about
//! 2·exp(−6K² / (n³ + n²)). A level that rose and fell again hides from a test of the whole row, so
//! windows of half, a quarter … of it are tested too, and each chance counts as many times as there are
//! windows (Bonferroni). The best point splits the row when that is below [`CHANCE`], and both sides are
//! looked at again. Eight figures on each side, all on one side of each other, are just enough.

use super::statistics::median;

/// A point is believed when chance alone makes one like it in less than this share of rows.
pub const CHANCE: f64 = 0.01;
/// The fewest figures on each side of a point.
pub const SIDE: usize = 3;
/// The shortest window: in one of 16 figures the chance can just be below [`CHANCE`].
const WINDOW: usize = 16;

/// A point where the level changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The first figure of the new level.
    pub index: usize,
    /// The median from the point before, or the beginning, up to here.
    pub before: f64,
    /// The median from here up to the next point, or the end.
    pub after: f64,
    /// How likely chance alone makes one like it.
    pub chance: f64,
}

/// All points where the level of the figures changed, first to last.
pub fn points(figures: &[f64]) -> Vec<Point> {
    let mut found = Vec::new();
    split(figures, 0, &mut found);
    found.sort_by_key(|(index, _)| *index);
    // Ranks tell that there is a change better than where; between its neighbours each finds its place.
    for n in 0..found.len() {
        let from = n.checked_sub(1).map_or(0, |before| found[before].0);
        let to = found.get(n + 1).map_or(figures.len(), |next| next.0);
        found[n].0 = from + place(&figures[from..to]);
    }
    let starts: Vec<usize> = found.iter().map(|(index, _)| *index).collect();
    let mut points = Vec::new();
    for (n, (index, chance)) in found.iter().enumerate() {
        let from = n.checked_sub(1).map_or(0, |before| starts[before]);
        let to = starts.get(n + 1).copied().unwrap_or(figures.len());
        points.push(Point {
            index: *index,
            before: median(&figures[from..*index]).unwrap_or_default(),
            after: median(&figures[*index..to]).unwrap_or_default(),
            chance: *chance,
        });
    }
    points
}

fn split(figures: &[f64], offset: usize, found: &mut Vec<(usize, f64)>) {
    let windows = windows(figures.len());
    let best = windows
        .iter()
        .filter_map(|&(from, to)| {
            let (at, chance) = pettitt(&figures[from..to])?;
            let sides = at >= SIDE && to - from - at >= SIDE;
            sides.then_some((from + at, chance * windows.len() as f64))
        })
        .min_by(|(_, one), (_, other)| one.total_cmp(other));
    let Some((at, chance)) = best.filter(|(_, chance)| *chance < CHANCE) else {
        return;
    };
    found.push((offset + at, chance));
    split(&figures[..at], offset, found);
    split(&figures[at..], offset + at, found);
}

/// Where a row with one change is closest to two levels, in the sum of the distances from their medians.
fn place(figures: &[f64]) -> usize {
    let spread = |side: &[f64]| {
        let middle = median(side).unwrap_or_default();
        side.iter().map(|x| (x - middle).abs()).sum::<f64>()
    };
    let cost = |at: &usize| spread(&figures[..*at]) + spread(&figures[*at..]);
    (SIDE..=figures.len().saturating_sub(SIDE))
        .min_by(|one, other| cost(one).total_cmp(&cost(other)))
        .unwrap_or(SIDE)
}

/// The whole row, and windows of half its length, a quarter …, each a quarter of its length on from
/// the one before. Shorter than [`WINDOW`] none can tell anything.
fn windows(n: usize) -> Vec<(usize, usize)> {
    let mut all = vec![(0, n)];
    let mut length = n / 2;
    while length >= WINDOW {
        let last = n - length;
        let starts = (0..last).step_by(length / 4).chain([last]);
        all.extend(starts.map(|from| (from, from + length)));
        length /= 2;
    }
    all
}

/// The likeliest point, and how likely chance alone makes one like it.
fn pettitt(figures: &[f64]) -> Option<(usize, f64)> {
    let n = figures.len();
    // U(t) = U(t - 1) + Σ over j of sign(xt − xj): each figure once against all.
    let mut sum = 0_i64;
    let mut best: Option<(i64, usize)> = None;
    for (index, figure) in figures.iter().enumerate().take(n.saturating_sub(1)) {
        for other in figures {
            sum += match figure.total_cmp(other) {
                std::cmp::Ordering::Less => -1,
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => 1,
            };
        }
        if best.is_none_or(|(most, _)| sum.abs() > most) {
            best = Some((sum.abs(), index + 1));
        }
    }
    let (most, at) = best?;
    let (n, most) = (n as f64, most as f64);
    let chance = 2.0 * (-6.0 * most * most / (n * n * n + n * n)).exp();
    Some((at, chance.min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures around a level, the same in every run (xorshift).
    fn noise(seed: u64, n: usize, level: f64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 1000) as f64 / 1000.0
        };
        (0..n).map(|_| level * (0.95 + 0.1 * next())).collect()
    }

    #[test]
    fn a_step_is_found_where_it_is() {
        let figures = [noise(1, 12, 10.0), noise(2, 12, 12.0)].concat();
        let points = points(&figures);
        assert_eq!(points.len(), 1, "{points:?}");
        assert_eq!(points[0].index, 12);
        assert!((points[0].before - 10.0).abs() < 0.5 && (points[0].after - 12.0).abs() < 0.5);
    }

    #[test]
    fn two_steps_are_two_points() {
        let figures = [noise(3, 15, 10.0), noise(4, 15, 20.0), noise(5, 15, 10.0)].concat();
        let found = |figures: &[f64]| -> Vec<usize> {
            points(figures).iter().map(|point| point.index).collect()
        };
        assert_eq!(found(&figures), [15, 30]);
        // Something slow that was mended stands out in a long row too.
        let figures = [noise(3, 60, 10.0), noise(4, 15, 12.0), noise(5, 60, 10.0)].concat();
        assert_eq!(found(&figures), [60, 75]);
    }

    #[test]
    fn noise_one_wild_figure_and_few_figures_are_no_change() {
        let rows = 500;
        let wrong = (0..rows)
            .filter(|seed| !points(&noise(seed + 10, 30, 5.0)).is_empty())
            .count();
        // The formula is on the safe side; one in a hundred is what it promises.
        assert!(wrong <= 10, "{wrong} of {rows} rows of noise have a change");
        let mut wild = noise(7, 20, 5.0);
        wild[10] = 500.0;
        assert_eq!(points(&wild), []);
        assert_eq!(points(&[1.0, 1.0, 2.0, 2.0]), []);
        assert_eq!(points(&[]), []);
        assert_eq!(points(&[3.0; 40]), []);
    }

    #[test]
    fn eight_and_eight_are_enough_and_seven_are_not() {
        let step = |n: usize| [vec![1.0; n], vec![2.0; n]].concat();
        assert_eq!(points(&step(8)).len(), 1);
        assert_eq!(points(&step(7)).len(), 0);
    }
}
