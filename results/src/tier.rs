//! How dear checks are.

use serde::{Deserialize, Serialize};

/// How dear a check is; `quick` runs include `boot-only` ones, `full` runs all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The image comes up.
    BootOnly,
    /// Minutes at most for all of them together.
    Quick,
    /// Everything.
    Full,
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Tier::BootOnly => "boot-only",
            Tier::Quick => "quick",
            Tier::Full => "full",
        })
    }
}
