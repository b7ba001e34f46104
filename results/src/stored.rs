//! The verdict on an image, kept beside it in `verdict.json`, so that an unchanged image need not be
//! checked again by the same checks in the same way.
//!
//! A verdict speaks for its image only as long as everything it rests on is the same: the
//! [`Basis`]. The file holds each check's whole result, so that a report of a run that did not check
//! again can show what was seen, and says when.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::CaseResult;
use crate::clock::utc;

/// The file beside `manifest.json`.
pub const FILE: &str = "verdict.json";
/// The only format this version reads.
const SCHEMA: u32 = 1;
/// The property of a result that was not seen in this run.
const PROPERTY: &str = "verdict";

/// Everything a verdict rests on, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis(BTreeMap<String, String>);

impl Basis {
    /// One that rests on these, by name.
    pub fn new(facts: impl IntoIterator<Item = (String, String)>) -> Basis {
        Basis(facts.into_iter().collect())
    }

    /// What differs from an earlier one, as a sentence.
    fn changed_since(&self, earlier: &Basis) -> Option<String> {
        let names = self.0.keys().chain(earlier.0.keys());
        let mut changed: Vec<&str> = names
            .filter(|name| self.0.get(*name) != earlier.0.get(*name))
            .map(String::as_str)
            .collect();
        changed.dedup();
        (!changed.is_empty())
            .then(|| format!("changed since the stored verdict: {}", changed.join(", ")))
    }
}

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    schema: u32,
    basis: Basis,
    /// What the host was like, in words.
    host: Vec<(String, String)>,
    /// For a reader: what the results come to.
    outcome: Word,
    cases: Vec<Case>,
}

/// One result and when it was kept.
#[derive(Debug, Serialize, Deserialize)]
struct Case {
    /// Seconds since the epoch.
    at: u64,
    result: CaseResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// Every check passed, or was skipped with a reason.
    Passed,
    Failed,
}

