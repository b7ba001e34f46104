//! `vexfs-images perf`

mod compare;
mod run;

use std::path::{Path, PathBuf};

use host_harness::lab::Setup;
use image::Image;
use image_builder::ToolsRequest;
use machine::Host;
use results::figures::Record;
use results::{BuildEvent, Layout};

use crate::options::Usage;

/// Options of `perf`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Measure, and write what was measured to reports/perf
    Run(run::Args),
    /// Show two records beside each other; those of unlike hosts only when that is asked for
    Diff {
        /// A record that `perf run` wrote
        #[arg(value_name = "OLD.json")]
        old: PathBuf,
        /// A later one
        #[arg(value_name = "NEW.json")]
        new: PathBuf,
        /// Show figures of unlike hosts all the same
        #[arg(long)]
        across_hosts: bool,
    },
    /// Say whether NEW is slower than BASE: exit code 0 no, 1 yes, 75 this host cannot tell
    Compare(compare::Args),
}

/// Measures.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    match args.what {
        What::Run(args) => run::run(args).await,
        What::Diff {
            old,
            new,
            across_hosts,
        } => {
            let read = |path: &Path| Record::read(path).map_err(Usage);
            let text = results::figures::difference(&read(&old)?, &read(&new)?, across_hosts);
            print!("{}", text.map_err(Usage)?);
            Ok(0)
        }
        What::Compare(args) => compare::run(args).await,
    }
}

/// What machines of an image need.
async fn setup(layout: &Layout, host: &Host, image: Image) -> anyhow::Result<Setup> {
    let request = ToolsRequest {
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        ..ToolsRequest::new(&layout.workspace)
    };
    let told = |event: &BuildEvent| {
        if let BuildEvent::StageStarted { stage, .. } = event {
            eprintln!("making the {stage} disk");
        }
    };
    let tools = image_builder::tools_disk(&request, &told).await?;
    Ok(Setup::new(layout.clone(), host.clone(), image, tools))
}

/// The last part of a path, to call it by.
fn short(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
