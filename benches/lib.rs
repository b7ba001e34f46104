//! Benchmarks: each file asks one question a user asks, of VexFS and of its peers. `cargo bench --bench
//! agent`.
//!
//! The measuring is `host_harness::perf`'s, which `vexfs-images perf run` uses too. There all subjects take
//! turns, round after round, so that what slows the host down slows all of them; criterion would take all
//! samples of one before the next. So the rounds are measured first and then handed to criterion,
//! sample by sample, for its statistics, its comparison with the last run and its HTML
//! (`target/criterion/report/index.html`).

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use host_harness::lab::Setup;
use host_harness::perf;
use image::Image;
use image_builder::ToolsRequest;
use machine::{Host, HostRequest};
use results::Layout;
use results::figures::{Direction, Fingerprint, Metric, Record};

/// Criterion takes no fewer samples.
const FEWEST: usize = 10;

/// Rounds to measure: as many as criterion needs, and one where it only wants to know that a
/// benchmark runs (`cargo test --benches`).
pub fn rounds() -> usize {
    match std::env::args().any(|word| word == "--test") {
        true => 1,
        false => FEWEST,
    }
}

/// Measures by `measure` on the minimal image, and shows it. Prints what host it is: figures of unlike
/// hosts are refused.
///
/// # Panics
/// With the remedy, when something is missing: a benchmark has nobody to return an error to.
pub fn bench<E: std::fmt::Display>(
    name: &str,
    measure: impl AsyncFnOnce(&Arc<Setup>) -> Result<Vec<Metric>, E>,
) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let setup = Arc::new(runtime.block_on(minimal()));
    let fingerprint = perf::fingerprint(&setup.host, &setup.image);
    same_host(&setup.layout, &fingerprint);
    let metrics = runtime
        .block_on(measure(&setup))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let record = Record::new(fingerprint, metrics);
    let dir = setup.layout.reports().join("perf");
    record
        .write(&dir, &format!("bench-{name}"))
        .expect("the record is written");
    eprint!("{}", results::figures::table(&record));
    show(&record.metrics);
}

/// Criterion compares with what `target/criterion` has from the last run: that must be of this host.
fn same_host(layout: &Layout, here: &Fingerprint) {
    let name = "bench-host";
    let dir = layout.workspace.join("target/criterion");
    let file = dir.join(format!("{name}.json"));
    if file.is_file() {
        let earlier = Record::read(&file).unwrap_or_else(|error| panic!("{error}"));
        if let Err(error) = earlier.fingerprint.comparable(here) {
            assert!(
                std::env::var_os("VEXFS_ACROSS_HOSTS").is_some(),
                "criterion's last figures in {}: {error} (here: VEXFS_ACROSS_HOSTS=1), or remove that folder",
                dir.display()
            );
        }
    }
    let record = Record::new(here.clone(), Vec::new());
    record.write(&dir, name).expect("the host is written down");
}

/// The minimal image and its tools on this host, as checks get them; prints what host it is.
///
/// # Panics
/// With the remedy, when the image is not there.
pub async fn minimal() -> Setup {
    let layout = Layout::find(None).expect("run it in the checkout");
    let host = Host::probe(&layout.cache, HostRequest::default())
        .await
        .expect("a usable host");
    for (name, value) in host.facts() {
        eprintln!("{name}: {value}");
    }
    let image = Image::find(&layout.out, "minimal")
        .expect("a sound image")
        .expect("no minimal image: run `cargo images build --variants minimal`");
    let request = ToolsRequest {
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        ..ToolsRequest::new(&layout.workspace)
    };
    let tools = image_builder::tools_disk(&request, &())
        .await
        .expect("a tools disk");
    Setup::new(layout, host, image, tools)
}

