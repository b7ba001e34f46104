//! `vexfs-images ci`: what `ci/pipeline` calls.

use std::time::Instant;

use anyhow::Context;
use host_harness::event::Event;
use host_harness::report::{Recorder, TerminalReporter};
use host_harness::runner::SharedReporters;

use crate::options::{Machines, Place};
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
    place: Place,
    #[command(flatten)]
    machines: Machines,
}

/// Builds, validates, reports, and ends with ten lines that say what came of it.
pub async fn run(mut args: Args) -> anyhow::Result<u8> {
    // A release is tagged in the CI system; the tag is the version.
    if let Ok(tag) = std::env::var("CI_TAG") {
        args.what.vexfs_version = build::version(&tag).map_err(crate::options::Usage)?;
    }
    let layout = args.place.layout()?;
    let host = args.machines.host(&layout).await?;
    let terminal = TerminalReporter::new(args.what.verbose, args.what.explain);
    let summary = Summary::default();
    let recorder = Recorder::new(&layout, &host);
    let reporters = SharedReporters::new(vec![
        Box::new(terminal),
        Box::new(summary.listener()),
        Box::new(recorder),
    ]);
    reporters.emit(&Event::RunStarted {
        facts: host.facts(),
    });
    let begin = Instant::now();
    let images = build::images(&layout, &host, &args.what, true, &reporters).await?;
    let built = begin.elapsed();
    let code = validate::judge(
        &layout,
        &host,
        images.clone(),
        &args.which,
        args.again.rule(),
        &reporters,
    )
    .await?;
    let text = summary.text(&layout, &host, &images, &args.which, built, begin.elapsed());
    // With a JUnit file elsewhere, nobody has made the folder yet.
    let file = layout.reports().join("summary.txt");
    std::fs::create_dir_all(layout.reports())
        .and_then(|()| std::fs::write(&file, &text))
        .with_context(|| format!("cannot write {}", file.display()))?;
    print!("\n{text}");
    report::make(&layout, &report::Format::ALL, None, None)
        .await
        .context("the checks ran, but the report of them is missing")?;
    Ok(code)
}
