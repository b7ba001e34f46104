//! `vexfs-images doctor`

use host_harness::doctor;
use machine::{Host, accel, vsock};

use crate::options::Place;

/// What a build and its checks want at least, in MiB.
const MEMORY_WANTED: u64 = 4 << 10;
const DISK_WANTED: u64 = 8 << 10;

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// Prints what there is, and for what there is not the command that mends it.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let mut wrong = Vec::new();
    // Each on its own: what is wrong with one must not hide the other.
    match Host::accelerator(&layout.cache, accel::Request::Auto).await {
        Ok(accel) => println!("{:<20} {} ({})", "accelerator", accel.chosen, accel.why),
        Err(error) => wrong.push(error.to_string()),
    }
    match vsock::probe(None) {
        Ok(vsock) => println!("{:<20} {} ({})", "vsock", vsock.chosen, vsock.why),
        Err(error) => wrong.push(error.to_string()),
    }
    let tools = doctor::tools().await;
    for tool in &tools {
        match &tool.version {
            Some(version) => println!("{:<20} {version}", tool.program),
            None => println!("{:<20} MISSING ({})", tool.program, tool.purpose),
        }
    }
    let room = doctor::room();
    if let Some(memory) = &room.memory {
        let (available, total) = (memory.available_mib, memory.total_mib);
        let whose = match &memory.group {
            Some(_) => format!(" ({})", memory.place()),
            None => String::new(),
        };
        println!(
            "{:<20} {available} MiB available of {total} MiB{whose}",
            "memory"
        );
        if available < MEMORY_WANTED {
            wrong.push(format!(
                "{available} MiB of memory are available, a build wants {MEMORY_WANTED}"
            ));
        }
    }
    match &room.ram {
        Some(ram) => println!(
            "{:<20} {} MiB free of {} MiB in {}{}",
            "guest memory",
            ram.free_mib,
            ram.total_mib,
            ram.path.display(),
            if ram.memory { "" } else { " (NOT A TMPFS: machines are slower there)" }
        ),
        None => wrong.push(
            "there is no folder for guest memory: mount a tmpfs at /dev/shm, or name a folder with VEXFS_RAM_DIR"
                .into(),
        ),
    }
    if let (dir, Some(free)) = &room.run {
        println!(
            "{:<20} {free} MiB free for {}",
            "machines' disk",
            dir.display()
        );
    }
    println!("{:<20} {} at once", "machines", room.machines);
    wrong.extend(room.lacks);
    for (name, dir) in [("output disk", &layout.out), ("cache disk", &layout.cache)] {
        let Some(free) = doctor::free_mib(dir) else {
            continue;
        };
        println!("{name:<20} {free} MiB free for {}", dir.display());
        if free < DISK_WANTED {
            wrong.push(format!(
                "{free} MiB are free for {}, a build wants {DISK_WANTED}",
                dir.display()
            ));
        }
    }
    let remedies = doctor::remedies(&tools);
    if remedies.is_empty() && wrong.is_empty() {
        println!("everything is in place");
        return Ok(0);
    }
    for line in &wrong {
        println!("wrong: {line}");
    }
    for remedy in &remedies {
        println!("mend with: {remedy}");
    }
    Ok(1)
}
