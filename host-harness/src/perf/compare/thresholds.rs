//! What is judged and how strictly: data (`thresholds.toml`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use results::figures::Direction;
use results::figures::statistics::FEWEST_PAIRS;

/// The table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// How many pairs.
    pub pairs: Pairs,
    /// By name.
    pub metric: BTreeMap<String, Threshold>,
}

/// How many pairs of measurements a verdict may rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairs {
    /// At least.
    pub fewest: usize,
    /// At most; what is unsure then stays so.
    pub most: usize,
}

/// How one metric is judged.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Which way is better.
    pub direction: Direction,
    /// How much does not count, as a share.
    pub margin: f64,
}

impl Default for Thresholds {
    /// The table this program was built with.
    fn default() -> Thresholds {
        // A test reads it.
        Thresholds::parse(include_str!("thresholds.toml")).unwrap_or(Thresholds {
            pairs: Pairs {
                fewest: FEWEST_PAIRS,
                most: FEWEST_PAIRS,
            },
            metric: BTreeMap::new(),
        })
    }
}

impl Thresholds {
    /// Reads a file.
    ///
    /// # Errors
    /// A sentence with the place.
    pub fn read(path: &Path) -> Result<Thresholds, String> {
        let bad = |why: &dyn std::fmt::Display| format!("thresholds {}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| bad(&e))?;
        Thresholds::parse(&text).map_err(|e| bad(&e))
    }

    fn parse(text: &str) -> Result<Thresholds, String> {
        let table: Thresholds = toml::from_str(text).map_err(|e| e.to_string())?;
        let Pairs { fewest, most } = table.pairs;
        if fewest < FEWEST_PAIRS || most < fewest {
            return Err(format!(
                "{fewest} to {most} pairs cannot be: at least {FEWEST_PAIRS}, and no fewer at most \
                 than at least"
            ));
        }
        let sound = |t: &Threshold| t.margin > 0.0 && t.margin < 1.0;
        match table.metric.iter().find(|(_, t)| !sound(t)) {
            Some((name, t)) => Err(format!(
                "the margin of {name} is {}: it is a share between 0 and 1",
                t.margin
            )),
            None if table.metric.is_empty() => Err("it judges nothing".into()),
            None => Ok(table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound_and_judges_all_that_is_measured() {
        let table = Thresholds::parse(include_str!("thresholds.toml")).expect("it parses");
        for job in crate::perf::fio::JOBS {
            let name = format!("fio/{}", job.name);
            assert!(table.metric.contains_key(&name), "{name}");
        }
        assert_eq!(table, Thresholds::default());
    }

    #[test]
    fn mistakes_are_sentences() {
        let text = |pairs: &str, margin: &str| {
            format!("[pairs]\n{pairs}\n[metric.a]\ndirection = \"lower\"\nmargin = {margin}\n")
        };
        let said = |text: &str| Thresholds::parse(text).expect_err("a mistake");
        assert!(Thresholds::parse(&text("fewest = 4\nmost = 8", "0.1")).is_ok());
        assert!(said(&text("fewest = 1\nmost = 8", "0.1")).contains("at least 4"));
        assert!(said(&text("fewest = 4\nmost = 3", "0.1")).contains("4 to 3"));
        assert!(said(&text("fewest = 4\nmost = 8", "5")).contains("margin of a"));
        assert!(said(&text("fewest = 4\nmost = 8\nfew = 1", "0.1")).contains("few"));
        assert!(said("[pairs]\nfewest = 4\nmost = 8\n[metric]\n").contains("nothing"));
    }
}
