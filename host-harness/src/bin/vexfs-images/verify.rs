//! `vexfs-images verify`

use std::path::PathBuf;

use crate::options::{OneImage, Place};

/// Options of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: OneImage,
    /// Who may have signed it (ssh-keygen(1), "ALLOWED SIGNERS"); a signature is required then
    #[arg(long, value_name = "FILE")]
    allowed_signers: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Holds everything beside an image against everything else; exit code 1 when something differs.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    // A damaged image is what this is for: no more of it is opened than its folder.
    let dir = match args.image.image.is_dir() {
        true => args.image.image.clone(),
        false => args.image.open(&layout)?.dir,
    };
    let mut code = 0;
    for finding in image_builder::verify(&dir, args.allowed_signers.as_deref()).await? {
        match finding.wrong.is_empty() {
            true => println!("holds  {}", finding.what),
            false => {
                code = 1;
                println!("WRONG  {}", finding.what);
                finding
                    .wrong
                    .iter()
                    .for_each(|line| println!("       {line}"));
            }
        }
    }
    Ok(code)
}
