//! The disk for the guest: this program, this host's QEMU, and all they are linked to, at the same
//! paths as here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;

/// Where this program is in the bundle.
pub const PROGRAM: &str = "/nested";

/// QEMU loads its emulator from here at run time (Debian builds it as a module).
const ACCELERATOR: &str = "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so";

/// Firmware and option ROMs for `-kernel`, in the folders QEMU looks in.
const FIRMWARE: &[&str] = &[
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/kvmvapic.bin",
];

/// Static, from Debian's busybox-static; the inner guest's user space.
pub const BUSYBOX: &str = "/bin/busybox";

/// Makes the tree, and the disk of it.
pub fn make(tree: &Path, disk: &Path) -> Result<(), Failed> {
    for dir in [
        "dev",
        "proc",
        "sys",
        "boot",
        "lib/modules",
        "usr/lib/vexfs",
        "tmp",
        "run",
    ] {
        fs::create_dir_all(tree.join(dir))?;
    }
    let qemu =
        std::env::var_os("VEXFS_QEMU").map_or("/usr/bin/qemu-system-x86_64".into(), PathBuf::from);
    let program = std::env::current_exe()?;
    put(&program, &tree.join(PROGRAM.trim_start_matches('/')))?;
    let mut wanted = vec![qemu.clone(), ACCELERATOR.into(), BUSYBOX.into()];
    wanted.extend(FIRMWARE.iter().map(PathBuf::from));
    for file in [&program, &qemu, Path::new(ACCELERATOR)] {
        wanted.extend(libraries(file)?);
    }
    for file in wanted {
        put(&file, &tree.join(file.strip_prefix("/")?))?;
    }
    // The machine room holds its folders with a sleep.
    put(Path::new(BUSYBOX), &tree.join("bin/sleep"))?;
    run(Command::new("truncate").args(["-s", "512M"]).arg(disk))?;
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
        .args([tree, disk]))
}

/// What the dynamic loader would load, the loader included (ldd(1)).
fn libraries(file: &Path) -> Result<Vec<PathBuf>, Failed> {
    let output = Command::new("ldd").arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.lines().filter_map(|line| {
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.trim().split(' ').next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

/// Copies what `from` is or links to, with its mode.
fn put(from: &Path, to: &Path) -> Result<(), Failed> {
    fs::create_dir_all(to.parent().ok_or("a path without a folder")?)?;
    fs::copy(from, to).map_err(|e| format!("cannot copy {}: {e}", from.display()))?;
    Ok(())
}

fn run(command: &mut Command) -> Result<(), Failed> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
