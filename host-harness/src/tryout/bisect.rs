//! Which commit broke it: a search between a good and a bad one.
//!
//! What git-bisect(1) does, by its plumbing: git orders what is left by how much an answer would tell,
//! and here is asked, counted and remembered. Nothing is written into the user's repository, so there is
//! nothing to restore, however this ends.

use std::collections::BTreeSet;

/// What a test says of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<E> {
    /// It holds.
    Good,
    /// It does not, and why.
    Bad(E),
    /// Nothing can be said of it: it does not build.
    Untestable,
}

/// What came of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<E> {
    /// This commit is the first bad one.
    First {
        /// It.
        commit: String,
        /// What its test found.
        evidence: E,
    },
    /// One of these is, the newest first; all but that one cannot be tested.
    OneOf {
        /// They.
        commits: Vec<String>,
        /// What the test of the newest found.
        evidence: E,
    },
}

/// Commits between others.
pub trait History {
    /// Why nothing can be known of it.
    type Error;

    /// All commits that `bad` contains and no `good` does, itself among them, those first whose test
    /// tells most.
    fn between(
        &self,
        bad: &str,
        good: &[String],
    ) -> impl Future<Output = Result<Vec<String>, Self::Error>>;
}

/// Finds the first bad commit. `bad` was tested already and found bad by `evidence`; `good` was found
/// good. `ask` tests a commit, and is told how many others are left then.
///
/// # Errors
/// Those of the history and of the tests.
pub async fn search<H: History, E>(
    history: &H,
    good: String,
    bad: String,
    evidence: E,
    mut ask: impl AsyncFnMut(&str, usize) -> Result<Answer<E>, H::Error>,
) -> Result<Verdict<E>, H::Error> {
    let (mut good, mut bad, mut evidence) = (vec![good], bad, evidence);
    let mut untestable = BTreeSet::new();
    loop {
        let left = history.between(&bad, &good).await?;
        let open = left
            .iter()
            .filter(|commit| **commit != bad && !untestable.contains(*commit));
        let Some(next) = open.clone().next().cloned() else {
            let mut commits = vec![bad.clone()];
            commits.extend(left.into_iter().filter(|commit| *commit != bad));
            return Ok(match commits.len() {
                1 => Verdict::First {
                    commit: bad,
                    evidence,
                },
                _ => Verdict::OneOf { commits, evidence },
            });
        };
        match ask(&next, open.count() - 1).await? {
            Answer::Good => good.push(next),
            Answer::Bad(found) => (bad, evidence) = (next, found),
            Answer::Untestable => drop(untestable.insert(next)),
        }
    }
}

/// How many tests are still to come, about, with so many commits left.
pub fn steps(left: usize) -> u32 {
    (left + 1).next_power_of_two().ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history without branches, of the commits `0`, `1`, …
    struct Line;

    impl History for Line {
        type Error = std::num::ParseIntError;

        async fn between(&self, bad: &str, good: &[String]) -> Result<Vec<String>, Self::Error> {
            let bad: usize = bad.parse()?;
            let goods: Result<Vec<usize>, _> = good.iter().map(|good| good.parse()).collect();
            let from = goods?.into_iter().max().unwrap_or_default() + 1;
            let mut all: Vec<usize> = (from..=bad).collect();
            all.sort_by_key(|n| (n + 1 - from).min(bad - n).abs_diff(0));
            all.reverse();
            Ok(all.iter().map(ToString::to_string).collect())
        }
    }

    fn found(bug: usize, broken: &[usize], last: usize) -> (Verdict<usize>, usize) {
        let mut asked = 0;
        let ask = async |commit: &str, _left: usize| {
            asked += 1;
            let n: usize = commit.parse()?;
            Ok(match n {
                n if broken.contains(&n) => Answer::Untestable,
                n if n >= bug => Answer::Bad(n),
                _ => Answer::Good,
            })
        };
        let search = search(&Line, "0".into(), last.to_string(), last, ask);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let verdict = runtime
            .expect("a runtime")
            .block_on(search)
            .expect("a verdict");
        (verdict, asked)
    }

    #[test]
    fn every_place_of_a_bug_is_found_in_few_steps() {
        for bug in 1..=40 {
            let (verdict, asked) = found(bug, &[], 40);
            let first = Verdict::First {
                commit: bug.to_string(),
                evidence: bug,
            };
            assert_eq!(verdict, first);
            assert!(asked <= 6, "{asked} for {bug}");
        }
    }

    #[test]
    fn commits_that_do_not_build_are_gone_round() {
        let (verdict, _) = found(17, &[3, 18, 19, 20, 21, 30], 40);
        assert!(matches!(verdict, Verdict::First { commit, evidence: 17 } if commit == "17"));
    }

    #[test]
    fn what_cannot_be_told_apart_is_said() {
        let (verdict, _) = found(17, &[15, 16], 40);
        let Verdict::OneOf { commits, evidence } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(evidence, 17);
        let commits: BTreeSet<&str> = commits.iter().map(String::as_str).collect();
        assert_eq!(commits, ["15", "16", "17"].into());
    }

    #[test]
    fn the_steps_ahead_are_estimated() {
        assert_eq!((steps(0), steps(1), steps(3), steps(30)), (0, 1, 2, 5));
    }
}
