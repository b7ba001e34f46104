//! How long from saving a real change in one C file to the smoke verdict? Once as the loop does it when
//! it watches, with a fork that waits; once as a single `vexfs-images try`, which has to make the fork
//! while it compiles. Each time it changes other code in the write path of the in-tree module.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use host_harness::tryout::{Round, Said, Took, Tryout, Voice};
use host_harness::verdict::Outcome;
use image_builder::{Workshop, WorkshopRequest};
use tokio::runtime::Runtime;
use vexfs_benches::minimal;

/// The file that is edited, and the line after which the change goes.
const FILE: &str = "file.c";
const AFTER: &str = "\tssize_t ret = generic_write_checks(iocb, from);\n";

fn main() {
    keeper::hook();
    let runtime = Runtime::new().expect("a runtime");
    let setup = runtime.block_on(minimal());
    let tree = tempfile::tempdir().expect("a folder for the tree");
    copy(&setup.layout.workspace.join("vexfs"), tree.path());
    let original = std::fs::read_to_string(tree.path().join(FILE)).expect("the file");
    assert!(original.contains(AFTER), "{FILE} is not what it was");
    let request = WorkshopRequest {
        workspace: setup.layout.workspace.clone(),
        source: tree.path().to_owned(),
        purpose: "bench".into(),
        name: "edit loop".into(),
        out_dir: setup.layout.out.clone(),
        cache_dir: setup.layout.cache.clone(),
        mirror: None,
    };
    let workshop = Workshop::open(request, &setup.image).expect("a workshop");
    let seen: Arc<Mutex<Vec<Took>>> = Arc::default();
    let mut bench = Bench {
        tryout: Tryout::new(setup, workshop, voice(seen.clone())),
        tree: tree.path().join(FILE),
        original,
        edits: 0,
        seen: seen.clone(),
    };
    // The first build makes everything.
    runtime.block_on(bench.edit(false));
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("save to smoke verdict");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(1));
    for (name, waiting) in [("watching", true), ("a single try", false)] {
        seen.lock().expect("nobody panics").clear();
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let edits = (0..times).map(|_| runtime.block_on(bench.edit(waiting)));
                edits.sum()
            });
        });
        report(name, &seen.lock().expect("nobody panics"));
    }
    group.finish();
    criterion.final_summary();
}

struct Bench {
    tryout: Tryout,
    tree: std::path::PathBuf,
    original: String,
    edits: u32,
    seen: Arc<Mutex<Vec<Took>>>,
}

impl Bench {
    /// A change, and the time until its verdict.
    async fn edit(&mut self, waiting: bool) -> Duration {
        if waiting {
            self.tryout.warm_up();
            // A person types for longer.
            tokio::time::sleep(Duration::from_secs(2)).await;
        } else {
            self.tryout.cool_down();
        }
        self.edits += 1;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let number = now.as_nanos() % 1_000_000_000 + u128::from(self.edits);
        let change = format!("{AFTER}\tif (size == LLONG_MAX - {number})\n\t\treturn -EFBIG;\n");
        let changed = self.original.replace(AFTER, &change);
        let saved = Instant::now();
        std::fs::write(&self.tree, changed).expect("saved");
        let round = self.tryout.round(saved, false).await.expect("a round");
        let Round::Judged { result, .. } = round else {
            panic!("no verdict: {round:?}");
        };
        assert_eq!(result.outcome, Outcome::Pass);
        let seen = self.seen.lock().expect("nobody panics");
        seen.last().expect("a verdict was told").all
    }
}

/// Keeps how long each verdict took.
fn voice(seen: Arc<Mutex<Vec<Took>>>) -> Voice {
    Arc::new(move |said| {
        if let Said::Smoke { took, .. } = said {
            seen.lock().expect("nobody panics").push(*took);
        }
    })
}

/// Each of the last ten, and the medians of their parts.
fn report(name: &str, all: &[Took]) {
    let ten = &all[all.len().saturating_sub(10)..];
    let median = |part: fn(&Took) -> Duration| {
        let mut times: Vec<f64> = ten.iter().map(|took| part(took).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        match times.len() % 2 {
            0 if middle > 0 => (times[middle - 1] + times[middle]) / 2.0,
            _ => times.get(middle).copied().unwrap_or_default(),
        }
    };
    let each: Vec<String> = ten
        .iter()
        .map(|took| format!("{:.2}", took.all.as_secs_f64()))
        .collect();
    eprintln!(
        "{name}: {} s; median {:.2} s (build {:.2}, fork {:.2}, smoke {:.2})",
        each.join(" "),
        median(|took| took.all),
        median(|took| took.build),
        median(|took| took.fork),
        median(|took| took.smoke)
    );
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a tree").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            std::fs::create_dir_all(&target).expect("a folder");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
