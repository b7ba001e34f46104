//! `vexfs-images exec`

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use agent_client::{Chunk, ExecSpec};
use agent_protocol::message::{Ended, ExecResult};
use host_harness::lab::Guest;

use crate::options::{self, Limit, Machines, Place};

/// Exit code for a program that was killed or hangs, as a shell reports SIGKILL.
const KILLED: u8 = 137;

/// Options of `exec`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a variant, a folder, or a disk
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
    #[command(flatten)]
    limit: Limit,
    /// Run it as this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Boots an overlay, runs the program, streams what it writes, and exits as it did.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let image = options::image(&layout, &args.image)?;
    let host = args.machines.host(&layout).await?;
    let guest = options::boot(&layout, &host, &image, "exec").await?;
    let mut spec = ExecSpec::new(args.command);
    if let Some(user) = args.user {
        spec = spec.user(user);
    }
    stream(&guest, spec, args.limit.duration()).await
}

/// Runs a program in a guest, streams what it writes, and returns its exit code.
pub async fn stream(guest: &Guest, spec: ExecSpec, within: Duration) -> anyhow::Result<u8> {
    let mut session = guest.client().start(spec, within).await?;
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = session.next() => chunk?,
            death = guest.machine().died() => {
                anyhow::bail!("{death}; the console ends with:\n{}", guest.machine().console().tail(20));
            }
        };
        match chunk {
            Chunk::Stdout(bytes) => {
                out.write_all(&bytes)?;
                out.flush()?;
            }
            Chunk::Stderr(bytes) => err.write_all(&bytes)?,
            Chunk::Ended(result) => return Ok(code(result)),
        }
    }
}

/// The program's exit code, or what a shell would make of its end.
pub fn code(result: ExecResult) -> u8 {
    match result.ended {
        Ended::Exited(code) if result.killed.is_none() => u8::try_from(code).unwrap_or(1),
        Ended::Signalled { signal, .. } => u8::try_from(128 + signal).unwrap_or(KILLED),
        _ => KILLED,
    }
}
