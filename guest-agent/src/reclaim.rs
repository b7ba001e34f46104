//! Having the kernel give back what it only keeps, so that what is left can be counted. Whether that
//! is a leak is the host's to say.

use std::io;
use std::path::Path;

use agent_protocol::{Fault, FaultKind, MAX_ITEMS, Reply};

use crate::off_thread;

/// Writes out what is dirty, drops clean pages, inodes and entries (kernel:
/// admin-guide/sysctl/vm.rst, `drop_caches`), and shrinks the slab caches whose name begins with
/// `caches` (kernel: ABI/testing/sysfs-kernel-slab).
///
/// # Errors
/// Without a name, and with the kernel's errno.
pub async fn reclaim(caches: String) -> Result<Reply, Fault> {
    if caches.is_empty() {
        let message = "which slab caches? An empty name means all of them";
        return Err(Fault::new(FaultKind::Invalid, message));
    }
    off_thread(move || {
        nix::unistd::sync();
        let drop = "/proc/sys/vm/drop_caches";
        std::fs::write(drop, "3").map_err(|error| Fault::from_io(drop, &error))?;
        let slabs = "/sys/kernel/slab";
        let merged =
            shrink(Path::new(slabs), &caches).map_err(|error| Fault::from_io(slabs, &error))?;
        Ok(Reply::Reclaimed { merged })
    })
    .await
}

/// Shrinks the caches of that name and returns which of them are merged: those are symbolic links to
/// a cache of another name (mm/slub.c, `sysfs_slab_alias`).
fn shrink(slabs: &Path, caches: &str) -> io::Result<Vec<String>> {
    let mut merged = Vec::new();
    let entries = match std::fs::read_dir(slabs) {
        Ok(entries) => entries,
        // A kernel built without SLUB's sysfs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(merged),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(caches) {
            continue;
        }
        match std::fs::write(entry.path().join("shrink"), "1") {
            // The module's last cache may go while we look.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if entry.file_type()?.is_symlink() && merged.len() < MAX_ITEMS {
            merged.push(name);
        }
    }
    merged.sort_unstable();
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_caches_of_the_name_are_shrunk_and_merged_ones_are_named() {
        let slabs = tempfile::tempdir().expect("a folder");
        let shrink_file = |name: &str| slabs.path().join(name).join("shrink");
        for name in [":0000104", "vexfs_inode", "ext4_inode"] {
            std::fs::create_dir(slabs.path().join(name)).expect("a cache");
            std::fs::write(shrink_file(name), "").expect("its file");
        }
        std::os::unix::fs::symlink(":0000104", slabs.path().join("vexfs_extent"))
            .expect("an alias");
        let merged = shrink(slabs.path(), "vexfs").expect("shrinks");
        assert_eq!(merged, ["vexfs_extent"]);
        let written = |name| std::fs::read_to_string(shrink_file(name)).expect("readable");
        assert_eq!(written("vexfs_inode"), "1");
        assert_eq!(written(":0000104"), "1");
        assert_eq!(written("ext4_inode"), "");
    }

    #[test]
    fn a_kernel_without_the_folder_has_nothing_to_shrink() {
        let nowhere = Path::new("/nonexistent/slab");
        assert_eq!(shrink(nowhere, "vexfs").expect("no error"), [""; 0]);
    }

    #[tokio::test]
    async fn all_caches_at_once_are_not_to_be_had() {
        let fault = reclaim(String::new()).await.expect_err("refused");
        assert_eq!(fault.kind, FaultKind::Invalid);
    }
}
