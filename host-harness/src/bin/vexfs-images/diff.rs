//! `vexfs-images diff`

use std::path::PathBuf;

use image::inspect::{Tree, diff};
use results::Layout;

use crate::options::{self, Place};

/// Options of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first image: a variant, a folder or a disk
    a: PathBuf,
    /// The second
    b: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Say of how many paths at most [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Exit code for images that differ; 0 says that they are the same, 2 that they cannot be compared.
const DIFFERENT: u8 = 1;
const TROUBLE: u8 = 2;

/// Compares the file trees of two images.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    match compare(&args).await {
        Ok(code) => Ok(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(TROUBLE)
        }
    }
}

async fn compare(args: &Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let (a, b) = (disk(&layout, &args.a)?, disk(&layout, &args.b)?);
    let (tree_a, tree_b) = tokio::try_join!(Tree::of_disk(&a), Tree::of_disk(&b))?;
    let differences = diff(&tree_a, &tree_b);
    let limit = args.limit.unwrap_or(differences.len());
    for difference in differences.iter().take(limit) {
        println!("{difference}");
    }
    if differences.len() > limit {
        println!("… and {} more", differences.len() - limit);
    }
    let paths = tree_a.nodes.len();
    if differences.is_empty() {
        println!("the same: {paths} paths, with their modes, owners, contents and times");
        return Ok(0);
    }
    println!("different: {} things, of {paths} paths", differences.len());
    Ok(DIFFERENT)
}

/// The disk a word means; one that is no part of an image will do too.
fn disk(layout: &Layout, word: &std::path::Path) -> anyhow::Result<PathBuf> {
    if word.is_file() {
        return Ok(word.to_owned());
    }
    Ok(options::image(layout, word)?.disk)
}
