//! `vexfs-images size`

use std::collections::BTreeMap;
use std::time::Duration;

use ::report::model::NO_PACKAGE;
use host_harness::lab::Failure;
use image::inspect::{Kind, Tree};

use crate::options::{self, Machines, OneImage, Place};

/// Options of `size`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: OneImage,
    /// Rows of each table
    #[arg(long, value_name = "N", default_value_t = 15)]
    rows: usize,
    /// Boot it too, and say which units take how many seconds
    #[arg(long)]
    boot: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
}

/// The most systemd may take to come to rest.
const SETTLED: Duration = Duration::from_secs(120);

/// Says what takes the room, and with `--boot` what takes the time.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let image = args.image.open(&layout)?;
    let tree = Tree::of_disk(&image.disk).await?;
    let owners = tree.owners();
    let by_package = sum(&tree, |path| owners.of(path).unwrap_or(NO_PACKAGE).into());
    let by_folder = sum(&tree, folder);
    let manifest = &image.manifest;
    println!(
        "disk {:.1} MiB, compressed {:.1} MiB, files {:.1} MiB",
        mib(manifest.disk.bytes),
        mib(manifest.compressed.bytes),
        mib(by_folder.values().sum())
    );
    table("MiB by package", &by_package, args.rows);
    table("MiB by folder", &by_folder, args.rows);
    if args.boot {
        let host = args.machines.host(&layout).await?;
        let guest = options::boot(&layout, &host, &image, "size").await?;
        let said = async {
            guest.settle().await?;
            guest
                .sh("systemd-analyze time --no-pager; systemd-analyze blame --no-pager")
                .await
        };
        let said = guest
            .machine()
            .clock()
            .timeout(SETTLED, said)
            .await
            .map_err(|late| anyhow::anyhow!("not settled {late}"))?
            .map_err(|failure: Failure| anyhow::anyhow!("{failure}"))?;
        println!("\nseconds by unit");
        // The first lines are systemd's sum.
        said.lines()
            .take(args.rows + 2)
            .for_each(|line| println!("{line}"));
    }
    Ok(0)
}

/// Bytes of files by some property of their path.
fn sum(tree: &Tree, of: impl Fn(&str) -> String) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (path, node) in &tree.nodes {
        if let Kind::File { bytes, .. } = node.kind {
            *sums.entry(of(path)).or_default() += bytes;
        }
    }
    sums
}

/// The first three folders of a path: `/usr/lib/modules`.
fn folder(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    parts.truncate(4);
    match parts.join("/").as_str() {
        "" => "/".into(),
        folder => folder.into(),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn table(title: &str, sums: &BTreeMap<String, u64>, rows: usize) {
    let mut sorted: Vec<(&String, &u64)> = sums.iter().collect();
    sorted.sort_by_key(|(name, bytes)| (std::cmp::Reverse(**bytes), *name));
    println!("\n{title}");
    for (name, bytes) in sorted.iter().take(rows) {
        println!("{:8.2}  {name}", mib(**bytes));
    }
    let rest: u64 = sorted.iter().skip(rows).map(|(_, bytes)| **bytes).sum();
    if rest > 0 {
        println!("{:8.2}  {} others", mib(rest), sorted.len() - rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_three_deep_at_most() {
        for (path, folder_of) in [
            ("/usr/lib/modules/6.1/kernel/x.ko", "/usr/lib/modules"),
            ("/etc/hostname", "/etc"),
            ("/file", "/"),
        ] {
            assert_eq!(folder(path), folder_of);
        }
    }
}
