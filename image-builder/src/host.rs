//! What the host must have: programs, and room on its disks.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keeper::{find, room};

use crate::{BuildError, MissingTool};

/// Programs a build runs, and the Debian package of each.
const TOOLS: &[(&str, &str)] = &[
    ("apt-config", "apt"),
    ("apt-get", "apt"),
    ("cargo", "cargo"),
    ("debugfs", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("e2fsck", "e2fsprogs"),
    ("grub-mkimage", "grub-common"),
    ("gzip", "gzip"),
    ("mcopy", "mtools"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.vfat", "dosfstools"),
    ("mmd", "mtools"),
    ("mmdebstrap", "mmdebstrap"),
    ("packer", "packer"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("resize2fs", "e2fsprogs"),
    ("sgdisk", "gdisk"),
    ("ssh-keygen", "openssh-client"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
    ("zstd", "zstd"),
];
/// Files a build reads, likewise.
const FILES: &[(&str, &str)] = &[
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi/linux.mod", "grub-efi-amd64-bin"),
];
/// Where programs of the system administrator are; an ordinary user's PATH may lack them.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// `PATH` with the sbin directories.
pub(crate) fn path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(SBIN);
    path
}

/// Every program and file that is not there.
fn missing(path: &std::ffi::OsStr) -> Vec<MissingTool> {
    let programs = TOOLS
        .iter()
        .filter(|(program, _)| find::program_in(program.as_ref(), path).is_none());
    let files = FILES.iter().filter(|(file, _)| !Path::new(file).is_file());
    programs
        .chain(files)
        .map(|&(program, package)| MissingTool { program, package })
        .collect()
}

/// Where programs for the guest are compiled: cargo's own folder for what it makes of the workspace, so that a
/// checkout one may only read does with `CARGO_TARGET_DIR` (the Cargo book, "Environment Variables").
pub(crate) fn cargo_target(workspace: &Path) -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    let named = named.and_then(|dir| std::path::absolute(dir).ok());
    named.unwrap_or_else(|| workspace.join("target"))
}

/// Checks that everything a build runs is there.
pub(crate) fn require_tools() -> Result<(), BuildError> {
    let missing = missing(&path());
    if missing.is_empty() {
        Ok(())
    } else {
        Err(BuildError::MissingTools { missing })
    }
}

/// Checks that the C compiler finds a static library.
pub(crate) fn require_library(
    found: &str,
    file: &'static str,
    package: &'static str,
) -> Result<(), BuildError> {
    // `cc -print-file-name` repeats the name of what it does not find.
    match Path::new(found.trim()).is_absolute() {
        true => Ok(()),
        false => Err(BuildError::MissingTools {
            missing: vec![MissingTool {
                program: file,
                package,
            }],
        }),
    }
}

/// Which file a program is: where, how big, how old. Another version is another file.
pub(crate) fn identity(program: &str) -> Option<String> {
    let file = find::program_in(program.as_ref(), &path())?;
    let meta = std::fs::metadata(&file).ok()?;
    Some(format!(
        "{} {} {}.{}",
        file.display(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec()
    ))
}

/// Fails when less than `needed_mib` are free where `path` (or its nearest existing parent) lies.
pub(crate) fn require_space(path: &Path, stage: &str, needed_mib: u64) -> Result<(), BuildError> {
    let existing = path.ancestors().find(|dir| dir.is_dir());
    let existing = existing.unwrap_or(Path::new("/"));
    let free_mib = room::free_mib(existing).map_err(BuildError::io("look at", existing))?;
    if free_mib < needed_mib {
        return Err(BuildError::NoSpace {
            path: existing.to_owned(),
            stage: stage.into(),
            needed_mib,
            free_mib,
        });
    }
    Ok(())
}

/// Fails when less than `needed_mib` of memory are left for Packer's machine. On a host that does not say, it is
/// tried.
pub(crate) fn require_memory(needed_mib: u64) -> Result<(), BuildError> {
    match room::Memory::here() {
        Some(memory) if memory.available_mib < needed_mib => Err(BuildError::NoMemory {
            place: memory.place(),
            needed_mib,
            free_mib: memory.available_mib,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_missing_tools_are_named_at_once_with_one_command() {
        let missing = missing("/nonexistent".as_ref());
        assert!(missing.len() >= TOOLS.len());
        let error = BuildError::MissingTools { missing }.to_string();
        assert!(
            error.starts_with("missing on this host: apt-config, apt-get, cargo, debugfs"),
            "{error}"
        );
        assert!(
            error.contains("apt-get install -y apt cargo dosfstools dpkg e2fsprogs g"),
            "{error}"
        );
        assert!(
            error.contains(" packer qemu-system-x86 qemu-utils tar "),
            "{error}"
        );
    }

    #[test]
    fn a_program_is_found_in_the_path_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let packer = dir.path().join("packer");
        std::fs::write(&packer, "").expect("a file");
        let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&packer, runs).expect("a mode");
        let missing = missing(dir.path().as_os_str());
        assert!(!missing.iter().any(|tool| tool.program == "packer"));
        assert!(missing.iter().any(|tool| tool.program == "mmdebstrap"));
    }

    #[test]
    fn a_machine_that_memory_is_too_small_for_is_told_so() {
        require_memory(1).expect("a megabyte");
        let error = require_memory(u64::MAX >> 21).expect_err("no host is that big");
        assert_eq!(error.fault(), crate::Fault::Host);
        let text = BuildError::NoMemory {
            place: "the control group /b".into(),
            needed_mib: 2304,
            free_mib: 700,
        };
        assert_eq!(
            text.to_string(),
            "Packer's machine needs 2304 MiB of memory, of which the control group /b has 700 MiB left: \
             end what else runs there, or give the machine less with --memory"
        );
    }

    #[test]
    fn too_little_space_says_how_much_is_missing_where() {
        let dir = tempfile::tempdir().expect("a directory");
        require_space(dir.path(), "base", 1).expect("a megabyte");
        let below = dir.path().join("not/yet/there");
        let error = require_space(&below, "base", u64::MAX >> 21).expect_err("no disk is that big");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("not enough space in {}", dir.path().display())),
            "{text}"
        );
    }
}
