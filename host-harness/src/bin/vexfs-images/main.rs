//! `vexfs-images`: builds VexFS images, boots them, and says from evidence whether they work.
//!
//! One file per subcommand. What the exit codes mean is data, in `exit_codes.rs`; the pages of `docs/` that this
//! program knows better than their writers are made and held in `docs/`, by tests.

mod bisect;
mod boot;
mod build;
mod ci;
mod clean;
mod delivery;
mod diff;
#[cfg(test)]
mod docs;
mod doctor;
mod exec;
mod exit_codes;
mod list;
mod options;
mod perf;
mod reopen;
mod report;
mod rerun;
mod shell;
mod size;
mod ssh;
mod summary;
mod tryout;
mod validate;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Builds bootable images with VexFS and checks them in real machines.
#[derive(Debug, Parser)]
#[command(name = "vexfs-images", version, propagate_version = true, after_long_help = exit_codes::help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build images and, unless told otherwise, validate them
    Build(Box<build::Args>),
    /// Boot images and run the checks
    Validate(validate::Args),
    /// Boot an image and show its console until it ends or Ctrl-C
    Boot(boot::Args),
    /// Boot an image, run a program in it, and exit with the program's code
    Exec(exec::Args),
    /// Boot an image and open a shell in it
    Shell(shell::Args),
    /// Boot an image and log in to it over SSH, or run a program over it
    Ssh(ssh::Args),
    /// Go back into the failed machine of a dossier
    Reopen(reopen::Args),
    /// Run the check of a dossier again, the same way
    Rerun(rerun::Args),
    /// Build a tree's module and try it in a fork of an image: seconds from an edit to a verdict
    Try(tryout::Args),
    /// Find the commit of a tree, in a git repository, that broke a check; files as they are now do not matter
    Bisect(bisect::Args),
    /// Compare the file trees of two images: exit code 0 the same, 1 different, 2 cannot tell
    Diff(diff::Args),
    /// Hold everything beside an image against everything else: digests, documents, signature
    Verify(verify::Args),
    /// What takes the room in an image, by package and folder, and the time of its boot, by unit
    Size(size::Args),
    /// Measure, and say whether something got slower
    Perf(perf::Args),
    /// Tell what was built, checked and measured as a page, Markdown and JSON; or merge JUnit files
    Report(report::Args),
    /// Show the images and the snapshots there are
    List(list::Args),
    /// Remove caches
    Clean(clean::Args),
    /// What this host offers, and what is missing with the command that mends it
    Doctor(doctor::Args),
    /// Build, validate, report, bundle and publish, as continuous integration does
    Ci(Box<ci::Args>),
}

fn main() -> ExitCode {
    machine::hook();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::from(75);
        }
    };
    let code = runtime.block_on(interruptible(cli.command));
    // Dropping what the command held has killed its machines; blocking readers of a terminal
    // may still sit in read(2) and must not hold up the end.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Runs the command, or drops it (and with it every machine and half-written file) on a signal.
async fn interruptible(command: Command) -> u8 {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        eprintln!("error: cannot listen for signals");
        return 75;
    };
    tokio::select! {
        result = run(command) => match result {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error:#}");
                options::exit_code(&error)
            }
        },
        _ = interrupt.recv() => {
            eprintln!("interrupted: ended what was running");
            exit_codes::INTERRUPTED
        }
        _ = terminate.recv() => {
            eprintln!("terminated: ended what was running");
            exit_codes::TERMINATED
        }
    }
}

async fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Build(args) => build::run(*args).await,
        Command::Validate(args) => validate::run(args).await,
        Command::Boot(args) => boot::run(args).await,
        Command::Exec(args) => exec::run(args).await,
        Command::Shell(args) => shell::run(args).await,
        Command::Ssh(args) => ssh::run(args).await,
        Command::Reopen(args) => reopen::run(args).await,
        Command::Rerun(args) => rerun::run(args).await,
        Command::Try(args) => tryout::run(args).await,
        Command::Bisect(args) => bisect::run(args).await,
        Command::Diff(args) => diff::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Size(args) => size::run(args).await,
        Command::Report(args) => report::run(args).await,
        Command::Perf(args) => perf::run(args).await,
        Command::List(args) => list::run(&args),
        Command::Clean(args) => clean::run(&args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Ci(args) => ci::run(*args).await,
    }
}
