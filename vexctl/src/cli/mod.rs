//! The command line: what is asked, in which form the answer goes out, and how it ends.

mod config;
mod documents;
mod dump;
mod fsck;
mod info;
mod log;
mod metrics;
mod mkfs;
mod service;
mod status;
mod table;
mod vector;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit codes, also in `vexctl --help`; `fsck.vexfs` has those of fsck(8).
const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, stderr says why and what to do; \
    2 wrong usage; 124 time over. fsck ends as fsck(8): 0 sound, 1 repaired, 4 damage left, 8 failed, 16 usage.";

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON document, stable.
    Json,
    /// Columns under a heading.
    Table,
    /// One line for each thing, fields apart by a tab, no heading.
    Compact,
}

/// What every subcommand understands.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// How the answer is written.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,
    /// Say only what failed.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Give up after this many seconds, with exit code 124.
    #[arg(long, global = true, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// The configuration file.
    #[arg(long, global = true, default_value = vexctl::config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Makes, inspects and controls VexFS file systems.
#[derive(Debug, Parser)]
#[command(name = "vexctl", version, after_help = EXIT_CODES)]
struct Vexctl {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is mounted, and how full it is.
    Status(status::Args),
    /// Make a file system.
    Mkfs(mkfs::Args),
    /// Check a file system that is not mounted.
    Fsck(fsck::Args),
    /// What a device holds.
    Info(info::Args),
    /// What lies on the disk: a block, an inode, a file's content.
    Dump(dump::Args),
    /// Vectors on files.
    #[command(subcommand)]
    Vector(vector::Action),
    /// What is mounted, as metrics for Prometheus.
    Metrics(metrics::Args),
    /// Read and check the configuration.
    Config,
    /// Completions for a shell, to stdout.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// The JSON schema of what a command prints with --format json, to stdout.
    Schema {
        /// Of which command.
        #[arg(value_parser = documents::SCHEMAS.map(|(name, _)| name))]
        command: String,
    },
    /// Manual pages, into a directory.
    Man {
        /// The directory; made if need be.
        into: PathBuf,
    },
    /// Mount what fstab and the configuration name (for vexfs.service).
    MountHelper,
    /// Unmount it again (for vexfs.service).
    UmountHelper,
}

#[derive(Debug, Parser)]
#[command(name = "mkfs.vexfs", version, about = "Makes a VexFS file system.")]
struct Mkfs {
    #[command(flatten)]
    args: mkfs::Args,
    /// Say nothing.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Parser)]
#[command(name = "fsck.vexfs", version, about = "Checks a VexFS file system.")]
struct Fsck {
    #[command(flatten)]
    args: fsck::Args,
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vexctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the name we were called by and the arguments ask for.
pub fn main() -> ExitCode {
    let called = std::env::args_os()
        .next()
        .map(PathBuf::from)
        .unwrap_or_default();
    match called.file_name().and_then(|name| name.to_str()) {
        Some("mkfs.vexfs") => {
            let mkfs = Mkfs::parse();
            return report(mkfs::run(&mkfs.args, Format::Human, mkfs.quiet));
        }
        Some("fsck.vexfs") => {
            let parsed = Fsck::try_parse().unwrap_or_else(|error| {
                let usage = error.use_stderr();
                let _ = error.print();
                std::process::exit(if usage { 16 } else { 0 });
            });
            return fsck::run(&parsed.args, Format::Human);
        }
        _ => {}
    }
    let Vexctl { common, command } = Vexctl::parse();
    if let Some(seconds) = common.timeout {
        give_up_after(seconds);
    }
    report(match command {
        Command::Status(args) => status::run(&args, common.format),
        Command::Mkfs(args) => mkfs::run(&args, common.format, common.quiet),
        Command::Fsck(args) => return fsck::run(&args, common.format),
        Command::Info(args) => info::run(&args, common.format),
        Command::Dump(args) => dump::run(&args, common.format),
        Command::Vector(action) => vector::run(&action, common.format, common.quiet),
        Command::Metrics(args) => metrics::run(&args),
        Command::Config => config::run(&common.config, common.format),
        Command::Completions { shell } => documents::completions(shell),
        Command::Schema { command } => documents::schema(&command),
        Command::Man { into } => documents::manual(&into),
        Command::MountHelper => service::mount(&common),
        Command::UmountHelper => service::unmount(&common),
    })
}

/// Ends the program when its time is over, whatever system call it sits in.
fn give_up_after(seconds: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(seconds));
        eprintln!("vexctl: not done after {seconds} s (--timeout): `dmesg` may say why");
        std::process::exit(124);
    });
}

/// Writes a JSON document to stdout.
fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}

/// A size for people.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len() - 1)
        .take_while(|n| bytes >> (10 * (n + 1)) > 0)
        .count();
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Whether the module is there to be used, and its version.
fn module_version() -> Option<String> {
    let path = Path::new("/sys/module/vexfs/version");
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_lines_are_well_formed() {
        Vexctl::command().debug_assert();
        Mkfs::command().debug_assert();
        Fsck::command().debug_assert();
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human_size(5), "5 B");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size(8 << 30), "8.0 GiB");
    }
}
