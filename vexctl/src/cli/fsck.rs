//! `vexctl fsck`, `fsck.vexfs`; exit codes as fsck(8).

use super::{Format, print_json, table};
use std::path::PathBuf;
use std::process::ExitCode;
use vexctl::fsck::{Report, check};

const FAILED: u8 = 8;

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Block device or image file; not mounted.
    device: PathBuf,
    /// Only look, change nothing. The default.
    #[arg(short = 'n', conflicts_with = "yes")]
    no: bool,
    /// Repair what can be repaired (also -p and -a, as other fsck programs).
    #[arg(short = 'y', visible_short_aliases = ['p', 'a'])]
    yes: bool,
    /// As in other fsck programs: check even if it looks clean. Always done.
    #[arg(short = 'f')]
    force: bool,
}

fn print(device: &std::path::Path, report: &Report, repair: bool) {
    let device = device.display();
    for finding in &report.findings {
        let end = if finding.repaired { ": repaired" } else { "" };
        println!("{device}: {}: {}{end}", finding.kind, finding.what);
    }
    let left = report
        .findings
        .iter()
        .filter(|finding| !finding.repaired)
        .count();
    match (report.findings.len(), left) {
        (0, _) => println!(
            "{device}: sound: {} inodes, {} blocks free, {} blocks in the journal, {} orphans",
            report.inodes, report.free_blocks, report.replayed, report.orphans
        ),
        (all, 0) => println!("{device}: {all} repaired"),
        (_, left) if repair => println!("{device}: {left} could not be repaired"),
        (_, left) => println!("{device}: {left} found; `fsck.vexfs -y {device}` repairs"),
    }
}

/// Checks, repairs if asked to, and says what was found.
pub fn run(args: &Args, format: Format) -> ExitCode {
    match check(&args.device, args.yes) {
        Ok(report) => {
            match format {
                Format::Human => print(&args.device, &report, args.yes),
                Format::Table | Format::Compact => {
                    let row = |f: &vexctl::fsck::Finding| {
                        vec![f.kind.to_owned(), f.repaired.to_string(), f.what.clone()]
                    };
                    let rows: Vec<_> = report.findings.iter().map(row).collect();
                    table::print(format, &["kind", "repaired", "what"], &rows);
                }
                Format::Json => print_json(&serde_json::json!({
                    "device": args.device, "report": report, "exit_code": report.exit_code(),
                })),
            }
            ExitCode::from(report.exit_code())
        }
        Err(flaw) => {
            eprintln!("fsck.vexfs: {flaw}");
            ExitCode::from(FAILED)
        }
    }
}
