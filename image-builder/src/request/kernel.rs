//! Which kernel an image gets: the distribution's, one compiled from its source, or both.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::request::data;

/// Folder with presets, their Kconfig fragments and the list of modules, below the workspace.
pub(crate) const HOME: &str = "provision/kernel";
const PRESETS: &str = "presets.toml";
/// The modules a compiled kernel keeps.
const MODULES: &str = "modules.list";

/// The kernels of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KernelChoice {
    /// The distribution's package.
    #[default]
    Distribution,
    /// Compiled from the distribution's source by this preset, instead of the package.
    Source(String),
    /// The package, which boots, and beside it one compiled by this preset, for a machine that asks.
    Both(String),
}

impl KernelChoice {
    /// The preset of the kernel that is compiled.
    pub(crate) fn preset(&self) -> Option<&str> {
        match self {
            KernelChoice::Distribution => None,
            KernelChoice::Source(preset) | KernelChoice::Both(preset) => Some(preset),
        }
    }

    /// Whether the distribution's package is in the image.
    pub(crate) fn has_package(&self) -> bool {
        !matches!(self, KernelChoice::Source(_))
    }
}

impl fmt::Display for KernelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelChoice::Distribution => f.write_str("distribution"),
            KernelChoice::Source(preset) => write!(f, "source:{preset}"),
            KernelChoice::Both(preset) => write!(f, "both:{preset}"),
        }
    }
}

impl FromStr for KernelChoice {
    type Err = String;

    fn from_str(word: &str) -> Result<KernelChoice, String> {
        let (kind, preset) = match word.split_once(':') {
            Some((kind, preset)) => (kind, Some(preset)),
            None => (word, None),
        };
        let named = |default: &str| {
            let preset = preset.unwrap_or(default);
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            match !preset.is_empty() && preset.chars().all(plain) {
                true => Ok(preset.to_owned()),
                false => Err(format!("`{preset}` is no name of a preset")),
            }
        };
        match kind {
            "distribution" if preset.is_none() => Ok(KernelChoice::Distribution),
            "source" => Ok(KernelChoice::Source(named("plain")?)),
            "both" => Ok(KernelChoice::Both(named("debug")?)),
            _ => Err(format!(
                "`{word}` is no kernel: it is distribution, source[:PRESET] or both[:PRESET]"
            )),
        }
    }
}

impl TryFrom<String> for KernelChoice {
    type Error = String;

    fn try_from(word: String) -> Result<KernelChoice, String> {
        word.parse()
    }
}

impl From<KernelChoice> for String {
    fn from(choice: KernelChoice) -> String {
        choice.to_string()
    }
}

/// One way to configure a kernel: a row of `presets.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preset {
    /// What it is for.
    pub(crate) about: String,
    /// Kconfig fragments, later ones win.
    fragments: Vec<String>,
    /// Folders of the kernel whose coverage KCOV records.
    #[serde(default)]
    pub(crate) covered: Vec<String>,
    /// How much slower everything is on it than on the distribution's kernel.
    pub(crate) slowdown: f64,
}

/// A kernel to compile, as far as the workspace's data says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Compiled {
    pub(crate) name: String,
    pub(crate) preset: Preset,
    /// Text of each fragment.
    pub(crate) fragments: Vec<(String, String)>,
    /// The modules it keeps.
    pub(crate) modules: Vec<String>,
}

impl Compiled {
    /// Reads a preset of the workspace with all it names.
    pub(crate) fn read(workspace: &Path, name: &str) -> Result<Compiled, BuildError> {
        let home = workspace.join(HOME);
        let read =
            |path: PathBuf| std::fs::read_to_string(&path).map_err(BuildError::io("read", path));
        let path = home.join(PRESETS);
        let text = read(path.clone())?;
        let mut presets: BTreeMap<String, Preset> = data::parse(&path, &text)?;
        let known: Vec<_> = presets.keys().cloned().collect();
        let preset = presets.remove(name).ok_or_else(|| BuildError::BadRequest {
            field: "--kernel",
            value: name.into(),
            remedy: format!("{HOME}/{PRESETS} has {}", known.join(" and ")),
        })?;
        let fragments = preset.fragments.iter().map(|file| {
            let text = read(home.join(file))?;
            Ok((file.clone(), text))
        });
        Ok(Compiled {
            name: name.into(),
            fragments: fragments.collect::<Result<_, BuildError>>()?,
            modules: words(&read(home.join(MODULES))?),
            preset,
        })
    }

    /// `uname -r` of it, for a source package's version: `6.1.192-vexfs-debug` of `6.1.192-2`.
    pub(crate) fn release(&self, version: &str) -> String {
        let upstream = version.split('-').next().unwrap_or(version);
        format!("{upstream}{}", self.local_version())
    }

    /// What is appended to the upstream version (`CONFIG_LOCALVERSION`).
    pub(crate) fn local_version(&self) -> String {
        format!("-vexfs-{}", self.name)
    }
}

/// The first words of lines that are no comments.
fn words(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        for word in ["distribution", "source:plain", "source:debug", "both:debug"] {
            let choice: KernelChoice = word.parse().expect("a choice");
            assert_eq!(choice.to_string(), word);
        }
        assert_eq!("source".parse(), Ok(KernelChoice::Source("plain".into())));
        assert_eq!("both".parse(), Ok(KernelChoice::Both("debug".into())));
        for word in ["", "sauce", "source:", "source:../x", "distribution:plain"] {
            assert!(word.parse::<KernelChoice>().is_err(), "{word}");
        }
    }

    #[test]
    fn every_preset_of_this_repository_can_be_read() {
        let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        for name in ["plain", "debug"] {
            let compiled = Compiled::read(workspace, name).expect("a preset");
            assert!(compiled.modules.contains(&"virtio_blk".into()));
            assert!(!compiled.fragments.is_empty() && compiled.preset.slowdown >= 1.0);
            assert!(!compiled.preset.about.is_empty());
            assert_eq!(
                compiled.release("6.1.192-2"),
                format!("6.1.192-vexfs-{name}")
            );
            assert_eq!(
                compiled.release("6.12.117-1~deb12u1"),
                format!("6.12.117-vexfs-{name}")
            );
        }
        let error = Compiled::read(workspace, "fast").expect_err("no such preset");
        let error = error.to_string();
        assert!(
            error.contains("`fast`") && error.contains("debug and plain"),
            "{error}"
        );
    }
}
