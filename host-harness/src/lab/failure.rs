//! Why a story ended before its end.

use agent_client::AgentError;
use clock::Whose;
use machine::snapshot::SnapshotError;
use machine::{Death, MachineError};
use results::Part;

/// Why a check's story could not be told to the end. What it means for the verdict is decided by
/// the runner, which also knows what the kernel said.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was checked does not hold.
    #[error("{title}")]
    Check {
        /// The topic, a stable word for grouping (`mount`, `content`).
        kind: &'static str,
        /// One line: what is wrong.
        title: String,
        /// The evidence, any number of lines.
        detail: String,
    },
    /// The deadline of the check, or of one of its requests, passed.
    #[error("{title}")]
    Deadline {
        /// One line: how long was granted, and what hung if that is known.
        title: String,
        /// What was collected then.
        detail: String,
    },
    /// The machine died under the check.
    #[error("{0}")]
    Died(Death),
    /// The agent could not do what was asked, or is not to be reached.
    #[error("{doing}: {source}")]
    Agent {
        /// What was asked.
        doing: String,
        /// What came of it.
        source: AgentError,
    },
    /// Something the check needs is not there, and nobody declared that beforehand: a check that
    /// skips itself would look like a pass.
    #[error("undeclared skip: {0}")]
    UndeclaredSkip(String),
    /// The host could not do its part; says nothing about the image.
    #[error("{0}")]
    Host(String),
    /// The same, and it has been tried often enough.
    #[error("{0}")]
    HostPersists(String),
    /// We asked for what makes no sense, or is not set up; says nothing about the image.
    #[error("{0}")]
    Ours(String),
}

impl Failure {
    /// Whose fault it is.
    pub fn whose(&self) -> Whose {
        match self {
            Failure::Check { .. } | Failure::Deadline { .. } | Failure::UndeclaredSkip(_) => {
                Whose::Guest
            }
            Failure::Died(death) => death.whose(),
            Failure::Agent { source, .. } => source.whose(),
            Failure::Host(_) | Failure::HostPersists(_) => Whose::Host,
            Failure::Ours(_) => Whose::Ours,
        }
    }

    /// Whether it came about because time was up.
    pub fn is_overrun(&self) -> bool {
        match self {
            Failure::Deadline { .. } => true,
            Failure::Agent { source, .. } => source.is_timeout(),
            _ => false,
        }
    }

    /// What was checked does not hold.
    pub fn check(
        kind: &'static str,
        title: impl Into<String>,
        detail: impl Into<String>,
    ) -> Failure {
        Failure::Check {
            kind,
            title: title.into(),
            detail: detail.into(),
        }
    }

    /// What a story and its parts come to. A part that failed was there first: what the check itself
    /// tripped over afterwards, as often as not a consequence, is told below it.
    ///
    /// # Errors
    /// The story's failure, or that of its parts.
    pub fn with_parts(story: Result<(), Failure>, parts: &[Part]) -> Result<(), Failure> {
        match (story, Failure::of_parts(parts)) {
            (Ok(()), parts) => parts,
            (
                Err(Failure::Check {
                    title: later,
                    detail: more,
                    ..
                }),
                Err(Failure::Check {
                    kind,
                    title,
                    detail,
                }),
            ) => Err(Failure::check(
                kind,
                title,
                format!("{detail}\nafterwards: {later}\n{more}"),
            )),
            (story, _) => story,
        }
    }

