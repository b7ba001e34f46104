//! Source trees: their digest, a copy to build in, and an archive.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::run::Site;

/// Folders that are no part of a tree's source.
const SKIPPED_DIRS: &[&str] = &[".git", "target", "out", ".tmp_versions"];
/// What a kernel build in the tree leaves there.
const PRODUCTS: &[&str] = &["ko", "o", "a", "mod", "cmd", "order", "symvers", "d"];

/// Time of the files the build itself brings: the same for everybody.
pub(crate) const FILE_TIME: &str = "@1700000000";

/// One entry of a tree, relative to its root.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    File { executable: bool },
    Link { target: PathBuf },
}

/// Every source file of the tree at `root`, sorted by path.
pub(crate) fn list(root: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    walk(root, Path::new(""), &mut entries)?;
    entries.sort();
    Ok(entries)
}

fn walk(root: &Path, below: &Path, out: &mut Vec<Entry>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = below.join(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !SKIPPED_DIRS.iter().any(|skipped| name == *skipped) {
                walk(root, &path, out)?;
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            out.push(Entry {
                path,
                kind: Kind::Link { target },
            });
        } else if kind.is_file() && !is_product(&path) {
            let executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
            out.push(Entry {
                path,
                kind: Kind::File { executable },
            });
        }
    }
    Ok(())
}

fn is_product(path: &Path) -> bool {
    let product = |extension: &OsStr| PRODUCTS.iter().any(|p| extension == *p);
    // `vexfs.mod.c` is made by modpost.
    path.extension().is_some_and(product) || path.to_string_lossy().ends_with(".mod.c")
}

/// Digest over every path, kind, executable bit and content.
pub(crate) fn digest(root: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for entry in list(root)? {
        part(entry.path.as_os_str().as_encoded_bytes());
        match &entry.kind {
            Kind::File { executable } => {
                part(if *executable { b"x" } else { b"f" });
                part(&fs::read(root.join(&entry.path))?);
            }
            Kind::Link { target } => {
                part(b"l");
                part(target.as_os_str().as_encoded_bytes());
            }
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Copies the source files of `from` into `to`, with modes 755 and 644.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in list(from)? {
        let target = to.join(&entry.path);
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir)?;
        }
        match entry.kind {
            Kind::File { executable } => {
                fs::copy(from.join(&entry.path), &target)?;
                let mode = if executable { 0o755 } else { 0o644 };
                fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
            }
            Kind::Link { target: points_to } => symlink(points_to, &target)?,
        }
    }
    Ok(())
}

/// What [`update`] did to a copy.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Update {
    /// Files that are new or differ, relative to the tree, in order.
    pub(crate) changed: Vec<PathBuf>,
    /// All that is in the copy from now on.
    pub(crate) all: Vec<PathBuf>,
}

/// Brings a copy that [`copy`] or an earlier call made up to date, touching only what differs: what
/// was made from the rest stays newer than it. What is gone from the tree stays in the copy.
pub(crate) fn update(from: &Path, to: &Path) -> io::Result<Update> {
    let mut update = Update::default();
    for entry in list(from)? {
        let (source, target) = (from.join(&entry.path), to.join(&entry.path));
        let changed = match &entry.kind {
            Kind::File { executable } => update_file(&source, &target, *executable)?,
            Kind::Link { target: points_to } => {
                let same = fs::read_link(&target).is_ok_and(|old| old == *points_to);
                if !same {
                    make_room(&target)?;
                    symlink(points_to, &target)?;
                }
                !same
            }
        };
        if changed {
            update.changed.push(entry.path.clone());
        }
        update.all.push(entry.path);
    }
    Ok(update)
}

