//! What `ci` does with what it has made: the build report, the bundle, publishing, and telling.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ::report::build::{BuildLog, BuildReport, ImageRow};
use anyhow::Context;
use image::Image;
use keeper::lease::Lease;
use publisher::{Content, Destination, ImageFiles, Options, Tally};
use results::Layout;
use results::clock::utc;

use crate::validate::Which;

/// Where what was made goes, and who is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Delivery {
    /// Bring the images there too: a folder, `ssh://[USER@]HOST[:PORT]/FOLDER`, `oci:/FOLDER` or
    /// oci:REGISTRY/REPOSITORY; can be given several times
    #[arg(long, value_name = "PLACE")]
    publish: Vec<Destination>,
    /// Releases of a variant that are kept there, beside what is latest [default: all]
    #[arg(long, value_name = "N", requires = "publish", value_parser = clap::value_parser!(u16).range(1..))]
    keep_last: Option<u16>,
    /// Configuration of the SSH client for it [default: the user's own]
    #[arg(long, value_name = "FILE", requires = "publish")]
    ssh_config: Option<PathBuf>,
    /// What skopeo knows of registries, containers-registries.conf(5) [default: the user's own]
    #[arg(long, value_name = "FILE", requires = "publish")]
    registries_conf: Option<PathBuf>,
    /// Tell a webhook what came of it; the address is kept secret
    #[arg(
        long,
        value_name = "URL",
        env = "VEXFS_NOTIFY_URL",
        hide_env_values = true
    )]
    notify: Option<String>,
}

/// Files in the folder of reports.
const MARKDOWN: &str = "build.md";
const PAGE: &str = "build.html";
const DATA: &str = "build.json";
/// Where GitHub wants the text it shows on a job's page.
const JOB_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

impl Delivery {
    /// Reports, bundles, publishes and tells. What does not work of it is told too, and an error in the
    /// end; the images are as they are.
    pub async fn deliver(
        &self,
        layout: &Layout,
        images: &[Image],
        which: &Which,
        log: &BuildLog,
        report: &mut BuildReport,
    ) -> anyhow::Result<()> {
        write_report(layout, report)?;
        if let Err(error) = self
            .bundle_and_publish(layout, images, which, log, report)
            .await
        {
            report.problems.push(format!("{error:#}"));
        }
        if let Some(url) = &self.notify {
            let log = program_log(layout)?;
            // Nobody's images are worse because nobody heard of them: this is no failure of the run.
            if let Err(error) = publisher::notify(url, &message(report), &log).await {
                eprintln!("warning: {error}");
                report.published.push(format!("NOT TOLD: {error}"));
            }
        }
        // Once more, now with what came of publishing.
        write_report(layout, report)?;
        if let Some(file) = std::env::var_os(JOB_SUMMARY).filter(|file| !file.is_empty()) {
            let file = PathBuf::from(file);
            let mut options = std::fs::OpenOptions::new();
            let summary = options.create(true).append(true).open(&file);
            summary
                .and_then(|mut out| out.write_all(report.markdown().as_bytes()))
                .with_context(|| format!("cannot write {JOB_SUMMARY} {}", file.display()))?;
        }
        match report.problems.as_slice() {
            [] => Ok(()),
            problems => anyhow::bail!("{}", problems.join("\n")),
        }
    }

    async fn bundle_and_publish(
        &self,
        layout: &Layout,
        images: &[Image],
        which: &Which,
        log: &BuildLog,
        report: &mut BuildReport,
    ) -> anyhow::Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        let _lock = lock(layout).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        let rows = images.iter().zip(&report.images);
        let rows = rows.map(|(image, row)| image_files(image, row));
        let dossiers = images.iter().flat_map(|image| {
            let variant = &image.manifest.variant;
            let found = log
                .results(variant)
                .into_iter()
                .filter_map(|result| result.dossier);
            found
                .map(|dossier| (variant.clone(), dossier))
                .collect::<Vec<_>>()
        });
        let junit = which.junit_file(layout);
        let reports = REPORTS
            .iter()
            .map(|name| layout.reports().join(name))
            .chain([junit]);
        let content = Content {
            images: rows.collect::<anyhow::Result<_>>()?,
            not_built: report.not_built.clone(),
            reports: reports.filter(|path| path.exists()).collect(),
            dossiers: dossiers.filter(|(_, dossier)| dossier.is_dir()).collect(),
            made: utc(now),
        };
        let (dir, log) = (layout.bundle(), program_log(layout)?);
        let index = publisher::bundle(&content, &dir, &log).await?;
        // Links to a file change its times; its content is as it was.
        images.iter().for_each(Image::remember);
        let options = Options {
            keep_last: self.keep_last.map(usize::from),
            ssh_config: self.ssh_config.clone(),
            registries_conf: self.registries_conf.clone(),
            log,
            scratch: layout.cache.join("tmp"),
            now,
        };
        for place in &self.publish {
            match publisher::publish(&index, &dir, place, &options).await {
                Ok(all) => report.published.extend(all.iter().map(ToString::to_string)),
                // One place that is not there does not keep the others from it.
                Err(error) => report
                    .problems
                    .push(format!("not published to {place}: {error}")),
            }
        }
        Ok(())
    }
}

