//! `vexfs-images validate`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::report::{JunitReporter, Recorder, TerminalReporter};
use anyhow::Context;
use clap::ValueEnum;
use host_harness::checks;
use host_harness::checks::Check;
use host_harness::dossier::{Keep, Policy};
use host_harness::lab::{BOOT_DEADLINE, FIRST_ANSWER, Setup};
use host_harness::runner::{self, reuse};
use image::Image;
use image_builder::ToolsRequest;
use machine::Host;
use results::{BuildEvent, Event, Layout, SharedReporters, Tally, Tier, stored};

use crate::options::{self, Checks, Dossiers, Jobs, Machines, Place, Telling, Usage, WhichKernel};

/// How much to check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum TestType {
    /// Only that it comes up
    BootOnly,
    /// What takes minutes
    #[default]
    Quick,
    /// Everything
    Full,
}

/// Which checks to run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Which {
    /// How much to check
    #[arg(long, value_enum, default_value_t)]
    pub test_type: TestType,
    #[command(flatten)]
    pub checks: Checks,
    /// JUnit report [default: reports/junit.xml in the output folder]
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Seconds from power-on to the agent's answer, at most
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub boot_timeout: Option<u64>,
    /// Seconds the agent may take to answer once the machine runs: the handshake, and the first request
    #[arg(long, visible_alias = "ssh-timeout", value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub agent_timeout: Option<u64>,
    /// Every check leaves a dossier with its disks and its machine, passed ones too; the same as --keep passed
    #[arg(long, conflicts_with = "keep")]
    pub no_cleanup: bool,
    #[command(flatten)]
    pub kernel: WhichKernel,
    #[command(flatten)]
    pub leave: Dossiers,
    /// Dump guest memory, for crash(8), of a machine whose guest does not answer any more
    #[arg(long)]
    pub dump_memory: bool,
    #[command(flatten)]
    pub jobs: Jobs,
    /// How often a check that is not green is tried again; a pass after that is reported as flaky
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
}

impl From<TestType> for Tier {
    fn from(wish: TestType) -> Tier {
        match wish {
            TestType::BootOnly => Tier::BootOnly,
            TestType::Quick => Tier::Quick,
            TestType::Full => Tier::Full,
        }
    }
}

impl Which {
    /// Where the JUnit report goes.
    pub fn junit_file(&self, layout: &Layout) -> PathBuf {
        let named = self.junit.clone();
        named.unwrap_or_else(|| layout.reports().join("junit.xml"))
    }

    /// The checks that are meant, of the tier; those that are dearer are not run unasked, and are named.
    pub fn selected(&self) -> anyhow::Result<Vec<&'static Check>> {
        let tier = Tier::from(self.test_type);
        let taken = |check: &&Check| self.checks.take(check.name);
        let selected: Vec<_> = checks::selected(tier, "").filter(taken).collect();
        if !selected.is_empty() {
            return Ok(selected);
        }
        let dearer: Vec<&Check> = checks::REGISTRY.iter().filter(taken).collect();
        let names: Vec<&str> = match dearer.as_slice() {
            [] => checks::REGISTRY.iter().map(|check| check.name).collect(),
            dearer => dearer.iter().map(|check| check.name).collect(),
        };
        let (wanted, names) = (&self.checks, names.join(", "));
        Err(Usage(match dearer.iter().map(|check| check.tier).min() {
            None => format!("no check is meant by `{wanted}`; there are: {names}"),
            Some(needed) => format!(
                "`{wanted}` means no check of the tier {tier}; add --test-type {needed} for {names}"
            ),
        })
        .into())
    }

    /// Which checks leave a dossier: the environment's wish, unless the command line has one.
    fn dossiers(&self) -> anyhow::Result<Policy> {
        let wish = Policy::from_env().map_err(Usage)?;
        Ok(Policy {
            keep: match self.no_cleanup {
                true => Keep::Passed,
                false => self.leave.keep.unwrap_or(wish.keep),
            },
            dump_memory: self.dump_memory || wish.dump_memory,
            ..wish
        })
    }
}

/// Options of `validate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images: variants, folders or disks [default: minimal]
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The same, separated by commas, or `all` that are there
    #[arg(long, value_delimiter = ',', value_name = "VARIANTS")]
    variants: Vec<PathBuf>,
    /// Folder with the images [default: images in the output folder]
    #[arg(long, value_name = "DIR")]
    images_dir: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
    #[command(flatten)]
    telling: Telling,
}

/// Boots images and runs the checks.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    // A mistake is said before anything is opened.
    args.which.selected()?;
    let images = named(&args, &layout)?;
    let host = args.machines.host(&layout).await?;
    let terminal = TerminalReporter::new(args.telling.verbose, false);
    let recorder = Recorder::new(&layout, host_harness::host::kind_of(&host));
    let reporters = SharedReporters::new(vec![Box::new(terminal), Box::new(recorder)]);
    reporters.emit(&Event::RunStarted {
        facts: host.facts(),
    });
    judge(
        &layout,
        &host,
        images,
        &args.which,
        Again::Always,
        &reporters,
    )
    .await
}