/// Whether [`update`] would find nothing to do, for a copy that has these files.
pub(crate) fn is_current(from: &Path, to: &Path, all: &[PathBuf]) -> io::Result<bool> {
    let entries = list(from)?;
    if entries.len() != all.len() || entries.iter().zip(all).any(|(a, b)| a.path != *b) {
        return Ok(false);
    }
    for Entry { path, kind } in entries {
        let same = match kind {
            Kind::File { executable } => {
                is_same(&fs::read(from.join(&path))?, &to.join(&path), executable)
            }
            Kind::Link { target } => fs::read_link(to.join(&path)).is_ok_and(|old| old == target),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn update_file(source: &Path, target: &Path, executable: bool) -> io::Result<bool> {
    let content = fs::read(source)?;
    let same = is_same(&content, target, executable);
    if !same {
        make_room(target)?;
        fs::write(target, content)?;
        fs::set_permissions(target, fs::Permissions::from_mode(mode(executable)))?;
    }
    Ok(!same)
}

fn mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

fn is_same(content: &[u8], target: &Path, executable: bool) -> bool {
    fs::symlink_metadata(target).is_ok_and(|old| {
        old.is_file()
            && old.permissions().mode() & 0o777 == mode(executable)
            && old.len() == content.len() as u64
            && fs::read(target).is_ok_and(|old| old == content)
    })
}

fn make_room(target: &Path) -> io::Result<()> {
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::symlink_metadata(target) {
        Ok(old) if old.is_dir() => fs::remove_dir_all(target),
        Ok(_) => fs::remove_file(target),
        Err(_) => Ok(()),
    }
}

/// tar(1) of a folder's content, the same bytes for the same files.
pub(crate) fn archive(dir: &Path, to: &Path) -> keeper::Kept {
    Site::program("tar")
        .args(["--create", "--sort=name", "--format=gnu", "--numeric-owner"])
        .args(["--owner=0", "--group=0", &format!("--mtime={FILE_TIME}")])
        .arg(format!("--file={}", to.display()))
        .arg(format!("--directory={}", dir.display()))
        .arg(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("its parent");
            fs::write(path, text).expect("a file");
        };
        put("super.c", "int x;");
        put("uapi/vexfs.h", "#define A 1");
        put(".git/HEAD", "ref");
        put("super.o", "object");
        put("vexfs.mod.c", "made");
        dir
    }

    #[test]
    fn products_and_history_do_not_count() {
        let dir = tree();
        let before = digest(dir.path()).expect("a digest");
        fs::write(dir.path().join("super.o"), "another").expect("a file");
        fs::write(dir.path().join(".git/HEAD"), "another").expect("a file");
        assert_eq!(digest(dir.path()).expect("a digest"), before);
    }

    #[test]
    fn content_name_and_mode_count() {
        let dir = tree();
        let mut seen = vec![digest(dir.path()).expect("a digest")];
        let file = dir.path().join("super.c");
        fs::write(&file, "int y;").expect("a file");
        seen.push(digest(dir.path()).expect("a digest"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
        seen.push(digest(dir.path()).expect("a digest"));
        fs::rename(&file, dir.path().join("inode.c")).expect("a rename");
        seen.push(digest(dir.path()).expect("a digest"));
        let mut unique = seen.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), seen.len());
    }

    #[test]
    fn a_copy_has_the_same_digest() {
        let dir = tree();
        let to = tempfile::tempdir().expect("a temporary directory");
        copy(dir.path(), to.path()).expect("a copy");
        assert_eq!(
            digest(dir.path()).expect("one"),
            digest(to.path()).expect("other")
        );
        assert!(!to.path().join("super.o").exists());
    }

    #[test]
    fn an_update_touches_only_what_differs() {
        let dir = tree();
        let to = tempfile::tempdir().expect("a temporary directory");
        let first = update(dir.path(), to.path()).expect("an update");
        assert_eq!(first.changed, first.all);
        let current = || is_current(dir.path(), to.path(), &first.all).expect("readable");
        assert!(current());
        assert_eq!(
            digest(dir.path()).expect("one"),
            digest(to.path()).expect("other")
        );
        let age = |name: &str| {
            let meta = fs::metadata(to.path().join(name)).expect("a file");
            meta.modified().expect("a time")
        };
        let before = (age("super.c"), age("uapi/vexfs.h"));
        fs::write(dir.path().join("super.c"), "int z;").expect("a file");
        fs::write(to.path().join("super.o"), "made").expect("a file");
        assert!(!current());
        let second = update(dir.path(), to.path()).expect("an update");
        assert_eq!(second.changed, [PathBuf::from("super.c")]);
        assert_eq!(age("uapi/vexfs.h"), before.1);
        assert!(to.path().join("super.o").exists());
        assert!(
            update(dir.path(), to.path())
                .expect("an update")
                .changed
                .is_empty()
        );
        fs::remove_file(dir.path().join("super.c")).expect("removed");
        symlink("uapi/vexfs.h", dir.path().join("super.c")).expect("a link");
        let third = update(dir.path(), to.path()).expect("an update");
        assert_eq!(third.changed, [PathBuf::from("super.c")]);
    }
}
