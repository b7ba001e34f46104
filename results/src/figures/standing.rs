//! How an image does beside the earlier ones on this kind of host.
//!
//! What is kept and judged are ratios: what an operation costs on VexFS, to what it costs on ext4 (for a
//! search: by the kernel, to the same in user space) in the same guest. A host that is slow today
//! slows both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Fingerprint;
use super::record::write_whole;
use super::statistics::median;
use crate::Outcome;

/// The version of the file's layout.
const SCHEMA: u32 = 1;

/// How many runs are remembered.
const MOST: usize = 50;

/// Costs beside the peer's, by name.
pub type Ratios = BTreeMap<String, f64>;

/// What was measured on one kind of host with one variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    schema: u32,
    /// The kind of host, in words.
    host: Fingerprint,
    /// Oldest first.
    runs: Vec<Run>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Run {
    time: String,
    image_sha256: String,
    ratios: Ratios,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Margins {
    margin: BTreeMap<String, f64>,
}

/// How much worse does not count with this accelerator (`kvm`, `tcg`), as a share.
///
/// # Errors
/// When the table has no row for it.
pub fn margin(accelerator: &str) -> Result<f64, String> {
    let table: Margins =
        toml::from_str(include_str!("standing.toml")).map_err(|e| format!("standing.toml: {e}"))?;
    let found = table.margin.get(accelerator).copied();
    found.ok_or_else(|| format!("standing.toml has no margin for {accelerator}"))
}

/// The middle of several rounds.
pub fn middle(rounds: &[Ratios]) -> Ratios {
    let names = rounds.iter().flat_map(BTreeMap::keys);
    names
        .filter_map(|name| {
            let values: Vec<f64> = rounds.iter().filter_map(|r| r.get(name)).copied().collect();
            Some((name.clone(), median(&values)?))
        })
        .collect()
}

impl Standing {
    /// Where it is kept.
    pub fn path(cache: &Path, host: &Fingerprint) -> PathBuf {
        let name = format!("{}.json", host.variant);
        cache.join("performance").join(host.kind()).join(name)
    }

    /// What is kept of this kind of host; nothing the first time.
    ///
    /// # Errors
    /// A sentence, when the file cannot be read or is not of this kind of host.
    pub fn read(path: &Path, host: &Fingerprint) -> Result<Standing, String> {
        let remedy = "remove it to begin anew";
        let bad = |why: &dyn std::fmt::Display| {
            format!("the stored figures {}: {why}; {remedy}", path.display())
        };
        let standing: Standing = match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| bad(&e))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Standing {
                    schema: SCHEMA,
                    host: host.clone(),
                    runs: Vec::new(),
                });
            }
            Err(e) => return Err(bad(&e)),
        };
        if standing.schema != SCHEMA {
            return Err(bad(&format!("layout {} is not {SCHEMA}", standing.schema)));
        }
        standing.host.comparable(host).map_err(|e| bad(&e))?;
        Ok(standing)
    }

    /// How many runs are remembered.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is nothing to compare with.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// For a test that wants to see red: as if all of them had been twice as good.
    pub fn twice_as_good(&mut self, now: &Ratios) {
        let ratios = now.iter().map(|(name, ratio)| (name.clone(), ratio / 2.0));
        self.runs = vec![Run {
            time: String::new(),
            image_sha256: String::new(),
            ratios: ratios.collect(),
        }];
    }

    /// What each ratio is beside the stored ones: a case for JUnit. One that nobody has stored yet is
    /// skipped, and says so.
    pub fn judge(&self, now: &Ratios, margin: f64) -> Vec<(String, Outcome)> {
        let judge = |name: &String, ratio: f64| {
            let stored: Vec<f64> = self
                .runs
                .iter()
                .filter_map(|run| run.ratios.get(name))
                .copied()
                .collect();
            let Some(usual) = median(&stored) else {
                return Outcome::Skip {
                    reason: format!(
                        "nothing stored of this kind of host yet: {ratio:.2} times the peer's cost is \
                         stored now"
                    ),
                };
            };
            if ratio <= usual * (1.0 + margin) {
                return Outcome::Pass;
            }
            Outcome::fail(
                "performance",
                format!(
                    "{name} costs {ratio:.2} times what it costs the peer in the same guest; the median \
                     of {} earlier runs on this kind of host is {usual:.2}, and {:.0} % more does not \
                     count",
                    stored.len(),
                    margin * 100.0
                ),
                format!("earlier: {stored:.3?}"),
            )
        };
        now.iter()
            .map(|(name, ratio)| (name.clone(), judge(name, *ratio)))
            .collect()
    }

    /// Remembers a run, and forgets the oldest of too many.
    ///
    /// # Errors
    /// A sentence, when it cannot be written.
    pub fn keep(mut self, path: &Path, host: &Fingerprint, now: Ratios) -> Result<(), String> {
        self.runs.push(Run {
            time: super::record::now(),
            image_sha256: host.image_sha256.clone(),
            ratios: now,
        });
        let out = self.runs.len().saturating_sub(MOST);
        self.runs.drain(..out);
        let text = serde_json::to_string_pretty(&self).map_err(|e| e.to_string())?;
        write_whole(path, &text)
            .map_err(|e| format!("cannot store the figures in {}: {e}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::fingerprint::tests::somewhere;

    fn ratios(create: f64) -> Ratios {
        [
            ("fio/create".to_owned(), create),
            ("fio/stat".to_owned(), 1.0),
        ]
        .into()
    }

    fn failed(standing: &Standing, now: &Ratios) -> Vec<String> {
        let judged = standing.judge(now, 0.1).into_iter();
        let failed = judged.filter(|(_, outcome)| matches!(outcome, Outcome::Fail { .. }));
        failed.map(|(name, _)| name).collect()
    }

    #[test]
    fn the_first_run_is_stored_and_says_so_and_later_ones_are_judged_by_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = somewhere();
        let path = Standing::path(dir.path(), &host);
        let first = Standing::read(&path, &host).expect("nothing is there");
        assert!(first.is_empty());
        let judged = first.judge(&ratios(2.0), 0.1);
        assert!(
            judged
                .iter()
                .all(|(_, outcome)| matches!(outcome, Outcome::Skip { .. }))
        );
        first.keep(&path, &host, ratios(2.0)).expect("stored");
        let second = Standing::read(&path, &host).expect("read");
        assert_eq!(second.len(), 1);
        assert!(failed(&second, &ratios(2.1)).is_empty());
        assert!(
            failed(&second, &ratios(0.5)).is_empty(),
            "better is no failure"
        );
        assert_eq!(failed(&second, &ratios(2.3)), ["fio/create"]);
    }

    #[test]
    fn one_odd_run_among_the_stored_does_not_decide() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = somewhere();
        let path = Standing::path(dir.path(), &host);
        for create in [2.0, 2.02, 9.0] {
            let standing = Standing::read(&path, &host).expect("read");
            standing.keep(&path, &host, ratios(create)).expect("stored");
        }
        let standing = Standing::read(&path, &host).expect("read");
        assert_eq!(failed(&standing, &ratios(2.5)), ["fio/create"]);
    }

    #[test]
    fn figures_of_another_kind_of_host_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = somewhere();
        let path = Standing::path(dir.path(), &host);
        let standing = Standing::read(&path, &host).expect("nothing is there");
        standing.keep(&path, &host, ratios(1.0)).expect("stored");
        let mut other = host.clone();
        other.host.cores = 64;
        assert_ne!(Standing::path(dir.path(), &other), path);
        let said = Standing::read(&path, &other).expect_err("refused");
        assert!(
            said.contains("cores") && said.contains("remove it"),
            "{said}"
        );
        std::fs::write(&path, "{").expect("written");
        assert!(
            Standing::read(&path, &host)
                .expect_err("refused")
                .contains("begin anew")
        );
    }

    #[test]
    fn the_oldest_runs_are_forgotten() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = somewhere();
        let path = Standing::path(dir.path(), &host);
        for _ in 0..MOST + 3 {
            let standing = Standing::read(&path, &host).expect("read");
            standing.keep(&path, &host, ratios(1.0)).expect("stored");
        }
        assert_eq!(Standing::read(&path, &host).expect("read").len(), MOST);
    }

    #[test]
    fn the_middle_of_rounds() {
        let rounds = [ratios(1.0), ratios(9.0), ratios(2.0)];
        assert_eq!(middle(&rounds)["fio/create"], 2.0);
        assert!(margin("tcg").is_ok_and(|m| m > 0.0));
        assert!(margin("kvm").is_ok_and(|m| m > 0.0));
    }
}