/// The images asked for.
fn named(args: &Args, layout: &Layout) -> anyhow::Result<Vec<Image>> {
    let dir = args.images_dir.clone().unwrap_or_else(|| layout.images());
    let mut words: Vec<PathBuf> = args.images.iter().chain(&args.variants).cloned().collect();
    if words.is_empty() {
        words.push("minimal".into());
    }
    let mut images = Vec::new();
    for word in words {
        match word.to_str() {
            Some("all") => {
                let all = Image::all(&dir)?;
                if all.is_empty() {
                    return Err(Usage(format!(
                        "no image in {}: run `cargo images build --variants all`",
                        dir.display()
                    ))
                    .into());
                }
                images.extend(all);
            }
            _ => images.push(options::image_in(&dir, &word)?),
        }
    }
    Ok(images)
}

/// When checks run that have passed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Whatever is known.
    Always,
    /// When the image, the checks, this program or how machines run here have changed.
    IfChanged,
}

/// Runs the checks on finished images, and writes JUnit beside what `reporters` do.
pub async fn judge(
    layout: &Layout,
    host: &Host,
    images: Vec<Image>,
    which: &Which,
    again: Again,
    reporters: &SharedReporters,
) -> anyhow::Result<u8> {
    let selected = which.selected()?;
    let begin = Instant::now();
    let junit = which.junit_file(layout);
    reporters.subscribe(Box::new(JunitReporter::new(&junit)));
    reporters.catch_up(&Event::RunStarted {
        facts: host.facts(),
    });
    let full = selected.iter().any(|check| check.tier == Tier::Full);
    let tools = tools(layout, full, reporters).await?;
    let manner = runner::Manner {
        jobs: which.jobs.parallel.unwrap_or_else(runner::jobs),
        retries: which.retries,
    };
    let harness = reuse::harness_digest(&layout.cache).context("cannot read this program")?;
    let dossiers = which.dossiers()?;
    let mut tally = Tally::default();
    for image in images {
        let dir = image.dir.clone();
        let variant = image.manifest.variant.clone();
        if which.kernel.second_kernel && image.manifest.second_kernel.is_none() {
            return Err(Usage(format!(
                "image {variant} has no second kernel: build it with --kernel both"
            ))
            .into());
        }
        let seconds = |given: Option<u64>, usual| given.map_or(usual, Duration::from_secs);
        let setup = Setup {
            boot_deadline: seconds(which.boot_timeout, BOOT_DEADLINE),
            agent_deadline: seconds(which.agent_timeout, FIRST_ANSWER),
            second_kernel: which.kernel.second_kernel,
            dossiers,
            ..Setup::new(layout.clone(), host.clone(), image, tools.clone())
        };
        let about = selected.iter().filter(|check| check.is_about(&variant));
        let about: Vec<&'static Check> = about.copied().collect();
        let basis = reuse::basis(&setup, &harness);
        let names: Vec<&str> = about.iter().map(|check| check.name).collect();
        let why = match again {
            Again::Always => "asked for".to_owned(),
            Again::IfChanged => match stored::find(&dir, &basis, &names) {
                Ok((at, results)) => {
                    tally += results.iter().collect();
                    reporters.emit(&Event::VerdictStored {
                        variant,
                        at,
                        results,
                    });
                    continue;
                }
                Err(why) => why,
            },
        };
        reporters.emit(&Event::Validating { variant, why });
        let results = runner::run(&Arc::new(setup), &about, manner, reporters).await;
        tally += results.iter().collect();
        stored::keep(&dir, basis, &host.facts(), results)
            .with_context(|| format!("cannot keep the verdict in {}", dir.display()))?;
    }
    reporters.emit(&Event::RunFinished {
        seconds: begin.elapsed().as_secs_f64(),
    });
    eprintln!("{tally}; JUnit: {}", junit.display());
    let unwritten = reporters.failures();
    if !unwritten.is_empty() {
        anyhow::bail!(
            "the checks ran, but a report is missing: {}",
            unwritten.join("; ")
        );
    }
    Ok(tally.exit_code())
}

/// The disk with the tools that checks bring along; those of the full tier bring more.
pub async fn tools(
    layout: &Layout,
    full: bool,
    reporters: &SharedReporters,
) -> anyhow::Result<PathBuf> {
    let request = ToolsRequest {
        full,
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        ..ToolsRequest::new(&layout.workspace)
    };
    let progress = |step: &BuildEvent| {
        reporters.emit(&Event::Build {
            variant: "tools disk".into(),
            step: step.clone(),
        });
    };
    Ok(image_builder::tools_disk(&request, &progress).await?)
}
