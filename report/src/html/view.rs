//! Where things are on the page: numbers for the template, no markup.

use serde::Serialize;

use super::super::model::{Boot, Image, Model, PackageSize, Question, Series, Size};
use super::treemap::{Rect, squarify};

/// The area of a treemap on a wide screen, and on a phone.
const WIDE: (f64, f64) = (1120.0, 460.0);
const TALL: (f64, f64) = (340.0, 560.0);
/// The area of a trend.
const TREND: (f64, f64) = (300.0, 64.0);
/// The most packages that are named as changed; the table of all has the rest.
const CHANGED: usize = 12;
/// Smaller packages are drawn as one.
const SMALLEST: f64 = 0.002;

/// The page's geometry, in the order of the model.
#[derive(Debug, Serialize)]
pub(super) struct View {
    images: Vec<ImageView>,
    boots: Vec<BootView>,
    /// By kind of host, question and subject.
    speed: Vec<Vec<Vec<Answer>>>,
    /// By kind of host and series.
    history: Vec<Vec<Trend>>,
}

#[derive(Debug, Serialize)]
struct ImageView {
    /// Width of each stage's bar, in percent.
    stages: Vec<f64>,
    /// Seconds of all stages.
    seconds: f64,
    maps: Vec<Map>,
    /// What takes more or less room than before, what changed most first.
    changed: Vec<PackageSize>,
    /// How many more there are.
    more_changed: usize,
}

/// A treemap.
#[derive(Debug, Serialize)]
struct Map {
    class: &'static str,
    w: f64,
    h: f64,
    tiles: Vec<Tile>,
}

#[derive(Debug, Serialize)]
struct Tile {
    #[serde(flatten)]
    rect: Rect,
    name: String,
    bytes: u64,
    before: Option<u64>,
    /// `new`, `grown`, `shrunk` or `same`.
    class: &'static str,
    /// Whether it is one of many small packages, drawn together.
    others: usize,
    /// What of the name there is room for.
    label: String,
    /// Whether there is room for the size below it.
    second: bool,
}

#[derive(Debug, Serialize)]
struct BootView {
    seconds: f64,
    stages: Vec<Bar>,
    units: Vec<Bar>,
}

/// From where to where, in percent.
#[derive(Debug, Serialize)]
struct Bar {
    x: f64,
    w: f64,
}

#[derive(Debug, Serialize)]
struct Answer {
    /// The median.
    bar: f64,
    /// From the least to the most.
    range: Bar,
    /// From the median of single operations to their 99th percentile, on a logarithmic scale.
    spread: Option<Bar>,
}

#[derive(Debug, Serialize)]
struct Trend {
    /// `x,y x,y …`
    line: String,
    least: f64,
    most: f64,
    /// x of each point of change.
    marks: Vec<f64>,
    /// The medians between them.
    levels: Vec<Level>,
}

#[derive(Debug, Serialize)]
struct Level {
    x: f64,
    to: f64,
    y: f64,
}

impl View {
    pub(super) fn of(model: &Model) -> View {
        View {
            images: model.images.iter().map(image).collect(),
            boots: model.boots.iter().map(boot).collect(),
            speed: model
                .speed
                .iter()
                .map(|speed| speed.questions.iter().map(question).collect())
                .collect(),
            history: model
                .history
                .iter()
                .map(|trends| trends.series.iter().map(trend).collect())
                .collect(),
        }
    }
}

/// Two decimals are a hundredth of a pixel.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn image(image: &Image) -> ImageView {
    let longest = image.stages.iter().map(|s| s.seconds).fold(0.001, f64::max);
    let maps = [("wide", WIDE), ("tall", TALL)].map(|(class, (w, h))| Map {
        class,
        w,
        h,
        tiles: image
            .size
            .as_ref()
            .map_or_else(Vec::new, |size| tiles(size, w, h)),
    });
    let packages = image.size.iter().flat_map(|size| &size.packages);
    let difference = |package: &PackageSize| {
        let before = package.before.unwrap_or(package.bytes);
        package.bytes.abs_diff(before)
    };
    let mut changed: Vec<PackageSize> = packages
        .filter(|package| difference(package) > 0)
        .cloned()
        .collect();
    changed.sort_by_key(|package| std::cmp::Reverse(difference(package)));
    ImageView {
        stages: image
            .stages
            .iter()
            .map(|stage| round(stage.seconds / longest * 100.0))
            .collect(),
        seconds: image.stages.iter().map(|stage| stage.seconds).sum(),
        maps: maps.into(),
        more_changed: changed.len().saturating_sub(CHANGED),
        changed: changed.into_iter().take(CHANGED).collect(),
    }
}