/// Reports that go into the bundle, as far as they are there.
const REPORTS: &[&str] = &[
    MARKDOWN,
    PAGE,
    DATA,
    "summary.txt",
    "index.html",
    "report.md",
    "report.json",
];

/// Where the messages of ssh, skopeo, zstd and the like go.
fn program_log(layout: &Layout) -> anyhow::Result<PathBuf> {
    let logs = layout.logs();
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    Ok(logs.join("publish.log"))
}

/// One run at a time lays out the bundle and publishes from it; the others wait.
async fn lock(layout: &Layout) -> anyhow::Result<Lease> {
    let path = layout.out.join(".bundle.lock");
    let taken =
        tokio::task::spawn_blocking(move || Lease::wait(&path).map_err(|error| (path, error)));
    let taken = taken.await.context("cannot wait for the bundle's lock")?;
    taken.map_err(|(path, error)| anyhow::anyhow!("cannot lock {}: {error}", path.display()))
}

fn image_files(image: &Image, row: &ImageRow) -> anyhow::Result<ImageFiles> {
    let m = &image.manifest;
    let sums = image.dir.join("SHA256SUMS");
    let text = std::fs::read_to_string(&sums)
        .with_context(|| format!("cannot read {}", sums.display()))?;
    let known = text.lines().filter_map(|line| line.split_once("  "));
    let known: BTreeMap<String, String> = known
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    Ok(ImageFiles {
        dir: image.dir.clone(),
        variant: m.variant.clone(),
        version: m.vexfs_version.clone(),
        kernel: m.kernel.release.clone(),
        disk: m.disk.name.clone(),
        compressed: m.compressed.name.clone(),
        known,
        checks: Tally {
            passed: row.passed,
            failed: row.not_passed.len(),
            skipped: row.skipped,
        },
        passed: row.good,
    })
}

fn write_report(layout: &Layout, report: &BuildReport) -> anyhow::Result<()> {
    let data = serde_json::to_string_pretty(report)? + "\n";
    for (name, text) in [
        (MARKDOWN, report.markdown()),
        (PAGE, report.html()),
        (DATA, data),
    ] {
        write(&layout.reports().join(name), &text)?;
    }
    Ok(())
}

/// Writes a file as a whole or not at all.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    keeper::draft::file(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What a webhook gets: `text` is what chat services show, the rest is for programs.
fn message(report: &BuildReport) -> String {
    let mut text = report.headline();
    for image in report.images.iter().filter(|image| !image.good) {
        let names: Vec<&str> = image
            .not_passed
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        text += &format!(
            "\n{}: {} passed, not passed: {}",
            image.variant,
            image.passed,
            names.join(", ")
        );
    }
    for line in report.published.iter().chain(&report.problems) {
        text += &format!("\n{line}");
    }
    serde_json::json!({
        "schema": report.schema,
        "text": text,
        "good": report.is_good(),
        "report": report,
    })
    .to_string()
}

/// Lines for the end of the terminal's summary.
pub fn lines(layout: &Layout, report: &BuildReport) -> String {
    let mut text = format!("{:<12} {}\n", "bundle", layout.bundle().display());
    for line in &report.published {
        text += &format!("{:<12} {line}\n", "published");
    }
    for line in &report.problems {
        text += &format!("{:<12} {line}\n", "PROBLEM");
    }
    text
}