/// Hands the samples to criterion: a group for each name, a line in it for each subject. What was
/// measured fewer than ten times is in the table alone.
pub fn show(metrics: &[Metric]) {
    for name in names(metrics) {
        let group: Vec<&Metric> = metrics
            .iter()
            .filter(|m| m.name == name && !m.samples.is_empty())
            .filter(|m| m.samples.len() >= FEWEST || rounds() < FEWEST)
            .collect();
        let Some(first) = group.first() else {
            continue;
        };
        let unit = first.unit.as_str();
        match (first.direction, unit) {
            (_, "s") => as_time(name, &group, None, |value| value),
            (_, "ms") => as_time(name, &group, None, |value| value / 1e3),
            // As the time that one of them takes: criterion takes more of anything for worse.
            (Direction::Higher, "MB/s") => {
                as_time(
                    name,
                    &group,
                    Some(Throughput::BytesDecimal(1_000_000)),
                    |rate| 1.0 / rate,
                );
            }
            (Direction::Higher, "/s") => {
                as_time(name, &group, Some(Throughput::Elements(1)), |rate| {
                    1.0 / rate
                });
            }
            (Direction::Higher, "/min") => {
                as_time(name, &group, Some(Throughput::Elements(1)), |rate| {
                    60.0 / rate
                });
            }
            _ => as_quantity(name, &group, unit),
        }
    }
}

fn names(metrics: &[Metric]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for metric in metrics {
        if !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    names
}

fn as_time(name: &str, group: &[&Metric], throughput: Option<Throughput>, seconds: fn(f64) -> f64) {
    let criterion = Criterion::default().with_measurement(WallTime);
    replay(criterion, name, group, throughput, |value| {
        Duration::from_secs_f64(seconds(value))
    });
}

fn as_quantity(name: &str, group: &[&Metric], unit: &str) {
    // Criterion wants its units for ever; there are a handful of them.
    let unit: &'static str = Box::leak(unit.to_owned().into_boxed_str());
    let criterion = Criterion::default().with_measurement(Quantity(unit));
    replay(criterion, name, group, None, |value| value);
}

fn replay<M: Measurement + 'static>(
    criterion: Criterion<M>,
    name: &str,
    metrics: &[&Metric],
    throughput: Option<Throughput>,
    value: impl Fn(f64) -> M::Value,
) where
    M::Value: std::iter::Sum,
{
    let mut criterion = criterion.configure_from_args();
    let mut group = criterion.benchmark_group(name);
    // One iteration a sample, and as many samples as were taken.
    group
        .sample_size(metrics[0].samples.len().max(FEWEST))
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_nanos(1))
        .measurement_time(Duration::from_nanos(1));
    if let Some(throughput) = throughput {
        group.throughput(throughput);
    }
    for metric in metrics {
        let next = Cell::new(0);
        group.bench_function(BenchmarkId::from_parameter(&metric.subject), |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let at = next.get();
                        next.set((at + 1) % metric.samples.len());
                        value(metric.samples[at])
                    })
                    .sum()
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

/// For criterion to measure something else than time; the text is its unit.
#[derive(Debug, Clone, Copy)]
pub struct Quantity(pub &'static str);

impl Measurement for Quantity {
    type Intermediate = ();
    type Value = f64;

    /// Only `iter_custom` makes sense: the value comes from the routine.
    fn start(&self) {}

    fn end(&self, (): ()) -> f64 {
        0.0
    }

    fn add(&self, one: &f64, two: &f64) -> f64 {
        one + two
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Quantity {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        self.0
    }

    fn scale_throughputs(&self, _: f64, _: &Throughput, _: &mut [f64]) -> &'static str {
        self.0
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    /// Without a backend for plots criterion leaves its pages out, silently.
    #[test]
    fn criterion_writes_its_pages() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut criterion = criterion::Criterion::default()
            .output_directory(dir.path())
            .sample_size(10)
            .nresamples(1001)
            .warm_up_time(Duration::from_millis(1))
            .measurement_time(Duration::from_millis(20));
        criterion.bench_function("nothing", |bencher| {
            bencher.iter(|| std::hint::black_box(1))
        });
        criterion.final_summary();
        assert!(dir.path().join("report/index.html").exists());
        assert!(dir.path().join("nothing/report/pdf.svg").exists());
    }
}