fn tiles(size: &Size, w: f64, h: f64) -> Vec<Tile> {
    let least = (size.bytes as f64 * SMALLEST) as u64;
    let large = |bytes: u64| bytes > 0 && bytes >= least;
    let mut tiles: Vec<Tile> = size
        .packages
        .iter()
        .filter(|package| large(package.bytes))
        .map(|package| tile(package.name.clone(), package.bytes, package.before, 0))
        .collect();
    let small: Vec<_> = size
        .packages
        .iter()
        .filter(|p| p.bytes > 0 && !large(p.bytes))
        .collect();
    if !small.is_empty() {
        let name = format!("{} small packages", small.len());
        let bytes = small.iter().map(|package| package.bytes).sum();
        let before = small.iter().map(|package| package.before).sum();
        tiles.push(tile(name, bytes, before, small.len()));
    }
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.bytes));
    let sizes: Vec<f64> = tiles.iter().map(|tile| tile.bytes as f64).collect();
    let rects = squarify(
        &sizes,
        Rect {
            x: 0.0,
            y: 0.0,
            w,
            h,
        },
    );
    for (tile, rect) in tiles.iter_mut().zip(rects) {
        // Letters of 11 px are about 6.3 px wide, lines 14 px high.
        let fits = ((rect.w - 8.0) / 6.3).max(0.0) as usize;
        tile.label = match (rect.h >= 16.0, tile.name.chars().count() <= fits, fits) {
            (true, true, _) => tile.name.clone(),
            (true, false, 4..) => tile.name.chars().take(fits - 1).chain(['…']).collect(),
            _ => String::new(),
        };
        tile.second = !tile.label.is_empty() && rect.h >= 32.0 && rect.w >= 56.0;
        tile.rect = Rect {
            x: round(rect.x),
            y: round(rect.y),
            w: round(rect.w),
            h: round(rect.h),
        };
    }
    tiles
}

fn tile(name: String, bytes: u64, before: Option<u64>, others: usize) -> Tile {
    Tile {
        rect: Rect {
            x: 0.0,
            y: 0.0,
            w: 0.0,
            h: 0.0,
        },
        class: match before {
            None => "same",
            Some(0) => "new",
            Some(before) if bytes > before => "grown",
            Some(before) if bytes < before => "shrunk",
            Some(_) => "same",
        },
        name,
        bytes,
        before,
        others,
        label: String::new(),
        second: false,
    }
}

fn boot(boot: &Boot) -> BootView {
    let end = boot.stages.iter().map(|s| s.start + s.seconds);
    // Units count from the kernel's start.
    let kernel = boot.stages.iter().find(|stage| stage.name == "kernel");
    let offset = kernel.map_or(0.0, |stage| stage.start);
    let units = boot.units.iter().map(|u| offset + u.start + u.seconds);
    let seconds = end.chain(units).fold(0.001, f64::max);
    let bar = |start: f64, took: f64| Bar {
        x: round((start / seconds * 100.0).clamp(0.0, 99.6)),
        w: round((took / seconds * 100.0).clamp(0.4, 100.0)),
    };
    BootView {
        seconds,
        stages: boot
            .stages
            .iter()
            .map(|s| bar(s.start, s.seconds))
            .collect(),
        units: boot
            .units
            .iter()
            .map(|u| bar(offset + u.start, u.seconds))
            .collect(),
    }
}

fn question(question: &Question) -> Vec<Answer> {
    let subjects = &question.subjects;
    let most = subjects
        .iter()
        .map(|s| s.most)
        .fold(f64::MIN_POSITIVE, f64::max);
    let ends = subjects
        .iter()
        .flat_map(|s| s.percentiles.values().copied());
    let ends: Vec<f64> = ends.filter(|x| *x > 0.0 && x.is_finite()).collect();
    let low = ends.iter().copied().fold(f64::INFINITY, f64::min).ln();
    let high = ends.iter().copied().fold(0.0, f64::max).ln();
    let place = |x: f64| match high > low {
        true => (x.ln() - low) / (high - low) * 100.0,
        false => 50.0,
    };
    let share = |x: f64| round((x / most * 100.0).clamp(0.0, 100.0));
    subjects
        .iter()
        .map(|subject| {
            let from = subject.percentiles.get("p50").copied().filter(|x| *x > 0.0);
            let to = subject.percentiles.get("p99").copied().filter(|x| *x > 0.0);
            Answer {
                bar: share(subject.median),
                range: Bar {
                    x: share(subject.least),
                    w: (share(subject.most) - share(subject.least)).max(0.4),
                },
                spread: from.zip(to).map(|(from, to)| Bar {
                    x: round(place(from).min(98.0)),
                    w: round((place(to) - place(from)).max(2.0)),
                }),
            }
        })
        .collect()
}

fn trend(series: &Series) -> Trend {
    let values: Vec<f64> = series.moments.iter().map(|moment| moment.value).collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // A row that hardly moves is drawn flat, not as noise blown up to full height.
    let span = (most - least).max(most.abs() * 0.05).max(f64::MIN_POSITIVE);
    let bottom = (most + least) / 2.0 - span / 2.0;
    let (w, h) = TREND;
    let step = w / (values.len().saturating_sub(1).max(1)) as f64;
    let x = |index: usize| round(index as f64 * step);
    let y = |value: f64| round(h - 4.0 - (value - bottom) / span * (h - 8.0));
    let points: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(index, value)| format!("{},{}", x(index), y(*value)))
        .collect();
    let mut levels = Vec::new();
    for (n, change) in series.changes.iter().enumerate() {
        let before = n.checked_sub(1).map_or(0, |n| series.changes[n].index);
        levels.push(Level {
            x: x(before),
            to: x(change.index),
            y: y(change.before),
        });
    }
    levels.extend(series.changes.last().map(|change| Level {
        x: x(change.index),
        to: w,
        y: y(change.after),
    }));
    Trend {
        line: points.join(" "),
        least,
        most,
        marks: series
            .changes
            .iter()
            .map(|change| x(change.index))
            .collect(),
        levels,
    }
}
