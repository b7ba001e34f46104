//! The verdict on an image, kept beside it in `verdict.json`, so that an unchanged image need not be
//! checked again by the same checks in the same way.
//!
//! A verdict speaks for its image only as long as everything it rests on is the same: the
//! [`Basis`]. The file holds each check's whole result, so that a report of a run that did not check
//! again can show what was seen, and says when.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checks::counts::Scale;
use crate::checks::{self, Check};
use crate::event::CaseResult;
use crate::lab::Setup;

/// The file beside `manifest.json`.
pub const FILE: &str = "verdict.json";
/// The only format this version reads.
const SCHEMA: u32 = 1;
/// Remembers the digest of this program in the cache folder.
const HARNESS: &str = "harness.json";
/// The property of a result that was not seen in this run.
const PROPERTY: &str = "verdict";

/// Everything a verdict rests on, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis(BTreeMap<String, String>);

impl Basis {
    /// What a verdict with this setup will rest on. `harness` is the digest of the program that runs
    /// the checks.
    pub fn of(setup: &Setup, harness: &str) -> Basis {
        let host = &setup.host;
        let facts = [
            ("image", setup.image.manifest.disk.sha256.clone()),
            ("harness", harness.to_owned()),
            ("check set", check_set()),
            ("tools disk", setup.tools.display().to_string()),
            ("accelerator", host.accel.chosen.to_string()),
            ("vsock backend", host.vsock.chosen.to_string()),
            ("QEMU", host.qemu.version.to_string()),
            (
                "boot deadline",
                format!("{} s", setup.boot_deadline.as_secs()),
            ),
            (
                "agent deadline",
                format!("{} s", setup.agent_deadline.as_secs()),
            ),
            ("second kernel", setup.second_kernel.to_string()),
            ("counts", format!("{:?}", Scale::of_environment())),
        ];
        Basis(facts.map(|(name, value)| (name.to_owned(), value)).into())
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

/// Digest of the rows of all checks.
fn check_set() -> String {
    let mut hasher = Sha256::new();
    for check in checks::REGISTRY {
        let row = format!(
            "{}\n{}\n{} {:?} {:?}\n",
            check.name, check.about, check.tier, check.start, check.deadline
        );
        hasher.update(row);
    }
    hex::encode(hasher.finalize())
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

/// The stored results of these checks, and when the oldest of them was kept (seconds since the
/// epoch).
///
/// # Errors
/// Why the checks have to run, as a sentence.
pub fn find(
    dir: &Path,
    basis: &Basis,
    checks: &[&'static Check],
) -> Result<(u64, Vec<CaseResult>), String> {
    let stored = read(dir)?;
    if let Some(changed) = basis.changed_since(&stored.basis) {
        return Err(changed);
    }
    let mut oldest = u64::MAX;
    let mut results = Vec::new();
    for check in checks {
        let of_check = |case: &&Case| case.result.case.check == check.name;
        let Some(case) = stored.cases.iter().find(of_check) else {
            return Err(format!("the stored verdict says nothing of {}", check.name));
        };
        let mut result = case.result.clone();
        if !result.outcome.is_ok() {
            return Err(format!("{} did not pass the last time", check.name));
        }
        if result.is_flaky() {
            return Err(format!("{} passed only when tried again", check.name));
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

/// The digest of this program: another harness may judge otherwise.
///
/// Hashing tens of megabytes would cost more than a run with nothing to do, so the digest is
/// remembered in `cache` with the file's identity as stat(2) tells it.
///
/// # Errors
/// When the program's file cannot be read.
pub fn harness_digest(cache: &Path) -> io::Result<String> {
    #[derive(PartialEq, Serialize, Deserialize)]
    struct Known {
        identity: String,
        sha256: String,
    }
    let program = std::env::current_exe()?;
    let meta = fs::metadata(&program)?;
    let identity = format!(
        "{} {} {} {}.{}",
        program.display(),
        meta.ino(),
        meta.len(),
        meta.ctime(),
        meta.ctime_nsec()
    );
    let file = cache.join(HARNESS);
    let known: Option<Known> = fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(known) = known.filter(|known| known.identity == identity) {
        return Ok(known.sha256);
    }
    let known = Known {
        identity,
        sha256: keeper::digest::file(&program)?,
    };
    // Without it the next run takes a moment longer.
    let _slow_next_time = serde_json::to_vec(&known).map(|text| fs::write(&file, text));
    Ok(known.sha256)
}

/// `2026-01-31 12:00:00 UTC` of seconds since the epoch.
pub fn utc(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let at = junit_report::OffsetDateTime::from_unix_timestamp(seconds);
    let at = at.unwrap_or(junit_report::OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (at.date(), at.time());
    format!(
        "{date} {:02}:{:02}:{:02} UTC",
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checks::{self, Tier};
    use crate::event::CaseId;
    use crate::runner::verdict::Outcome;

    fn basis(image: &str) -> Basis {
        let facts = [("image", image), ("harness", "h"), ("check set", "c")];
        Basis(facts.map(|(a, b)| (a.to_owned(), b.to_owned())).into())
    }

    fn result(check: &Check, outcome: Outcome) -> CaseResult {
        CaseResult {
            took: Duration::from_millis(1500),
            properties: vec![("boot-id".into(), "b1".into())],
            transcript: "$ true".into(),
            kernel_log: "[    0.0] Linux".into(),
            ..CaseResult::new(CaseId::new("minimal", check.tier, check.name), outcome)
        }
    }

    fn quick() -> Vec<&'static Check> {
        checks::selected(Tier::Quick, "").collect()
    }

    fn kept(outcome: impl Fn(&Check) -> Outcome) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let results = quick()
            .iter()
            .map(|check| result(check, outcome(check)))
            .collect();
        keep(dir.path(), basis("1"), &[], results).expect("kept");
        dir
    }

    #[test]
    fn a_passing_verdict_comes_back_whole_and_marked() {
        let dir = kept(|_| Outcome::Pass);
        let (at, results) = find(dir.path(), &basis("1"), &quick()).expect("stored");
        assert!(at > 1_700_000_000);
        assert_eq!(results.len(), quick().len());
        let first = &results[0];
        assert_eq!(first.kernel_log, "[    0.0] Linux");
        assert_eq!(first.took, Duration::from_millis(1500));
        let (name, value) = first.properties.last().expect("a property");
        assert_eq!(name, PROPERTY);
        assert!(value.contains(&utc(at)), "{value}");
        // Some of the checks are answered by a verdict of all of them.
        let some: Vec<_> = checks::selected(Tier::BootOnly, "").collect();
        assert!(find(dir.path(), &basis("1"), &some).is_ok());
    }

    #[test]
    fn what_changed_is_named() {
        let dir = kept(|_| Outcome::Pass);
        let why = find(dir.path(), &basis("2"), &quick()).expect_err("another image");
        assert_eq!(why, "changed since the stored verdict: image");
        let mut other = basis("1");
        other.0.insert("harness".into(), "another".into());
        other.0.insert("QEMU".into(), "9".into());
        let why = find(dir.path(), &other, &quick()).expect_err("another harness");
        assert_eq!(why, "changed since the stored verdict: QEMU, harness");
        let nowhere = tempfile::tempdir().expect("a directory");
        let why = find(nowhere.path(), &basis("1"), &quick()).expect_err("nothing");
        assert_eq!(why, "there is no stored verdict");
    }

    #[test]
    fn a_failure_and_a_missing_check_are_no_verdict() {
        let dir = kept(|check| match check.name {
            "stress" => Outcome::fail("check", "no", ""),
            _ => Outcome::Pass,
        });
        let why = find(dir.path(), &basis("1"), &quick()).expect_err("failed");
        assert_eq!(why, "stress did not pass the last time");
        // Also when somebody changed the word that sums it up.
        let file = dir.path().join(FILE);
        let text = fs::read_to_string(&file).expect("the file");
        let changed = text.replacen("\"outcome\":\"failed\"", "\"outcome\":\"passed\"", 1);
        assert_ne!(text, changed);
        fs::write(&file, changed).expect("the file");
        assert!(find(dir.path(), &basis("1"), &quick()).is_err());

        let dir = tempfile::tempdir().expect("a directory");
        let one = |n: usize| vec![result(quick()[n], Outcome::Pass)];
        keep(dir.path(), basis("1"), &[], one(0)).expect("kept");
        let why = find(dir.path(), &basis("1"), &quick()).expect_err("one of many");
        assert!(
            why.starts_with("the stored verdict says nothing of "),
            "{why}"
        );
        fs::write(dir.path().join(FILE), "{").expect("the file");
        assert!(find(dir.path(), &basis("1"), &quick()).is_err());
    }

    #[test]
    fn a_narrower_run_adds_to_a_verdict_and_does_not_replace_it() {
        let dir = kept(|_| Outcome::Pass);
        let stress = checks::find("stress").expect("a check");
        let failed = vec![result(stress, Outcome::fail("check", "no", ""))];
        keep(dir.path(), basis("1"), &[], failed).expect("kept");
        assert!(find(dir.path(), &basis("1"), &quick()).is_err());
        keep(
            dir.path(),
            basis("1"),
            &[],
            vec![result(stress, Outcome::Pass)],
        )
        .expect("kept");
        assert!(find(dir.path(), &basis("1"), &quick()).is_ok());
        // Of another image nothing stays.
        keep(
            dir.path(),
            basis("2"),
            &[],
            vec![result(stress, Outcome::Pass)],
        )
        .expect("kept");
        assert!(find(dir.path(), &basis("2"), &quick()).is_err());
        assert!(find(dir.path(), &basis("2"), &[stress]).is_ok());
    }

    #[test]
    fn the_program_is_hashed_once() {
        let cache = tempfile::tempdir().expect("a directory");
        let first = harness_digest(cache.path()).expect("a digest");
        assert_eq!(first.len(), 64);
        let file = cache.path().join(HARNESS);
        let marked = fs::read_to_string(&file)
            .expect("remembered")
            .replace(&first, "remembered");
        fs::write(&file, marked).expect("the file");
        assert_eq!(
            harness_digest(cache.path()).expect("a digest"),
            "remembered"
        );
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(utc(1_700_000_000), "2023-11-14 22:13:20 UTC");
    }
}
