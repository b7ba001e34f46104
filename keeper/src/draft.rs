//! The one way to put a file or a folder in its place: written beside it, brought to the disk, and renamed, so
//! that whoever looks finds the old one or the new one, whole.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{Child, Kept};

/// How the names of folders in the making, or being removed, begin.
pub const PREFIX: &str = ".draft-";

/// Replaces a file by one with this content, which everybody may read. After a power cut it is the old one or
/// the new one.
///
/// # Errors
/// When it cannot be written; nothing is left of it then.
pub fn file(place: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let home = match place.parent() {
        Some(home) if !home.as_os_str().is_empty() => home,
        _ => Path::new("."),
    };
    let mut draft = tempfile::Builder::new().prefix(PREFIX).tempfile_in(home)?;
    draft.write_all(content.as_ref())?;
    // A temporary file is for its maker alone.
    let mode = Permissions::from_mode(0o644);
    draft.as_file().set_permissions(mode)?;
    draft.as_file().sync_all()?;
    draft.persist(place)?;
    sync(home)
}

/// A folder in the making. Dropped, it goes without a trace.
#[derive(Debug)]
pub struct Draft {
    dir: tempfile::TempDir,
    /// Removes the draft when we are killed.
    holder: Option<Child>,
}

impl Draft {
    /// An empty one in `home`, for its maker alone (mode 0700): guest memory may hold anything.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(home: &Path) -> io::Result<Draft> {
        let dir = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o700))
            .prefix(PREFIX)
            .tempdir_in(home)?;
        Ok(Draft { dir, holder: None })
    }

    /// Sees to it that it goes even if this process is killed.
    ///
    /// # Errors
    /// When no keeper comes up.
    pub async fn keep(&mut self) -> io::Result<()> {
        let holder = Kept::new("sleep").arg("infinity").remove_after(self.dir());
        self.holder = Some(holder.spawn().await?);
        Ok(())
    }

    /// Where its files go.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until its files are on the disk: for what is believed to be whole because it is there.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn sync(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir())? {
            sync(&entry?.path())?;
        }
        sync(self.dir())
    }

    /// Makes it appear under a name beside itself.
    ///
    /// # Errors
    /// When it cannot be renamed: the name is taken, for example.
    pub fn publish(self, name: &str) -> io::Result<()> {
        let Draft { dir, holder } = self;
        let place = dir.path().with_file_name(name);
        fs::rename(dir.path(), &place)?;
        // Nothing is left under the name that these remove.
        let _gone = dir.keep();
        drop(holder);
        place.parent().map_or(Ok(()), sync)
    }
}

/// Removes a folder at once for all who look, then its content. One that is not there is gone already.
///
/// # Errors
/// When it, or something in it, cannot be removed.
pub fn discard(place: &Path) -> io::Result<()> {
    if !place.exists() {
        return Ok(());
    }
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let doomed = place.with_file_name(format!("{PREFIX}removed-{name}"));
    fs::rename(place, &doomed)?;
    fs::remove_dir_all(doomed)
}

/// Brings a file, or which names a folder has, to the disk (fsync(2)).
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.collect()
    }

    #[test]
    fn a_file_is_replaced_and_for_everybody_to_read() {
        let home = tempfile::tempdir().expect("a folder");
        let place = home.path().join("report");
        file(&place, "old").expect("written");
        file(&place, "new").expect("written");
        assert_eq!(fs::read_to_string(&place).expect("a file"), "new");
        let mode = fs::metadata(&place).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        fs::create_dir(home.path().join("taken")).expect("a folder");
        file(&home.path().join("taken"), "x").expect_err("a folder is there");
        assert_eq!(names(home.path()).len(), 2, "{:?}", names(home.path()));
    }

    #[test]
    fn a_dropped_draft_leaves_nothing_and_a_published_one_is_whole() {
        let home = tempfile::tempdir().expect("a folder");
        let draft = Draft::begin(home.path()).expect("a draft");
        fs::write(draft.dir().join("half"), "x").expect("a file");
        drop(draft);
        assert!(names(home.path()).is_empty());
        let draft = Draft::begin(home.path()).expect("a draft");
        fs::create_dir(draft.dir().join("below")).expect("a folder");
        fs::write(draft.dir().join("whole"), "x").expect("a file");
        draft.sync().expect("on the disk");
        draft.publish("name").expect("published");
        assert_eq!(names(home.path()), ["name"]);
        let place = home.path().join("name");
        assert!(place.join("whole").exists());
        discard(&place).expect("removed");
        discard(&place).expect("removed already");
        assert!(names(home.path()).is_empty());
    }
}