fn read(dir: &Path) -> Result<Stored, String> {
    let stored: Stored = match fs::read(dir.join(FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| format!("the stored verdict cannot be read: {error}"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("there is no stored verdict".into());
        }
        Err(error) => return Err(format!("the stored verdict cannot be read: {error}")),
    };
    if stored.schema != SCHEMA {
        return Err("the stored verdict is of another format".into());
    }
    Ok(stored)
}

/// A verdict, for a reader.
#[derive(Debug)]
pub struct Verdict {
    /// SHA-256 of the image's disk it is about.
    pub image: String,
    /// What the host was like, in words.
    pub host: Vec<(String, String)>,
    /// Every result, and when it was kept, in seconds since the epoch.
    pub results: Vec<(u64, CaseResult)>,
}

/// The verdict beside the image in `dir`, whatever it is.
///
/// # Errors
/// Why there is none, as a sentence.
pub fn verdict(dir: &Path) -> Result<Verdict, String> {
    let stored = read(dir)?;
    Ok(Verdict {
        image: stored.basis.0.get("image").cloned().unwrap_or_default(),
        host: stored.host,
        results: stored
            .cases
            .into_iter()
            .map(|case| (case.at, case.result))
            .collect(),
    })
}

/// The stored results of the checks of these names, and when the oldest of them was kept (seconds since the
/// epoch).
///
/// # Errors
/// Why the checks have to run, as a sentence.
pub fn find(dir: &Path, basis: &Basis, checks: &[&str]) -> Result<(u64, Vec<CaseResult>), String> {
    let stored = read(dir)?;
    if let Some(changed) = basis.changed_since(&stored.basis) {
        return Err(changed);
    }
    let mut oldest = u64::MAX;
    let mut results = Vec::new();
    for check in checks {
        let of_check = |case: &&Case| case.result.case.check == **check;
        let Some(case) = stored.cases.iter().find(of_check) else {
            return Err(format!("the stored verdict says nothing of {check}"));
        };
        let mut result = case.result.clone();
        if !result.outcome.is_ok() {
            return Err(format!("{check} did not pass the last time"));
        }
        if result.is_flaky() {
            return Err(format!("{check} passed only when tried again"));
        }
        let text = format!("of {}; nothing it rests on has changed since", utc(case.at));
        result.properties.push((PROPERTY.into(), text));
        oldest = oldest.min(case.at);
        results.push(result);
    }
    Ok((oldest, results))
}

/// Keeps the results beside the image; those of other checks stay if they rest on the same.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(
    dir: &Path,
    basis: Basis,
    host: &[(String, String)],
    results: Vec<CaseResult>,
) -> io::Result<()> {
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut cases: Vec<Case> = match read(dir) {
        Ok(stored) if stored.basis == basis => stored.cases,
        _ => Vec::new(),
    };
    cases.retain(|case| {
        !results
            .iter()
            .any(|r| r.case.check == case.result.case.check)
    });
    cases.extend(results.into_iter().map(|result| Case { at, result }));
    let fine = cases.iter().all(|case| case.result.outcome.is_ok());
    let stored = Stored {
        schema: SCHEMA,
        basis,
        host: host.to_vec(),
        outcome: if fine { Word::Passed } else { Word::Failed },
        cases,
    };
    keeper::draft::file(&dir.join(FILE), serde_json::to_vec(&stored)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{CaseId, Outcome, Tier};

    fn basis(image: &str) -> Basis {
        let facts = [("image", image), ("harness", "h"), ("check set", "c")];
        Basis(facts.map(|(a, b)| (a.to_owned(), b.to_owned())).into())
    }

    const CHECKS: [&str; 3] = ["boots", "stress", "inventory"];

    fn result(check: &str, outcome: Outcome) -> CaseResult {
        CaseResult {
            took: Duration::from_millis(1500),
            properties: vec![("boot-id".into(), "b1".into())],
            transcript: "$ true".into(),
            kernel_log: "[    0.0] Linux".into(),
            ..CaseResult::new(CaseId::new("minimal", Tier::Quick, check), outcome)
        }
    }

    fn kept(outcome: impl Fn(&str) -> Outcome) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let results = CHECKS
            .iter()
            .map(|check| result(check, outcome(check)))
            .collect();
        keep(dir.path(), basis("1"), &[], results).expect("kept");
        dir
    }

    #[test]
    fn a_passing_verdict_comes_back_whole_and_marked() {
        let dir = kept(|_| Outcome::Pass);
        let (at, results) = find(dir.path(), &basis("1"), &CHECKS).expect("stored");
        assert!(at > 1_700_000_000);
        assert_eq!(results.len(), CHECKS.len());
        let first = &results[0];
        assert_eq!(first.kernel_log, "[    0.0] Linux");
        assert_eq!(first.took, Duration::from_millis(1500));
        let (name, value) = first.properties.last().expect("a property");
        assert_eq!(name, PROPERTY);
        assert!(value.contains(&utc(at)), "{value}");
        // Some of the checks are answered by a verdict of all of them.
        assert!(find(dir.path(), &basis("1"), &CHECKS[..1]).is_ok());
    }

    #[test]
    fn what_changed_is_named() {
        let dir = kept(|_| Outcome::Pass);
        let why = find(dir.path(), &basis("2"), &CHECKS).expect_err("another image");
        assert_eq!(why, "changed since the stored verdict: image");
        let mut other = basis("1");
        other.0.insert("harness".into(), "another".into());
        other.0.insert("QEMU".into(), "9".into());
        let why = find(dir.path(), &other, &CHECKS).expect_err("another harness");
        assert_eq!(why, "changed since the stored verdict: QEMU, harness");
        let nowhere = tempfile::tempdir().expect("a directory");
        let why = find(nowhere.path(), &basis("1"), &CHECKS).expect_err("nothing");
        assert_eq!(why, "there is no stored verdict");
    }

    #[test]
    fn a_failure_and_a_missing_check_are_no_verdict() {
        let dir = kept(|check| match check {
            "stress" => Outcome::fail("check", "no", ""),
            _ => Outcome::Pass,
        });
        let why = find(dir.path(), &basis("1"), &CHECKS).expect_err("failed");
        assert_eq!(why, "stress did not pass the last time");
        // Also when somebody changed the word that sums it up.
        let file = dir.path().join(FILE);
        let text = fs::read_to_string(&file).expect("the file");
        let changed = text.replacen("\"outcome\":\"failed\"", "\"outcome\":\"passed\"", 1);
        assert_ne!(text, changed);
        fs::write(&file, changed).expect("the file");
        assert!(find(dir.path(), &basis("1"), &CHECKS).is_err());

        let dir = tempfile::tempdir().expect("a directory");
        let one = |n: usize| vec![result(CHECKS[n], Outcome::Pass)];
        keep(dir.path(), basis("1"), &[], one(0)).expect("kept");
        let why = find(dir.path(), &basis("1"), &CHECKS).expect_err("one of many");
        assert!(
            why.starts_with("the stored verdict says nothing of "),
            "{why}"
        );
        fs::write(dir.path().join(FILE), "{").expect("the file");
        assert!(find(dir.path(), &basis("1"), &CHECKS).is_err());
    }

    #[test]
    fn a_narrower_run_adds_to_a_verdict_and_does_not_replace_it() {
        let dir = kept(|_| Outcome::Pass);
        let stress = "stress";
        let failed = vec![result(stress, Outcome::fail("check", "no", ""))];
        keep(dir.path(), basis("1"), &[], failed).expect("kept");
        assert!(find(dir.path(), &basis("1"), &CHECKS).is_err());
        keep(
            dir.path(),
            basis("1"),
            &[],
            vec![result(stress, Outcome::Pass)],
        )
        .expect("kept");
        assert!(find(dir.path(), &basis("1"), &CHECKS).is_ok());
        // Of another image nothing stays.
        keep(
            dir.path(),
            basis("2"),
            &[],
            vec![result(stress, Outcome::Pass)],
        )
        .expect("kept");
        assert!(find(dir.path(), &basis("2"), &CHECKS).is_err());
        assert!(find(dir.path(), &basis("2"), &[stress]).is_ok());
    }
}
