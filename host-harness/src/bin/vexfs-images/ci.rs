//! `vexfs-images ci`: what `ci/pipeline` calls.

use std::time::{Duration, Instant};

use ::report::build::{BuildLog, BuildReport};
use ::report::{Recorder, TerminalReporter};
use anyhow::Context;
use host_harness::checks;
use image::Image;
use machine::Host;
use results::{Event, Layout, SharedReporters, Tier};

use crate::delivery::{self, Delivery};
use crate::options::{self, Machines, Place};
use crate::summary::Summary;
use crate::{build, report, validate};

/// Options of `ci`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    what: build::What,
    #[command(flatten)]
    which: validate::Which,
    #[command(flatten)]
    again: build::Revalidate,
    #[command(flatten)]
    delivery: Delivery,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
}

/// What building and checking came to.
#[derive(Default)]
struct Outcome {
    images: Vec<Image>,
    not_built: Vec<(String, String)>,
    built: Duration,
    code: u8,
}

/// Builds, validates, reports, bundles, publishes and tells, and ends with a few lines that say what
/// came of it.
pub async fn run(mut args: Args) -> anyhow::Result<u8> {
    // A release is tagged in the CI system; the tag is the version. Most systems have the variable empty
    // where there is no tag.
    if let Some(tag) = std::env::var("CI_TAG").ok().filter(|tag| !tag.is_empty()) {
        args.what.vexfs_version = build::version(&tag).map_err(options::Usage)?;
    }
    // What is said of the checks goes for the builds too.
    args.what.at_once = args.which.jobs.parallel;
    // A mistake is said before anything is built.
    args.which.selected()?;
    let layout = args.place.layout()?;
    let host = args.machines.host(&layout).await?;
    let begin = Instant::now();
    let summary = Summary::default();
    let log = BuildLog::default();
    let reporters = SharedReporters::new(vec![
        Box::new(TerminalReporter::new(
            args.what.telling.verbose,
            args.what.explain,
        )),
        Box::new(summary.listener()),
        Box::new(log.clone()),
        Box::new(Recorder::new(&layout, host_harness::host::kind_of(&host))),
    ]);
    reporters.emit(&Event::RunStarted {
        facts: host.facts(),
    });
    let mut report = BuildReport {
        host: host.facts(),
        ..BuildReport::default()
    };
    let outcome = make(&args, &layout, &host, &reporters).await;
    let (outcome, error) = match outcome {
        Ok(outcome) => (outcome, None),
        // What went wrong before any image is news too.
        Err(error) => {
            report.problems.push(format!("{error:#}"));
            (Outcome::default(), Some(error))
        }
    };
    let tier = Tier::from(args.which.test_type);
    let required = |image: &Image| checks::required(&image.manifest.variant, tier);
    let images = outcome.images.iter();
    let rows = images.map(|image| log.row(image, &required(image)));
    report.images = rows.collect();
    report.not_built = outcome.not_built.iter().cloned().collect();
    report.seconds = begin.elapsed().as_secs_f64();
    let spent = (outcome.built, begin.elapsed());
    let text = summary.text(
        &layout,
        &host,
        &outcome.images,
        &args.which,
        spent.0,
        spent.1,
    );
    // With a JUnit file elsewhere, nobody has made the folder yet.
    std::fs::create_dir_all(layout.reports())
        .with_context(|| format!("cannot make {}", layout.reports().display()))?;
    delivery::write(&layout.reports().join("summary.txt"), &text)?;
    if let Err(error) = report::make(&layout, &report::Format::ALL, None, None).await {
        report
            .problems
            .push(format!("there is no report page: {error:#}"));
    }
    let delivered = args
        .delivery
        .deliver(&layout, &outcome.images, &args.which, &log, &mut report)
        .await;
    print!("\n{text}{}", delivery::lines(&layout, &report));
    match (error, delivered) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Ok(outcome.code),
    }
}

/// Builds and checks; a variant that is not built does not stop the others.
async fn make(
    args: &Args,
    layout: &Layout,
    host: &Host,
    reporters: &SharedReporters,
) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let built = build::images(layout, host, &args.what, true, reporters).await?;
    let mut outcome = Outcome {
        built: begin.elapsed(),
        ..Outcome::default()
    };
    if !built.images.is_empty() {
        let again = args.again.rule();
        let images = built.images.clone();
        outcome.code = validate::judge(layout, host, images, &args.which, again, reporters).await?;
    }
    let failures = built.failures.iter();
    outcome.not_built = failures
        .map(|(variant, error)| (variant.clone(), error.to_string()))
        .collect();
    outcome.images = built.images.clone();
    if let Some(error) = built.error() {
        eprintln!("error: {error:#}");
        outcome.code = options::exit_code(&error);
    }
    Ok(outcome)
}
