//! How the checks of a run came out together.

use crate::{CaseResult, Outcome};

/// How many checks came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped, each with a reason in the report.
    pub skipped: usize,
    /// The host could not do its part.
    pub infrastructure: usize,
    /// Of those that passed: only after they had not.
    pub flaky: usize,
}

impl<'a> FromIterator<&'a CaseResult> for Tally {
    fn from_iter<I: IntoIterator<Item = &'a CaseResult>>(results: I) -> Tally {
        let mut tally = Tally::default();
        for result in results {
            tally.count(result);
        }
        tally
    }
}

impl Tally {
    fn count(&mut self, result: &CaseResult) {
        self.flaky += usize::from(result.is_flaky());
        match &result.outcome {
            Outcome::Pass => self.passed += 1,
            Outcome::Fail { .. } => self.failed += 1,
            Outcome::Skip { .. } => self.skipped += 1,
            Outcome::Infrastructure { .. } => self.infrastructure += 1,
        }
    }

    /// The exit code of a whole run, the same on every command. A failure counts for more than trouble of
    /// the host, and that for more than a pass. A run in which nothing was asked, or everything was skipped,
    /// says nothing of the image, and is told apart from one that is green.
    pub fn exit_code(&self) -> u8 {
        match (self.failed, self.infrastructure, self.passed) {
            (0, 0, 0) => Outcome::EXIT_NOTHING,
            (0, 0, _) => Outcome::EXIT_OK,
            (0, _, _) => Outcome::EXIT_INFRASTRUCTURE,
            _ => Outcome::EXIT_FAIL,
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.infrastructure += other.infrastructure;
        self.flaky += other.flaky;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )?;
        if self.flaky > 0 {
            write!(f, ", {} FLAKY: passed only when tried again", self.flaky)?;
        }
        match self.infrastructure {
            0 => Ok(()),
            n => write!(f, ", {n} could not run (infrastructure)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CaseId, Tier};

    #[test]
    fn a_run_has_one_exit_code() {
        let code = |outcomes: &[&Outcome]| {
            let result = |outcome: &&Outcome| {
                CaseResult::new(CaseId::new("minimal", Tier::Quick, "x"), (*outcome).clone())
            };
            let results: Vec<CaseResult> = outcomes.iter().map(result).collect();
            results.iter().collect::<Tally>().exit_code()
        };
        let infra = Outcome::Infrastructure { what: "x".into() };
        let fail = Outcome::fail("check", "x", "");
        let skip = Outcome::Skip { reason: "x".into() };
        let pass = Outcome::Pass;
        assert_eq!(code(&[&pass, &skip]), 0);
        assert_eq!(code(&[&pass, &infra]), 75);
        assert_eq!(code(&[&infra, &skip]), 75);
        assert_eq!(code(&[&infra, &fail, &pass]), 1);
        // Nothing was asked, or all was skipped.
        assert_eq!(code(&[]), 3);
        assert_eq!(code(&[&skip, &skip]), 3);
    }

    #[test]
    fn exit_codes_tell_apart_failure_and_infrastructure() {
        let tally = |failed, infrastructure| Tally {
            failed,
            infrastructure,
            ..Tally::default()
        };
        assert_eq!(tally(0, 2).exit_code(), 75);
        assert_eq!(tally(1, 2).exit_code(), 1);
        assert_eq!(
            tally(0, 1).to_string(),
            "0 passed, 0 failed, 0 skipped, 1 could not run (infrastructure)"
        );
        let flaky = Tally {
            passed: 3,
            flaky: 1,
            ..Tally::default()
        };
        assert_eq!(
            flaky.to_string(),
            "3 passed, 0 failed, 0 skipped, 1 FLAKY: passed only when tried again"
        );
    }
}
