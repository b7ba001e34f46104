//! `vexfs-images clean`

use machine::snapshot::{DEFAULT_CAP, Store};

use crate::options::Place;

/// Options of `clean`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Remove the frozen machines that no process uses, and nothing else
    #[arg(long)]
    snapshots: bool,
    /// Empty every cache: stages, downloaded packages, builder root, snapshots, what is remembered of
    /// tools
    #[arg(long, conflicts_with = "snapshots")]
    all: bool,
}

/// Removes finished stages and downloaded packages, or what the options say; images, reports and logs
/// stay.
pub async fn run(args: &Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    if !args.snapshots && !args.all {
        let freed = image_builder::clean_stages(&layout.cache)?;
        println!("stages and packages: {} MiB freed", freed >> 20);
        return Ok(0);
    }
    let store = Store::open(layout.snapshots(), DEFAULT_CAP)?;
    let freed = store.clean()?;
    println!("snapshots: {} MiB freed", freed >> 20);
    let kept = store.list()?.len();
    if kept > 0 {
        anyhow::bail!("{kept} snapshots stay: some process uses them; end it and try again");
    }
    if args.all {
        image_builder::empty_cache(&layout.cache).await?;
        println!("{}: empty", layout.cache.display());
    }
    Ok(0)
}
