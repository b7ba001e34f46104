//! `vexfs-images reopen`

use std::sync::Arc;

use agent_client::ExecSpec;
use host_harness::dossier::Dossier;
use host_harness::lab::Guest;
use results::Layout;

use crate::options::{Left, Limit, REQUEST_DEADLINE, Usage};
use crate::{exec, shell};

/// Options of `reopen`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    left: Left,
    /// Which machine of the check, counted from 1 [default: the last that was frozen]
    #[arg(long, value_name = "N")]
    machine: Option<usize>,
    #[command(flatten)]
    limit: Limit,
    /// A program to run instead of a shell, and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Brings the machine back and opens a shell in it. The dossier stays as it is: every reopening
/// starts from the same moment.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    if args.command.is_empty() {
        shell::needs_terminal("use `vexfs-images reopen DOSSIER -- CMD` in scripts")?;
    }
    let dossier = Dossier::open(&args.left.dossier)?;
    let machine = dossier.machine(args.machine)?;
    let logs = Layout::find(Some(&dossier.facts.out))
        .map_err(Usage)?
        .machine_logs()
        .join(format!("reopen-{}", std::process::id()));
    let back = dossier.bring_back(machine, &logs).await?;
    match &back.booted {
        None => eprintln!(
            "back in {} of {}, as it was",
            machine.folder, dossier.facts.case
        ),
        Some(why) => eprintln!(
            "ATTENTION: this is not the failed machine as it was, but a fresh boot of its disks \
             ({why})"
        ),
    }
    let guest = Guest::adopt(Arc::new(back.machine), back.agent, REQUEST_DEADLINE).await?;
    if args.command.is_empty() {
        return shell::session(&guest).await;
    }
    let spec = ExecSpec::new(args.command);
    exec::stream(&guest, spec, args.limit.duration()).await
}
