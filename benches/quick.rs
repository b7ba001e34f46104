//! How much of a quick run's time is the harness' own: what is neither the fork coming up nor the
//! check at work in it? And how many checks a minute is that?

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use host_harness::checks::{self, Check, Start, Tier};
use host_harness::event::{CaseResult, Event, Reporter};
use host_harness::lab::Setup;
use host_harness::report::JunitReporter;
use host_harness::runner::{self, Manner, SharedReporters};
use host_harness::verdict::Outcome;
use vexfs_benches::{Quantity, minimal};

/// Checks in one run, at least: a short list is repeated.
const CHECKS: usize = 20;

/// What a run says to a question, in its unit.
type Answer = fn(&Run) -> f64;

fn main() {
    keeper::hook();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let setup = Arc::new(runtime.block_on(minimal()));
    let _warm = runtime.block_on(run(&setup));
    let questions: [(&'static str, &str, Answer); 2] = [
        ("%", "own share", Run::own_share),
        ("/min", "checks per minute", Run::per_minute),
    ];
    for (unit, question, answer) in questions {
        let mut criterion = Criterion::default()
            .with_measurement(Quantity(unit))
            .configure_from_args();
        let mut group = criterion.benchmark_group("quick run");
        group
            .sample_size(10)
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(Duration::from_millis(1));
        group.bench_function(question, |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| answer(&runtime.block_on(run(&setup))))
                    .sum()
            });
        });
        group.finish();
        criterion.final_summary();
    }
}

/// What became of a run.
struct Run {
    wall: Duration,
    results: Vec<CaseResult>,
}

impl Run {
    fn own_share(&self) -> f64 {
        let sum = |name: &str| -> f64 {
            let values = self.results.iter().flat_map(|result| &result.properties);
            values
                .filter(|(key, _)| key == name)
                .filter_map(|(_, value)| value.parse::<f64>().ok())
                .sum()
        };
        let own = sum("seconds-harness");
        100.0 * own / (own + sum("seconds-machine") + sum("seconds-story"))
    }

    fn per_minute(&self) -> f64 {
        self.results.len() as f64 * 60.0 / self.wall.as_secs_f64()
    }
}

/// Keeps the results.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<CaseResult>>>);

impl Reporter for Collector {
    fn on(&mut self, event: &Event) -> std::io::Result<()> {
        if let Event::CaseFinished(result) = event {
            let mut results = self.0.lock().expect("nobody panics while collecting");
            results.push((**result).clone());
        }
        Ok(())
    }
}

/// The quick tier's checks on forks, reported to a JUnit file as ever.
async fn run(setup: &Arc<Setup>) -> Run {
    let selected: Vec<&'static Check> = checks::selected(Tier::Quick, "")
        .filter(|check| check.start == Start::Settled)
        .collect();
    let selected: Vec<_> = selected
        .iter()
        .copied()
        .cycle()
        .take(CHECKS.max(selected.len()))
        .collect();
    let reports = tempfile::tempdir().expect("a folder for the report");
    let collector = Collector::default();
    let junit = JunitReporter::new(reports.path().join("junit.xml"));
    let reporters = SharedReporters::new(vec![Box::new(collector.clone()), Box::new(junit)]);
    let manner = Manner {
        jobs: runner::jobs(),
        retries: 0,
    };
    let begin = Instant::now();
    runner::run(setup, &selected, manner, &reporters).await;
    let wall = begin.elapsed();
    let results = std::mem::take(&mut *collector.0.lock().expect("nobody panics while collecting"));
    for result in &results {
        assert_eq!(result.outcome, Outcome::Pass, "{}", result.case);
    }
    Run { wall, results }
}
