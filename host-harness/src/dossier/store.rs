//! Where dossiers are: drafts that appear whole or not at all, and room for only so many.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use keeper::draft::{self, Draft};
use keeper::lease::Lease;

use results::dossier::files;

/// An empty draft beside the dossiers in `home`, which is made if missing.
pub(super) fn begin(home: &Path) -> io::Result<Draft> {
    std::fs::create_dir_all(home)?;
    Draft::begin(home)
}

/// Removes the oldest dossiers in `home` until the rest takes at most `cap` bytes; `newest` stays
/// whatever it takes. Returns the bytes freed.
pub(super) fn evict(home: &Path, cap: u64, newest: &Path) -> io::Result<u64> {
    // Two processes that count at the same time would both remove.
    let _lock = Lease::wait(&home.join(".lock"))?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(home)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || !path.join(files::FACTS).is_file() {
            continue;
        }
        let written = std::fs::metadata(path.join(files::FACTS)).and_then(|meta| meta.modified());
        let bytes = size(&path)?;
        found.push((written.unwrap_or(SystemTime::UNIX_EPOCH), bytes, path));
    }
    found.sort();
    let mut total: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
    let mut freed = 0;
    for (_, bytes, path) in found.iter().filter(|(_, _, path)| path != newest) {
        if total <= cap {
            break;
        }
        draft::discard(path)?;
        total -= bytes;
        freed += bytes;
    }
    Ok(freed)
}

/// What a folder takes on disk, holes left out, in bytes.
pub(super) fn size(dir: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        total += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.blocks() * 512,
        };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn dossier(home: &Path, name: &str, age: u64) -> PathBuf {
        let dir = home.join(name);
        std::fs::create_dir(&dir).expect("a folder");
        std::fs::create_dir(dir.join("machine-1")).expect("a folder");
        std::fs::write(dir.join("machine-1/ram"), vec![1; 100 << 10]).expect("a file");
        let facts = File::create(dir.join(files::FACTS)).expect("a file");
        let written = SystemTime::now() - Duration::from_secs(age);
        facts.set_modified(written).expect("its time");
        dir
    }

    #[test]
    fn the_oldest_go_first_and_holes_cost_nothing() {
        let home = tempfile::tempdir().expect("a folder");
        let [old, middle, new] =
            [("b", 300), ("c", 200), ("a", 100)].map(|(n, age)| dossier(home.path(), n, age));
        let hole = File::create(new.join("machine-1/hole")).expect("a file");
        hole.set_len(1 << 40).expect("a hole");
        std::fs::create_dir(home.path().join(".draft-x")).expect("another's draft");
        let each = size(&old).expect("a size");
        assert!(each >= 100 << 10);
        assert_eq!(evict(home.path(), 3 * each, &new).expect("evicts"), 0);
        assert_eq!(evict(home.path(), 2 * each, &new).expect("evicts"), each);
        assert!(!old.exists() && middle.exists() && new.exists());
        assert_eq!(evict(home.path(), 0, &new).expect("evicts"), each);
        assert!(!middle.exists() && new.exists(), "the newest stays");
        assert!(home.path().join(".draft-x").exists());
    }

    #[test]
    fn a_dropped_draft_leaves_nothing_and_a_published_one_is_whole() {
        let home = tempfile::tempdir().expect("a folder");
        let dossiers = home.path().join("dossiers");
        let draft = begin(&dossiers).expect("a draft");
        std::fs::write(draft.dir().join("half"), "x").expect("a file");
        drop(draft);
        assert_eq!(std::fs::read_dir(&dossiers).expect("reads").count(), 0);
        let draft = begin(&dossiers).expect("a draft");
        std::fs::write(draft.dir().join("whole"), "x").expect("a file");
        draft.publish("name").expect("published");
        assert!(dossiers.join("name/whole").exists());
        assert_eq!(std::fs::read_dir(&dossiers).expect("reads").count(), 1);
    }
}
