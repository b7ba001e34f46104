//! `vexfs-images perf run`

use std::path::PathBuf;
use std::sync::Arc;

use ::report::history::{History, Run};
use anyhow::Context;
use clap::ValueEnum;
use host_harness::perf;
use image::Image;
use machine::Host;
use results::Layout;
use results::figures::{Metric, Record};

use super::setup;
use crate::options::{self, Machines, Place, Usage};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Boot to the agent and to a settled system, by BIOS, UEFI and direct kernel, and where it went
    Boot,
    /// Fork to the agent; freeze; ten at once; memory
    Fork,
    /// The agent beside OpenSSH and QEMU's guest agent
    Agent,
    /// VexFS beside ext4 and xfs: fio, metadata, vectors
    Filesystem,
    /// Builds, cold, warm and after an edit of the module; size
    Image,
    /// Checks a minute, and the harness' own share
    Quick,
    /// From saving a change in the module to the smoke verdict
    Edits,
    /// The agent protocol's codec
    Codec,
}

/// Options of `perf run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure [default: all]
    #[arg(value_enum, value_name = "BENCH")]
    benches: Vec<Bench>,
    /// Fewer samples, and no cold build
    #[arg(long)]
    quick: bool,
    /// The images [default: all there are for boot, the first of them for the rest]
    #[arg(long = "image", value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Name of the record: reports/perf/NAME.json in the output folder
    #[arg(long, default_value = "run")]
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
}

/// Measures and writes the record, which grows with every bench: what was measured before a failure or
/// an interrupt is kept.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    if args.name.is_empty() || args.name.contains('/') {
        return Err(Usage(format!("`{}` is no name for a file", args.name)).into());
    }
    let host = args.machines.host(&layout).await?;
    for (name, value) in host.facts() {
        eprintln!("{name}: {value}");
    }
    let images = images(&layout, &args.images)?;
    let mut record = Record::new(perf::fingerprint(&host, &images[0]), Vec::new());
    let all = Bench::value_variants();
    let benches = match args.benches.is_empty() {
        true => all,
        false => &args.benches,
    };
    let dir = layout.reports().join("perf");
    for bench in benches {
        let name = bench.to_possible_value();
        let name = name.as_ref().map_or("it", |value| value.get_name());
        eprintln!("measuring {name}");
        measure(*bench, &args, &layout, &host, &images, &mut record)
            .await
            .with_context(|| format!("cannot measure {name}"))?;
        record
            .write(&dir, &args.name)
            .with_context(|| format!("cannot write the record in {}", dir.display()))?;
    }
    let file = format!("{}.json", args.name);
    // The next run of this name takes the file's place.
    if let Some(run) = Run::of_record(&file, &record) {
        History::open(&layout.history())?.add(&run)?;
    }
    print!("{}", results::figures::table(&record));
    println!("record: {}", dir.join(file).display());
    Ok(0)
}

fn images(layout: &Layout, words: &[PathBuf]) -> anyhow::Result<Vec<Image>> {
    if !words.is_empty() {
        let images = words.iter().map(|word| options::image(layout, word));
        return images.collect();
    }
    let mut images = Vec::new();
    // The minimal one first: it stands for the rest where one is enough.
    for variant in ["minimal", "development", "testing", "production"] {
        images.extend(Image::find(&layout.out, variant)?);
    }
    match images.is_empty() {
        true => Ok(vec![options::image(layout, "minimal".as_ref())?]),
        false => Ok(images),
    }
}

async fn measure(
    bench: Bench,
    args: &Args,
    layout: &Layout,
    host: &Host,
    images: &[Image],
    record: &mut Record,
) -> anyhow::Result<()> {
    let rounds = |quick: usize, whole: usize| if args.quick { quick } else { whole };
    let one = async || setup(layout, host, images[0].clone()).await;
    let failed = |failure: host_harness::lab::Failure| anyhow::Error::new(failure);
    let metrics: Vec<Metric> = match bench {
        Bench::Boot => {
            let mut metrics = Vec::new();
            for image in images {
                let setup = setup(layout, host, image.clone()).await?;
                let boots = perf::boot::measure(&setup, rounds(1, 5)).await;
                let (more, waterfall) = boots.map_err(failed)?;
                metrics.extend(more);
                record.waterfall.extend(waterfall);
            }
            metrics
        }
        Bench::Fork => perf::fork::measure(&one().await?, rounds(3, 20))
            .await
            .map_err(failed)?,
        Bench::Agent => perf::agent::measure(&one().await?, rounds(3, 20))
            .await
            .map_err(failed)?,
        Bench::Filesystem => perf::filesystem::measure(&one().await?, rounds(2, 8))
            .await
            .map_err(failed)?,
        Bench::Image => {
            let variant = &images[0].manifest.variant;
            let accelerator = host.accel.chosen.to_string();
            perf::image::measure(layout, variant, &accelerator, !args.quick, rounds(1, 3))
                .await
                .map_err(anyhow::Error::msg)?
        }
        Bench::Quick => perf::quick::measure(&Arc::new(one().await?), rounds(1, 5))
            .await
            .map_err(failed)?,
        Bench::Edits => perf::edits::measure(&Arc::new(one().await?), rounds(2, 10))
            .await
            .map_err(failed)?,
        Bench::Codec => perf::codec::measure(rounds(5, 30)).map_err(anyhow::Error::msg)?,
    };
    record.metrics.extend(metrics);
    Ok(())
}
