//! Taking from a machine what is left of it: its state while it still runs, its disks when it has
//! ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machine::arguments::{self, scratch_file};
use machine::{Death, DiskContent, Machine, Qemu, overlay, snapshot};
use results::dossier::{Left, files};

use super::{DossierError, MachineFacts, Made, Policy};

/// How long the guest of a failed check may take to let go of its vsock device: a fifth of a second
/// when its kernel works.
const LETTING_GO: Duration = Duration::from_secs(3);

/// How long QEMU may take to end with its disks flushed.
const QUITTING: Duration = Duration::from_secs(3);

/// What goes along from a machine's log folder.
const LOGS: &[&str] = &[files::ARGUMENTS, "qemu.log", "vsock.log", "console.log"];

/// Takes what is left of the `number`th machine into a folder of its own in `dossier`. The machine is
/// dead afterwards. `deaf` is said of a guest that is known not to answer.
pub(super) async fn take(
    machine: &mut Arc<Machine>,
    number: usize,
    dossier: &Path,
    image_digest: &str,
    policy: &Policy,
    deaf: bool,
) -> Result<MachineFacts, DossierError> {
    let folder = format!("machine-{number}");
    let into = dossier.join(&folder);
    std::fs::create_dir(&into)
        .map_err(DossierError::io(format!("cannot make {}", into.display())))?;
    for name in LOGS {
        let from = machine.spec().log_dir.join(name);
        if from.exists() {
            std::fs::copy(&from, into.join(name))
                .map_err(DossierError::io(format!("cannot copy {}", from.display())))?;
        }
    }
    let left = match freeze(machine, &into, image_digest, deaf).await {
        Ok(()) => Left::Frozen,
        Err(why) => {
            // Half of a state is worth nothing.
            for name in [files::RAM, files::STATE, "secret", "manifest.json"] {
                std::fs::remove_file(into.join(name)).unwrap_or_default();
            }
            let dump = into.join(files::DUMP);
            let there = matches!(machine.death(), None | Some(Death::GuestPanicked));
            if policy.dump_memory && there && machine.dump_memory(&dump).await.is_ok() {
                Left::Dump { why }
            } else {
                Left::Disks { why }
            }
        }
    };
    // Only a QEMU that ends by itself leaves whole disks; one that hangs is killed by its owner, and
    // what it left is better than nothing.
    let clock = machine.clock();
    clock
        .timeout(QUITTING, machine.quit())
        .await
        .map(drop)
        .unwrap_or_default();
    let owner = machine.clone();
    let to = into.clone();
    tokio::task::spawn_blocking(move || disks(&owner, &to))
        .await
        .map_err(std::io::Error::other)
        .and_then(|copied| copied)
        .map_err(DossierError::io(format!(
            "cannot copy the disks of machine {}",
            machine.id()
        )))?;
    Ok(MachineFacts {
        folder,
        id: machine.id().to_owned(),
        made: Made {
            spec: machine.spec().alone(),
            qemu: Qemu::find().await?.version.clone(),
        },
        left,
    })
}

/// Freezes it, or says why that cannot be.
async fn freeze(
    machine: &mut Arc<Machine>,
    into: &Path,
    image_digest: &str,
    deaf: bool,
) -> Result<(), String> {
    if let Some(death) = machine.death() {
        return Err(death.to_string());
    }
    if deaf {
        return Err("its guest does not answer, and would not let go of its vsock device".into());
    }
    if machine.secret().is_none() {
        return Err("it was not invited: nobody in it would answer".into());
    }
    if !machine.run_dir().ram_file().exists() {
        return Err("its memory is not in a file of its own".into());
    }
    let Some(machine) = Arc::get_mut(machine) else {
        return Err("somebody still works with it".into());
    };
    snapshot::freeze_as_it_is(machine, into, image_digest, LETTING_GO)
        .await
        .map_err(|error| error.to_string())
}

/// Copies the disks the guest could write. The overlay of a fork lies on that of its snapshot, which
/// will not be there for ever: that one comes along. The image itself stays where it is.
fn disks(machine: &Machine, to: &Path) -> std::io::Result<()> {
    let own = machine.overlay();
    if own.exists() {
        let copy = to.join(files::OVERLAY);
        snapshot::copy_file(&own, &copy)?;
        let image = machine.spec().image.as_ref();
        let image = image.and_then(|image| image.canonicalize().ok());
        let below = overlay::backing(&copy)?.map(PathBuf::from);
        if let Some(below) = below.filter(|below| Some(below) != image.as_ref()) {
            snapshot::copy_file(&below, &to.join(files::BASE))?;
            overlay::set_backing(&copy, files::BASE)?;
        }
    }
    let run = machine.run_dir().path();
    let vars = run.join(arguments::files::UEFI_VARS);
    if vars.exists() {
        snapshot::copy_file(&vars, &to.join(arguments::files::UEFI_VARS))?;
    }
    for disk in &machine.spec().disks {
        let from = match &disk.content {
            DiskContent::ReadOnly { .. } => continue,
            DiskContent::Scratch { .. } => scratch_file(run, &disk.serial),
            DiskContent::Logged { file, .. } => file.clone(),
        };
        snapshot::copy_file(&from, &scratch_file(to, &disk.serial))?;
    }
    Ok(())
}
