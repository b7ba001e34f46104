//! A treemap: rectangles whose areas are as the sizes, as square as can be (Bruls, Huizing and van Wijk,
//! "Squarified Treemaps", 2000).

use serde::Serialize;

/// A rectangle, in the units of the area that was divided.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rect {
    /// Left.
    pub x: f64,
    /// Top.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

/// Divides `area` among sizes, which must be positive and sorted, largest first.
pub fn squarify(sizes: &[f64], area: Rect) -> Vec<Rect> {
    let total: f64 = sizes.iter().sum();
    let scale = area.w * area.h / total;
    let mut rects = Vec::with_capacity(sizes.len());
    let mut rest = area;
    let mut from = 0;
    while from < sizes.len() {
        let side = rest.w.min(rest.h);
        let mut to = from + 1;
        while to < sizes.len()
            && worst(&sizes[from..=to], scale, side) <= worst(&sizes[from..to], scale, side)
        {
            to += 1;
        }
        rest = lay(&sizes[from..to], scale, rest, &mut rects);
        from = to;
    }
    rects
}

/// The worst ratio of the sides of a row's rectangles.
fn worst(row: &[f64], scale: f64, side: f64) -> f64 {
    let sum: f64 = row.iter().sum::<f64>() * scale;
    let thick = sum / side;
    row.iter()
        .map(|size| {
            let long = size * scale / thick;
            (long / thick).max(thick / long)
        })
        .fold(0.0, f64::max)
}

/// Lays a row along the shorter side and returns what is left.
fn lay(row: &[f64], scale: f64, rest: Rect, rects: &mut Vec<Rect>) -> Rect {
    let sum: f64 = row.iter().sum::<f64>() * scale;
    let upright = rest.w >= rest.h;
    let thick = sum / if upright { rest.h } else { rest.w };
    let mut at = if upright { rest.y } else { rest.x };
    for size in row {
        let long = size * scale / thick;
        rects.push(if upright {
            Rect {
                x: rest.x,
                y: at,
                w: thick,
                h: long,
            }
        } else {
            Rect {
                x: at,
                y: rest.y,
                w: long,
                h: thick,
            }
        });
        at += long;
    }
    if upright {
        Rect {
            x: rest.x + thick,
            w: (rest.w - thick).max(0.0),
            ..rest
        }
    } else {
        Rect {
            y: rest.y + thick,
            h: (rest.h - thick).max(0.0),
            ..rest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_as_the_sizes_and_nothing_overlaps() {
        let sizes = [92.0, 10.0, 9.0, 6.0, 3.0, 2.0, 2.0, 1.0, 0.1];
        let area = Rect {
            x: 0.0,
            y: 0.0,
            w: 1000.0,
            h: 400.0,
        };
        let rects = squarify(&sizes, area);
        assert_eq!(rects.len(), sizes.len());
        let total: f64 = sizes.iter().sum();
        for (size, rect) in sizes.iter().zip(&rects) {
            let expected = size / total * 400_000.0;
            assert!((rect.w * rect.h - expected).abs() < 1.0, "{rect:?}");
            assert!(rect.x >= -0.01 && rect.x + rect.w <= 1000.01, "{rect:?}");
            assert!(rect.y >= -0.01 && rect.y + rect.h <= 400.01, "{rect:?}");
        }
        for (n, a) in rects.iter().enumerate() {
            for b in &rects[n + 1..] {
                let x = (a.x + a.w).min(b.x + b.w) - a.x.max(b.x);
                let y = (a.y + a.h).min(b.y + b.h) - a.y.max(b.y);
                assert!(x < 0.01 || y < 0.01, "{a:?} and {b:?}");
            }
        }
        assert!(squarify(&[], area).is_empty());
    }
}
