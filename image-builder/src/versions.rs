//! Versions of the host's tools: part of what an image is made from.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::host;
use crate::run::Site;

/// Tools that shape the result, how each tells its version, and the stage it belongs to.
const TOOLS: &[(&str, &[&str], &str)] = &[
    ("mmdebstrap", &["--version"], "base"),
    ("mke2fs", &["-V"], "base"),
    ("sgdisk", &["--version"], "disk"),
    ("grub-mkimage", &["--version"], "disk"),
    ("mkfs.vfat", &["/nonexistent"], "disk"),
    ("mcopy", &["--version"], "disk"),
    ("resize2fs", &[], "disk"),
    ("packer", &["version"], "image"),
    ("qemu-system-x86_64", &["--version"], "image"),
    ("debugfs", &["-V"], "image"),
    ("zstd", &["--version"], "seal"),
];

/// Versions by tool, with the stage each belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versions(Vec<(String, String, &'static str)>);

/// What `<cache>/tools.json` remembers: asking eight programs costs more than a build that has
/// nothing to do.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    identity: String,
    version: String,
}

impl Versions {
    /// Asks all tools, or remembers what each said when its file has not changed since.
    pub(crate) async fn ask(site: &Site<'_>) -> Result<Versions, BuildError> {
        let file = site.cache.join("tools.json");
        let mut known: BTreeMap<String, Known> = fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let mut versions = Vec::new();
        let mut learnt = false;
        for &(tool, arguments, stage) in TOOLS {
            let identity = host::identity(tool).unwrap_or_default();
            let version = match known.get(tool) {
                Some(known) if known.identity == identity => known.version.clone(),
                _ => {
                    let command = Site::program("sh")
                        // Some speak on standard error, and some end with an error without work.
                        .args(["-c", "\"$@\" 2>&1; :", "sh", tool])
                        .args(arguments.iter().copied());
                    let version = first_version(&site.output(tool, command).await?);
                    let entry = Known {
                        identity,
                        version: version.clone(),
                    };
                    known.insert(tool.into(), entry);
                    learnt = true;
                    version
                }
            };
            versions.push((tool.to_owned(), version, stage));
        }
        if learnt {
            let text = serde_json::to_vec_pretty(&known).unwrap_or_default();
            // Builds side by side may all have asked.
            keeper::draft::file(&file, text).map_err(BuildError::io("write", &file))?;
        }
        Ok(Versions(versions))
    }

    /// Tools of one stage with their versions.
    pub(crate) fn of(&self, stage: &str) -> Vec<(String, String)> {
        let of_stage = self.0.iter().filter(|(_, _, of)| *of == stage);
        of_stage
            .map(|(tool, version, _)| (tool.clone(), version.clone()))
            .collect()
    }

    /// All tools with their versions.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        self.0
            .iter()
            .map(|(tool, version, _)| (tool.clone(), version.clone()))
            .collect()
    }
}

/// The first word with a digit and a dot in it: `QEMU emulator version 7.2.22 (Debian …)`.
fn first_version(text: &str) -> String {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| "(),*v".contains(c)))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .unwrap_or("unknown")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_tools_say() {
        for (said, version) in [
            ("mmdebstrap 1.3.5\n", "1.3.5"),
            (
                "mke2fs 1.47.0 (5-Feb-2023)\n\tUsing EXT2FS Library version 1.47.0\n",
                "1.47.0",
            ),
            ("grub-mkimage (GRUB) 2.06-13+deb12u2\n", "2.06-13+deb12u2"),
            (
                "Packer v1.6.6\n\nYour version of Packer is out of date!",
                "1.6.6",
            ),
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n",
                "7.2.22",
            ),
            (
                "*** zstd command line interface 64-bits v1.5.4, by Yann Collet ***\n",
                "1.5.4",
            ),
            ("command not found\n", "unknown"),
        ] {
            assert_eq!(first_version(said), version);
        }
    }
}
