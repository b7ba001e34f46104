//! `vexfs-images boot`

use std::io::Write;

use machine::{Death, Machine, MachineEvent, MachineSpec};
use tokio::sync::broadcast::error::RecvError;

use crate::options::{Begins, Machines, OneImage, Place, WhichKernel};

/// Options of `boot`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: OneImage,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
    /// Memory of the guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..=1_048_576))]
    memory: u32,
    #[command(flatten)]
    begins: Begins,
    /// Without the credential that makes the agent listen
    #[arg(long)]
    uninvited: bool,
    #[command(flatten)]
    kernel: WhichKernel,
}

/// Boots an overlay of the image and shows the console; nothing of it is kept but the log.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let image = args.image.open(&layout)?;
    let host = args.machines.host(&layout).await?;
    for (name, value) in host.facts() {
        eprintln!("{name}: {value}");
    }
    let logs = layout
        .machine_logs()
        .join(format!("boot-{}", std::process::id()));
    let machine = Machine::boot(MachineSpec {
        accelerator: host.accel.chosen,
        vsock: Some(host.vsock.chosen),
        memory_mib: args.memory,
        firmware: args.begins.firmware,
        invite: !args.uninvited,
        second_kernel: args.kernel.second_kernel,
        ..MachineSpec::new("boot", image.disk.clone(), &logs)
    })
    .await?;
    eprintln!(
        "console: {} (Ctrl-C ends the machine)",
        machine.console().path().display()
    );
    let death = show(&machine).await?;
    eprintln!("{death}");
    Ok(u8::from(!death.is_orderly()))
}

/// Prints console lines until the machine is dead.
async fn show(machine: &Machine) -> anyhow::Result<Death> {
    let mut events = machine.events();
    let (mut shown, mut mark) = machine.console().since(machine::Mark::START);
    let mut out = std::io::stdout();
    loop {
        for line in shown.drain(..) {
            writeln!(out, "{}", line.text)?;
        }
        match events.recv().await {
            Ok(MachineEvent::Died(death)) => {
                for line in machine.console().since(mark).0 {
                    writeln!(out, "{}", line.text)?;
                }
                return Ok(death);
            }
            // The console keeps every line; an event only says that there may be more.
            Ok(_) | Err(RecvError::Lagged(_)) => {
                (shown, mark) = machine.console().since(mark);
            }
            Err(RecvError::Closed) => return Ok(machine.died().await),
        }
    }
}
