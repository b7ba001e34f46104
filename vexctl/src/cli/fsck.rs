//! `vexctl fsck`, `fsck.vexfs`; exit codes as fsck(8).

use super::Format;
use std::path::PathBuf;
use std::process::ExitCode;
use vexctl::image::{Flaw, Image};

const SOUND: u8 = 0;
const DAMAGED: u8 = 4;
const FAILED: u8 = 8;

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Block device or image file.
    device: PathBuf,
    /// Only look.
    #[arg(short = 'n')]
    no: bool,
    /// As in other fsck programs.
    #[arg(short = 'y', visible_short_alias = 'p', visible_short_aliases = ['a'])]
    yes: bool,
    /// As in other fsck programs: check even if it looks clean. Always done.
    #[arg(short = 'f')]
    force: bool,
}

/// Checks the superblock and every group block.
pub fn run(args: &Args, _format: Format) -> ExitCode {
    let path = args.device.display();
    let image = match Image::open(&args.device, false) {
        Ok(image) => image,
        Err(flaw) => {
            eprintln!("fsck.vexfs: {flaw}");
            let code = if matches!(flaw, Flaw::Super(..)) {
                DAMAGED
            } else {
                FAILED
            };
            return ExitCode::from(code);
        }
    };
    let mut damage = 0;
    for group in 0..image.geometry().groups {
        if let Err(flaw) = image.group(group) {
            println!("{path}: group {group}: {flaw}");
            damage += 1;
        }
    }
    println!("{path}: {damage} damaged blocks");
    ExitCode::from(if damage > 0 { DAMAGED } else { SOUND })
}
