//! Where a running machine keeps its sockets, overlay and secret, and how they go away.
//!
//! One short directory per machine (a Unix socket's path has at most 107 bytes, unix(7)), readable
//! by its owner only. It is held by a process of its own below a keeper, not by QEMU's keeper: what
//! a dead machine leaves behind is wanted for as long as somebody holds the [`super::Machine`].

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use keeper::Kept;

use super::MachineError;

/// The private directory of one machine. Removed when dropped, and when this process ends in any
/// way.
#[derive(Debug)]
pub struct RunDir {
    id: String,
    path: PathBuf,
    /// Removes the directory when it goes.
    _holder: keeper::Child,
}

impl RunDir {
    /// Makes the directory `vexfs-ID` (mode 0700) in `$VEXFS_RUN_DIR`, or else in `/tmp`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn create() -> Result<RunDir, MachineError> {
        let parent = run_parent();
        let id: [u8; 5] = super::random().map_err(MachineError::io("cannot draw a machine id"))?;
        let id = hex::encode(id);
        let path = parent.join(format!("vexfs-{id}"));
        // First the one who removes, then what is to be removed: there is no moment at which our
        // death would leave something behind.
        let holder = Kept::new("sleep")
            .arg("infinity")
            .remove_after(&path)
            .remove_after(ram_file(&id))
            .spawn()
            .await
            .map_err(MachineError::io(
                "cannot start the keeper of a machine's directory",
            ))?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(MachineError::io(format!("cannot make {}", path.display())))?;
        Ok(RunDir {
            id,
            path,
            _holder: holder,
        })
    }

    /// The machine's id: ten hex digits, unique on this host.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where this machine's memory goes if it has to be a file: on a tmpfs unless `$VEXFS_RAM_DIR` names another
    /// folder, outside the directory but removed with it.
    pub fn ram_file(&self) -> PathBuf {
        ram_file(&self.id)
    }

    /// Writes a file (mode 0600) into the directory and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, MachineError> {
        let path = self.path.join(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(MachineError::io(format!("cannot write {}", path.display())))?;
        Ok(path)
    }
}

/// Where the directories of running machines are: `$VEXFS_RUN_DIR`, or else `/tmp`.
pub fn run_parent() -> PathBuf {
    std::env::var_os("VEXFS_RUN_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

/// Where memory goes that has to be a file: `$VEXFS_RAM_DIR`, or else `/dev/shm`. On a disk it works too, and
/// slower: the kernel writes back what the guest touches.
pub(crate) fn ram_parent() -> PathBuf {
    let named = std::env::var_os("VEXFS_RAM_DIR").filter(|dir| !dir.is_empty());
    named.map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from)
}

fn ram_file(id: &str) -> PathBuf {
    ram_parent().join(format!("vexfs-{id}.ram"))
}
