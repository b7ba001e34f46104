//! `vexfs-images report merge`

use std::path::PathBuf;

use anyhow::Context;
use host_harness::report::merge;

use crate::options::Usage;

/// Options of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
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

/// Merges.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let What::Merge { files, output } = &args.what;
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
