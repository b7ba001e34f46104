//! `/etc/vexfs/vexfs.conf`: lines of `key = value`, `#` begins a comment, quotes are optional.

use serde::Serialize;
use std::path::{Path, PathBuf};

/// Where the file is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/vexfs/vexfs.conf";

/// How much the service says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what may be wrong.
    Warn,
    /// And what was done.
    Info,
    /// And why.
    Debug,
}

/// The file's content, with defaults for what it does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Version of VexFS the image was built with.
    pub version: String,
    /// Image variant.
    pub variant: String,
    /// Options every mount by the service gets, with commas between.
    pub default_mount_options: String,
    /// The mount option `vector_cache`: bytes, or with K, M, G.
    pub vector_cache_size: String,
    /// `false` mounts with `vector_cache=off`.
    pub vector_cache_enabled: bool,
    /// How much the service says.
    pub log_level: LogLevel,
    /// Where it says it besides the journal.
    pub log_file: Option<PathBuf>,
    /// What the service mounts besides fstab.
    pub device: Option<String>,
    /// Where it mounts that.
    pub mount_point: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            variant: "unknown".into(),
            default_mount_options: String::new(),
            vector_cache_size: "64M".into(),
            vector_cache_enabled: true,
            log_level: LogLevel::Info,
            log_file: None,
            device: None,
            mount_point: None,
        }
    }
}

/// All that is wrong with a configuration file, not only the first.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Lines that make no sense.
    #[error("{path} has mistakes:\n{}\ncorrect them, then run `vexctl config` to check", lines.join("\n"))]
    Lines {
        /// The file.
        path: PathBuf,
        /// One sentence each, with the line number.
        lines: Vec<String>,
    },
}

fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{value}` is neither true nor false")),
    }
}

/// Bytes of a size as the kernel's `memparse` reads it.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn absolute(value: &str) -> Result<Option<PathBuf>, String> {
    match value {
        "" => Ok(None),
        path if path.starts_with('/') => Ok(Some(path.into())),
        path => Err(format!("`{path}` is not an absolute path")),
    }
}

impl Config {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "version" => self.version = value.into(),
            "variant" => self.variant = value.into(),
            "default_mount_options" => {
                if value.contains(char::is_whitespace) {
                    return Err("options are separated by commas, without spaces".into());
                }
                self.default_mount_options = value.into();
            }
            "vector_cache_size" => {
                parse_size(value).ok_or(format!("`{value}` is not a size such as 64M"))?;
                self.vector_cache_size = value.into();
            }
            "vector_cache_enabled" => self.vector_cache_enabled = parse_bool(value)?,
            "log_level" => {
                self.log_level = match value {
                    "error" => LogLevel::Error,
                    "warn" | "warning" => LogLevel::Warn,
                    "info" => LogLevel::Info,
                    "debug" => LogLevel::Debug,
                    _ => return Err(format!("`{value}` is none of error, warn, info, debug")),
                };
            }
            "log_file" => self.log_file = absolute(value)?,
            "device" => self.device = (!value.is_empty()).then(|| value.into()),
            "mount_point" => self.mount_point = absolute(value)?,
            _ => return Err(format!("`{key}` is not a key this version knows")),
        }
        Ok(())
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// One sentence for each line that makes no sense.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut config = Self::default();
        let mut wrong = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let result = match line.split_once('=') {
                None => Err("is not `key = value`".to_owned()),
                Some((key, value)) => {
                    let value = value.trim();
                    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                    config.set(key.trim(), inner.unwrap_or(value))
                }
            };
            if let Err(why) = result {
                wrong.push(format!("line {}: {why}", number + 1));
            }
        }
        if config.device.is_some() != config.mount_point.is_some() {
            wrong.push("`device` and `mount_point` need each other".into());
        }
        if wrong.is_empty() {
            Ok(config)
        } else {
            Err(wrong)
        }
    }

    /// Reads the file at `path`; defaults if there is none.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read or makes no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|lines| ConfigError::Lines {
                path: path.into(),
                lines,
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(ConfigError::Read(path.into(), e)),
        }
    }

    /// The mount options the file asks for, on top of `given` (an fstab line's), which win.
    #[must_use]
    pub fn mount_options(&self, given: &str) -> String {
        let cache = if self.vector_cache_enabled {
            &self.vector_cache_size
        } else {
            "off"
        };
        let cache = format!("vector_cache={cache}");
        let mut options: Vec<&str> = vec![&cache];
        options.extend(self.default_mount_options.split(','));
        options.extend(given.split(','));
        options.retain(|option| !option.is_empty() && *option != "defaults");
        options.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_file_is_correct() {
        let config = Config::parse(include_str!("../../vexfs/vexfs.conf")).unwrap();
        assert_eq!(config.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(config.log_level, LogLevel::Info);
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let wrong = Config::parse(
            "# fine\nlog_level = loud\nvector_cache_size = many\nnonsense\ncolour = red\n\
             log_file = here\nvector_cache_enabled = perhaps\ndevice = /dev/vdb\n",
        )
        .unwrap_err();
        assert_eq!(wrong.len(), 7, "{wrong:?}");
        assert!(wrong[0].starts_with("line 2:"));
    }

    #[test]
    fn options_of_the_line_come_last_and_win() {
        let config = Config::parse("default_mount_options = noatime\nvector_cache_enabled = no");
        assert_eq!(
            config.unwrap().mount_options("defaults,ro"),
            "vector_cache=off,noatime,ro"
        );
        assert_eq!(parse_size("2G"), Some(2 << 30));
        assert_eq!(parse_size("2T"), None);
    }
}
