//! How often the dear checks do what they do: data (`counts.toml`), read by whoever counts.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// Which column of the table counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// The share that a run of CI affords.
    Reduced,
    /// Everything that is promised.
    Whole,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// What is counted.
    what: String,
    ci: u64,
    nightly: u64,
}

/// A count as it is to be used, which shows itself as `25 of 500`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How often, in this run.
    pub times: u64,
    /// How often in a whole run.
    pub whole: u64,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.times, self.whole)
    }
}

static TABLE: LazyLock<BTreeMap<String, Row>> = LazyLock::new(|| {
    // The table is part of the program, and a test reads it.
    toml::from_str(include_str!("counts.toml")).unwrap_or_default()
});

impl Scale {
    /// The scale of this process: `VEXFS_COUNTS` (`ci` or `nightly`), else whole under nextest's
    /// `nightly` profile and reduced anywhere else.
    ///
    /// # Errors
    /// When the variable says something else.
    pub fn of_environment() -> Result<Scale, String> {
        let read = |name: &str| std::env::var(name).ok();
        Scale::from_words(
            read("VEXFS_COUNTS").as_deref(),
            read("NEXTEST_PROFILE").as_deref(),
        )
    }

    fn from_words(counts: Option<&str>, profile: Option<&str>) -> Result<Scale, String> {
        match (counts, profile) {
            (Some("nightly"), _) | (None, Some("nightly")) => Ok(Scale::Whole),
            (Some("ci"), _) | (None, _) => Ok(Scale::Reduced),
            (Some(other), _) => Err(format!(
                "VEXFS_COUNTS is `{other}`; it can be `ci` or `nightly`"
            )),
        }
    }

    /// The count of this name; `None` when the table has none.
    pub fn count(self, name: &str) -> Option<Count> {
        let row = TABLE.get(name)?;
        let times = match self {
            Scale::Reduced => row.ci,
            Scale::Whole => row.nightly,
        };
        let whole = row.nightly;
        Some(Count { times, whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        let table: BTreeMap<String, Row> =
            toml::from_str(include_str!("counts.toml")).expect("it parses");
        for (name, row) in table {
            assert!(0 < row.ci && row.ci <= row.nightly, "{name}: {row:?}");
            assert!(!row.what.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_nightly_run_counts_everything() {
        let count = |scale: Scale| scale.count("mount_cycles").expect("listed").to_string();
        assert_eq!(count(Scale::Whole), "500 of 500");
        assert_eq!(count(Scale::Reduced), "25 of 500");
        assert_eq!(Scale::Whole.count("no such row"), None);
    }

    #[test]
    fn the_environment_decides() {
        let scale = |counts, profile| Scale::from_words(counts, profile);
        assert_eq!(scale(None, None), Ok(Scale::Reduced));
        assert_eq!(scale(None, Some("ci")), Ok(Scale::Reduced));
        assert_eq!(scale(None, Some("nightly")), Ok(Scale::Whole));
        assert_eq!(scale(Some("ci"), Some("nightly")), Ok(Scale::Reduced));
        assert!(scale(Some("all"), None).is_err());
    }
}
