//! `vexfs-source.toml`: what is special about the file system under test. Another team's
//! out-of-tree file system is a matter of this file alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ImageError;

/// The file's name, in the root of a source tree.
pub const FILE: &str = "vexfs-source.toml";

/// What is said about a file-system source tree. The defaults fit a tree with `make vm-build` that
/// makes `vexfs.ko`, and no such file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// What to call it.
    pub name: String,
    /// The module, as modprobe(8) knows it.
    pub module: String,
    /// The file the build makes, relative to the tree.
    pub produced: String,
    /// The command that makes it, run in the tree with `KDIR` set to the kernel's headers.
    pub build: Vec<String>,
    /// The file system type, as mount(8) knows it.
    pub fstype: String,
    /// The command that makes a file system; the device is appended.
    pub mkfs: Vec<String>,
    /// The command that checks one; the device is appended.
    pub fsck: Vec<String>,
    /// Options for every mount, `a,b=c`.
    pub mount_options: String,
    /// The control tool.
    pub control: String,
    /// Debian packages the build needs besides compiler, make and kernel headers.
    pub build_packages: Vec<String>,
    /// Debian packages the image needs.
    pub runtime_packages: Vec<String>,
    /// Files of the tree, after its build, that the image needs besides the module: mkfs, fsck, the
    /// control tool; where each is in the tree, and its absolute path in the image.
    pub install: BTreeMap<String, String>,
    /// Capabilities the file system does not have; checks that need one are skipped with it as
    /// the reason.
    pub lacks: Vec<String>,
}

impl Default for SourceConfig {
    fn default() -> SourceConfig {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        SourceConfig {
            name: "vexfs".into(),
            module: "vexfs".into(),
            produced: "vexfs.ko".into(),
            build: words(&["make", "vm-build"]),
            fstype: "vexfs".into(),
            mkfs: words(&["mkfs.vexfs"]),
            fsck: words(&["fsck.vexfs"]),
            mount_options: String::new(),
            control: "vexctl".into(),
            build_packages: Vec::new(),
            runtime_packages: Vec::new(),
            install: BTreeMap::new(),
            lacks: Vec::new(),
        }
    }
}

impl SourceConfig {
    /// Whether it says that the file system lacks a capability.
    pub fn lacks(&self, capability: &str) -> bool {
        self.lacks.iter().any(|lack| lack == capability)
    }

    /// What the tree at `tree` says, or the defaults when it says nothing.
    ///
    /// # Errors
    /// [`ImageError::DataFile`] with line and column.
    pub fn of_tree(tree: &Path) -> Result<SourceConfig, ImageError> {
        let path = tree.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => SourceConfig::parse(&text, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(SourceConfig::default())
            }
            Err(error) => Err(ImageError::DataFile {
                path,
                said: format!(" {error}"),
            }),
        }
    }

    /// The mount(8) command for its file system, with the options it wants.
    pub fn mount_command(&self, device: &str, target: &str) -> String {
        let options = match self.mount_options.as_str() {
            "" => String::new(),
            options => format!("-o {options} "),
        };
        format!("mount -t {} {options}{device} {target}", self.fstype)
    }

    /// Reads the text of such a file; `path` is for messages.
    ///
    /// # Errors
    /// [`ImageError::DataFile`] with line and column.
    pub fn parse(text: &str, path: &Path) -> Result<SourceConfig, ImageError> {
        let bad = |said: String| ImageError::DataFile {
            path: path.to_owned(),
            said,
        };
        let config: SourceConfig = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = &text[..at.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
            bad(format!("{line}:{column}: {}", error.message()))
        })?;
        // These words end up in commands and paths inside the guest.
        for (key, value) in [
            ("module", &config.module),
            ("fstype", &config.fstype),
            ("control", &config.control),
        ] {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if value.is_empty() || !value.chars().all(plain) {
                return Err(bad(format!(" {key} = {value:?} is not a plain name")));
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,=:/+".contains(c);
        if !config.mount_options.chars().all(plain) {
            let options = &config.mount_options;
            return Err(bad(format!(
                " mount_options = {options:?} is no list of options"
            )));
        }
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if let Some(lack) = config.lacks.iter().find(|lack| !lack.chars().all(word)) {
            return Err(bad(format!(
                " lacks {lack:?}: a capability is a word like posix-acl"
            )));
        }
        let climbs = |path: &str| path.split('/').any(|part| part == "..");
        for (from, to) in &config.install {
            let fine = !from.starts_with(['/', '-'])
                && to.starts_with('/')
                && ![from, to]
                    .iter()
                    .any(|path| path.ends_with('/') || climbs(path) || !path.chars().all(plain));
            if !fine {
                return Err(bad(format!(
                    " install {from:?} = {to:?}: the first is a file in the tree, the second its \
                     absolute path in the image"
                )));
            }
        }
        if config.build.is_empty() || config.mkfs.is_empty() {
            return Err(bad(" build and mkfs must name a command".to_owned()));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        SourceConfig::parse(text, Path::new("t.toml"))
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let config = SourceConfig::parse("fstype = \"tinyfs\"\n", Path::new("t")).expect("parses");
        assert_eq!(config.fstype, "tinyfs");
        assert_eq!(config.build, ["make", "vm-build"]);
    }

    #[test]
    fn mistakes_are_named_with_line_and_column() {
        assert!(error("name = \"x\"\nmodul = \"y\"\n").starts_with("t.toml:2:1: unknown field"));
        assert!(error("name = \"x\nfstype = 1").contains("t.toml:1:"));
        assert!(error("module = \"x; rm\"").contains("plain name"));
        assert!(error("mkfs = []").contains("must name a command"));
        assert!(error("mount_options = \"a; b\"").contains("no list of options"));
        assert!(error("lacks = [\"$(x)\"]").contains("a capability is a word"));
        for install in [
            "\"../x\" = \"/x\"",
            "x = \"x\"",
            "x = \"/usr/../etc/x\"",
            "x = \"/a b\"",
        ] {
            let said = error(&format!("[install]\n{install}\n"));
            assert!(said.contains("absolute path in the image"), "{said}");
        }
    }
}
