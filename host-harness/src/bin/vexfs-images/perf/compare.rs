//! `vexfs-images perf compare`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ::report::JunitReporter;
use anyhow::Context;
use host_harness::perf::compare::{self, Comparison, Side, Thresholds};
use host_harness::perf::fingerprint;
use image::Image;
use image_builder::{Workshop, WorkshopRequest};
use machine::Host;
use results::figures::statistics::Verdict;
use results::{Event, Layout, Reporter};

use super::{setup, short};
use crate::options::{self, Machines, Place, Testbed, Usage};

/// Options of `perf compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The baseline: a module (.ko), a source tree, or an image (variant, folder or disk)
    #[arg(value_name = "BASE")]
    base: PathBuf,
    /// The candidate, likewise
    #[arg(value_name = "NEW")]
    new: PathBuf,
    #[command(flatten)]
    testbed: Testbed,
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
    let base = side(&layout, &host, &args.base, &args.testbed.image).await?;
    let new = side(&layout, &host, &args.new, &args.testbed.image).await?;
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
    let fingerprint = fingerprint(&host, &new.setup.image);
    let about = [
        ("base".to_owned(), args.base.display().to_string()),
        ("new".to_owned(), args.new.display().to_string()),
        ("host-kind".to_owned(), fingerprint.kind()),
    ];
    let records = layout.reports().join("perf");
    let record = outcome
        .record(fingerprint.clone())
        .write(&records, "compare");
    record.with_context(|| format!("cannot write to {}", records.display()))?;
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
    let kind = Kind::of(word);
    let image = options::image(layout, if kind == Kind::Image { word } else { image })?;
    let module = match kind {
        Kind::Image => None,
        Kind::Module => Some(read(word)?),
        Kind::Tree => Some(read(&built(layout, word, &image).await?)?),
    };
    Ok(Side {
        name: short(word),
        setup: Arc::new(setup(layout, host, image).await?),
        module,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Module,
    Tree,
}

impl Kind {
    fn of(word: &Path) -> Kind {
        if word.extension().is_some_and(|end| end == "ko") {
            Kind::Module
        } else if word.is_dir() && !word.join("manifest.json").is_file() {
            Kind::Tree
        } else {
            Kind::Image
        }
    }
}

fn read(module: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(module);
    Ok(bytes.map_err(|error| {
        Usage(format!(
            "cannot read the module {}: {error}",
            module.display()
        ))
    })?)
}

/// The module of a source tree, for the image's kernel.
async fn built(layout: &Layout, tree: &Path, image: &Image) -> anyhow::Result<PathBuf> {
    eprintln!("building {}", tree.display());
    let request = WorkshopRequest {
        workspace: layout.workspace.clone(),
        source: tree.to_owned(),
        purpose: "compare".into(),
        name: tree.display().to_string(),
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        mirror: None,
    };
    let mut workshop = Workshop::open(request, image)?;
    Ok(workshop.make(&()).await?.module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_trees_and_images_are_told_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let (tree, image) = (dir.path().join("tree"), dir.path().join("image"));
        std::fs::create_dir(&tree).expect("made");
        std::fs::create_dir(&image).expect("made");
        std::fs::write(image.join("manifest.json"), "{}").expect("written");
        assert_eq!(Kind::of(&tree), Kind::Tree);
        assert_eq!(Kind::of(&image), Kind::Image);
        assert_eq!(Kind::of(&tree.join("vexfs.ko")), Kind::Module);
        assert_eq!(Kind::of(Path::new("minimal")), Kind::Image);
    }
}