    /// The failure that parts of a check make together.
    ///
    /// # Errors
    /// When one of them failed: that is the answer.
    pub fn of_parts(parts: &[Part]) -> Result<(), Failure> {
        let bad: Vec<&Part> = parts.iter().filter(|part| !part.outcome.is_ok()).collect();
        let Some(first) = bad.first() else {
            return Ok(());
        };
        let title = match bad.len() {
            1 => format!("{}: {}", first.name, first.outcome.failure().1),
            n => format!("{n} of {} parts failed, first {}", parts.len(), first.name),
        };
        let detail = bad.iter().map(|part| {
            let (_, title, detail) = part.outcome.failure();
            format!("{}: {title}\n{detail}", part.name)
        });
        Err(Failure::check(
            "parts",
            title,
            detail.collect::<Vec<_>>().join("\n"),
        ))
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Failure {
        match error {
            MachineError::Died(death) => Failure::Died(death),
            MachineError::Agent(source) if source.whose() == Whose::Guest => Failure::Agent {
                doing: "speak to the agent".to_owned(),
                source,
            },
            other => match other.whose() {
                Whose::Guest => Failure::check("machine", other.to_string(), ""),
                Whose::Host => Failure::Host(other.to_string()),
                Whose::Ours => Failure::Ours(other.to_string()),
            },
        }
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Failure {
        match error {
            SnapshotError::Machine(error) => error.into(),
            // The image's own doing: it came up and did not come to rest.
            SnapshotError::Unsettled { why, console } => Failure::check(
                "boot",
                format!("the image does not boot: {why}"),
                format!("the console ends with:\n{console}"),
            ),
            SnapshotError::FailedBefore { why } => Failure::check(
                "boot",
                "the image does not boot, as another check of this run has found",
                why,
            ),
            SnapshotError::Persists { .. } => Failure::HostPersists(error.to_string()),
            SnapshotError::Fork { .. }
            | SnapshotError::Silent(_)
            | SnapshotError::State { .. }
            | SnapshotError::Broken { .. }
            | SnapshotError::Io { .. } => Failure::Host(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use results::Outcome;

    use super::*;

    #[test]
    fn a_part_that_failed_is_named_before_what_followed_from_it() {
        let bad = Part {
            name: "cached-1".into(),
            outcome: Outcome::fail("fsx", "fsx exited with code 1", "line 79"),
        };
        let busy = || Err(Failure::check("check", "target is busy", "umount says so"));
        let told = |story, parts: &[Part]| Failure::with_parts(story, parts).unwrap_err();
        let both = told(busy(), std::slice::from_ref(&bad));
        assert_eq!(both.to_string(), "cached-1: fsx exited with code 1");
        assert!(matches!(both, Failure::Check { detail, .. }
            if detail.contains("line 79") && detail.contains("afterwards: target is busy")));
        assert_eq!(told(busy(), &[]).to_string(), "target is busy");
        assert_eq!(
            told(Ok(()), std::slice::from_ref(&bad)).to_string(),
            "cached-1: fsx exited with code 1"
        );
        let overrun = Failure::Deadline {
            title: "60 s passed".into(),
            detail: String::new(),
        };
        assert!(told(Err(overrun), &[bad]).is_overrun());
    }

    #[test]
    fn whose_fault_it_is_survives_every_conversion() {
        use agent_client::AgentError;
        use clock::Passed;
        use machine::QmpError;
        use std::time::Duration;

        let lost = || {
            MachineError::Died(Death::VsockLost {
                tail: "none".into(),
            })
        };
        let silent = || MachineError::NoAnswer {
            port: 5000,
            late: Passed {
                within: Duration::from_secs(30),
                lost: Duration::ZERO,
            },
            why: "nobody listens".into(),
        };
        let gone = || QmpError::Gone {
            command: "stop".into(),
        };
        let persists = SnapshotError::Persists {
            troubles: vec!["one".into()],
            last: Box::new(lost().into()),
        };
        let unsettled = SnapshotError::Unsettled {
            why: "no answer".into(),
            console: "login:".into(),
        };
        let table: [(Failure, Whose); 10] = [
            (lost().into(), Whose::Host),
            (SnapshotError::from(lost()).into(), Whose::Host),
            (persists.into(), Whose::Host),
            (
                SnapshotError::from(MachineError::from(gone())).into(),
                Whose::Host,
            ),
            (SnapshotError::Silent(silent()).into(), Whose::Host),
            (silent().into(), Whose::Guest),
            (unsettled.into(), Whose::Guest),
            (
                MachineError::Died(Death::GuestPanicked).into(),
                Whose::Guest,
            ),
            (
                MachineError::Agent(AgentError::WrongSecret).into(),
                Whose::Guest,
            ),
            (MachineError::NoKvm { why: "no".into() }.into(), Whose::Ours),
        ];
        for (failure, whose) in table {
            assert_eq!(failure.whose(), whose, "{failure}");
        }
    }
}
