//! `vexfs-images report` and `vexfs-images report merge`

use std::path::{Path, PathBuf};

use ::report::{html, kcidb, markdown, merge, model, publish};
use anyhow::Context;
use clap::ValueEnum;
use host_harness::checks;
use results::Layout;

use crate::options::{Place, Usage};

/// Options of `report`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make one JUnit file of several; exit code 1 when a case in them failed
    Merge {
        /// JUnit files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where the one goes
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// A form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A page, index.html
    Html,
    /// Markdown, report.md
    Md,
    /// JSON, report.json
    Json,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [Format::Html, Format::Md, Format::Json];

    /// The name of its file.
    fn file(self) -> &'static str {
        match self {
            Format::Html => "index.html",
            Format::Md => "report.md",
            Format::Json => "report.json",
        }
    }
}

/// Which reports to make.
#[derive(Debug, Clone, clap::Args)]
struct Make {
    /// In which forms, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "html,md,json"
    )]
    format: Vec<Format>,
    /// The folder they go to [default: reports in the output folder]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Also write the results for KernelCI, as KCIDB's I/O schema has them
    #[arg(long, value_name = "FILE")]
    kcidb: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Makes reports of what is under `out/`, or one JUnit file of several.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    if let Some(What::Merge { files, output }) = &args.what {
        return merge_files(files, output);
    }
    let Make {
        format,
        to,
        kcidb,
        place,
    } = args.make;
    let layout = place.layout()?;
    for file in make(&layout, &format, to, kcidb.as_deref()).await? {
        println!("{}", file.display());
    }
    Ok(0)
}

/// Writes reports in these forms and returns where they are.
pub async fn make(
    layout: &Layout,
    formats: &[Format],
    to: Option<PathBuf>,
    kcidb: Option<&Path>,
) -> anyhow::Result<Vec<PathBuf>> {
    let to = to.unwrap_or_else(|| layout.reports());
    let to = std::path::absolute(&to).with_context(|| format!("no folder {}", to.display()))?;
    let checks = checks::REGISTRY.iter().chain([checks::SMOKE]);
    let known = checks.map(|check| model::Known {
        check: check.name,
        about: check.about,
    });
    let model = model::gather(layout, &to, &known.collect::<Vec<_>>()).await?;
    let mut written = Vec::new();
    for format in Format::ALL {
        if !formats.contains(&format) {
            continue;
        }
        let text = match format {
            Format::Html => {
                let others = [(Format::Md, "Markdown"), (Format::Json, "JSON")];
                let others = others.iter().filter(|(form, _)| formats.contains(form));
                let link = |(form, name): &(Format, &str)| model::Link {
                    name: (*name).to_owned(),
                    href: form.file().to_owned(),
                };
                let others: Vec<model::Link> = others.map(link).collect();
                html::render(&model, &nonce()?, &others)?
            }
            Format::Md => markdown::render(&model)?,
            Format::Json => serde_json::to_string_pretty(&model)? + "\n",
        };
        let file = to.join(format.file());
        publish(&file, text.as_bytes())?;
        written.push(file);
    }
    if let Some(file) = kcidb {
        let text = serde_json::to_string_pretty(&kcidb::render(&model))? + "\n";
        publish(file, text.as_bytes())?;
        written.push(file.to_owned());
    }
    Ok(written)
}

/// A random word for the page's content security policy.
fn nonce() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
    Ok(hex::encode(bytes))
}

fn merge_files(files: &[PathBuf], output: &Path) -> anyhow::Result<u8> {
    let mut documents = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Usage(format!("cannot read {}: {error}", file.display())))?;
        documents.push((file.display().to_string(), text));
    }
    let merged = merge::merge(&documents).map_err(Usage)?;
    std::fs::write(output, &merged.xml)
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!(
        "{}: {} cases of {} files, {} not passed, {} skipped",
        output.display(),
        merged.cases,
        files.len(),
        merged.bad,
        merged.skipped
    );
    Ok(u8::from(merged.bad > 0))
}
