//! `vexfs-images perf compare`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use host_harness::event::{Event, Reporter};
use host_harness::host::Host;
use host_harness::layout::Layout;
use host_harness::perf::Fingerprint;
use host_harness::perf::compare::{self, Comparison, Side, Thresholds};
use host_harness::perf::statistics::Verdict;
use host_harness::report::JunitReporter;

use super::{setup, short};
use crate::options::{self, Machines, Place, Usage};

/// Options of `perf compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The baseline: a module (.ko) or an image (variant, folder or disk)
    #[arg(value_name = "BASE")]
    base: PathBuf,
    /// The candidate, likewise
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// The image that modules are loaded in
    #[arg(long, value_name = "IMAGE", default_value = "minimal")]
    image: PathBuf,
    /// What is judged and how strictly [default: the table in host-harness/src/perf/compare]
    #[arg(long, value_name = "FILE")]
    thresholds: Option<PathBuf>,
    /// JUnit report [default: reports/perf-compare.xml in the output folder]
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
}

/// Compares.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let thresholds = match &args.thresholds {
        Some(path) => Thresholds::read(path).map_err(Usage)?,
        None => Thresholds::default(),
    };
    let host = args.machines.host(&layout).await?;
    let base = side(&layout, &host, &args.base, &args.image).await?;
    let new = side(&layout, &host, &args.new, &args.image).await?;
    let begin = Instant::now();
    let outcome = compare::compare(&base, &new, &thresholds, |so_far| {
        eprintln!("{}", progress(so_far, begin));
    })
    .await?;
    println!("{outcome}");
    let junit = args
        .junit
        .unwrap_or_else(|| layout.reports().join("perf-compare.xml"));
    let facts = host.facts();
    let mut reporter = JunitReporter::new(&junit);
    let fingerprint = Fingerprint::of(&host, &new.setup.image);
    let about = [
        ("base".to_owned(), args.base.display().to_string()),
        ("new".to_owned(), args.new.display().to_string()),
        ("host-kind".to_owned(), fingerprint.kind()),
    ];
    let case = outcome.case(&fingerprint.variant, begin.elapsed(), &about);
    for event in [
        Event::RunStarted { facts },
        Event::CaseFinished(Box::new(case)),
    ] {
        reporter
            .on(&event)
            .with_context(|| format!("cannot write {}", junit.display()))?;
    }
    println!(
        "{:.0} s; JUnit: {}",
        begin.elapsed().as_secs_f64(),
        junit.display()
    );
    Ok(outcome.exit_code())
}

fn progress(so_far: &Comparison, begin: Instant) -> String {
    let unsure = so_far
        .rows
        .iter()
        .filter(|row| row.verdict == Verdict::Unsure);
    let unsure: Vec<&str> = unsure.map(|row| row.name.as_str()).collect();
    format!(
        "pair {} after {:.0} s: {}",
        so_far.pairs(),
        begin.elapsed().as_secs_f64(),
        match unsure.is_empty() {
            true => so_far.verdict().to_string(),
            false => format!("still unsure of {}", unsure.join(", ")),
        }
    )
}

/// What a user means by BASE or NEW.
async fn side(layout: &Layout, host: &Host, word: &Path, image: &Path) -> anyhow::Result<Side> {
    let is_module = word.extension().is_some_and(|end| end == "ko");
    let module = match is_module {
        true => Some(std::fs::read(word).map_err(|error| {
            Usage(format!(
                "cannot read the module {}: {error}",
                word.display()
            ))
        })?),
        false => None,
    };
    let image = options::image(layout, if is_module { image } else { word })?;
    Ok(Side {
        name: short(word),
        setup: Arc::new(setup(layout, host, image).await?),
        module,
    })
}
