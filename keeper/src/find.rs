//! Where the host has its programs.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An executable by name from `PATH`, or by path.
pub fn program(name: &Path) -> Option<PathBuf> {
    program_in(name, &std::env::var_os("PATH").unwrap_or_default())
}

/// As [`program`], with a `PATH` of the caller's.
pub fn program_in(name: &Path, path: &OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        return Some(name.to_owned()).filter(runs);
    }
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(runs)
}

/// Where cargo keeps what it has fetched and installed (the Cargo book, "Cargo Home").
pub fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_run_is_no_program() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("packer");
        std::fs::write(&file, "").expect("a file");
        let found = |name: &Path| program_in(name, dir.path().as_os_str());
        assert_eq!(found("packer".as_ref()), None);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("a mode");
        assert_eq!(found("packer".as_ref()), Some(file.clone()));
        assert_eq!(found(&file), Some(file), "by path");
        assert_eq!(found("qemu".as_ref()), None);
    }
}
