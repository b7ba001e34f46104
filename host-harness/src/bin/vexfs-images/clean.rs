//! `vexfs-images clean`

use anyhow::Context;
use host_harness::snapshot::{DEFAULT_CAP, Store};

use crate::options::{Place, Usage};

/// Options of `clean`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Remove the frozen machines that no process uses
    #[arg(long)]
    snapshots: bool,
    /// Remove every cache: snapshots, build stages, downloaded packages
    #[arg(long)]
    all: bool,
}

/// Removes caches; images, reports and logs stay.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    if !args.snapshots && !args.all {
        return Err(Usage("say what to remove: --snapshots or --all".to_owned()).into());
    }
    let store = Store::open(layout.snapshots(), DEFAULT_CAP)?;
    let freed = store.clean()?;
    println!("snapshots: {} MiB freed", freed >> 20);
    let kept = store.list()?.len();
    if kept > 0 {
        anyhow::bail!("{kept} snapshots stay: some process uses them; end it and try again");
    }
    if args.all && layout.cache.exists() {
        std::fs::remove_dir_all(&layout.cache)
            .with_context(|| format!("cannot empty {}", layout.cache.display()))?;
        println!("{}: removed", layout.cache.display());
    }
    Ok(0)
}
