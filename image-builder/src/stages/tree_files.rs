//! What a source tree brings besides its module: the files its `vexfs-source.toml` has installed, and
//! what the scripts in the guest need to know of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use image::SourceConfig;

use crate::BuildError;
use crate::store::Entry;

/// In the payload: a line for each file, with its mode, its name there, and its path in the image.
const LIST: &str = "install.list";
/// In the payload: shell variables for the scripts.
const VARIABLES: &str = "source.env";

/// The files as they are called in the tree, in the order in which they are numbered.
pub(crate) fn words(config: &SourceConfig) -> String {
    let files: Vec<&str> = config.install.keys().map(String::as_str).collect();
    files.join(" ")
}

fn name(n: usize) -> String {
    format!("install-{n}")
}

/// Takes what the build has numbered in `from` into a stage's entry.
pub(crate) fn take(from: &Path, config: &SourceConfig, entry: &Path) -> Result<(), BuildError> {
    for n in 0..config.install.len() {
        let file = from.join(n.to_string());
        fs::copy(&file, entry.join(name(n))).map_err(BuildError::io("copy", file))?;
    }
    Ok(())
}

/// Puts them into the payload, with what the scripts need to know.
pub(crate) fn put(config: &SourceConfig, module: &Entry, payload: &Path) -> Result<(), BuildError> {
    let mut list = String::new();
    for (n, to) in config.install.values().enumerate() {
        let from = module.dir.join(name(n));
        let meta = fs::metadata(&from).map_err(BuildError::io("read", &from))?;
        let mode = if meta.permissions().mode() & 0o111 == 0 {
            "644"
        } else {
            "755"
        };
        list += &format!("{mode} {} {to}\n", name(n));
        fs::copy(&from, payload.join(name(n))).map_err(BuildError::io("copy", from))?;
    }
    // Neither has a character that means something to a shell: SourceConfig::parse sees to it.
    let variables = format!(
        "MOUNT_OPTIONS='{}'\nLACKS='{}'\n",
        config.mount_options,
        config.lacks.join(" ")
    );
    for (name, text) in [(LIST, list), (VARIABLES, variables)] {
        let path = payload.join(name);
        fs::write(&path, text).map_err(BuildError::io("write", path))?;
    }
    Ok(())
}
