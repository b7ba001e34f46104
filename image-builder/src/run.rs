//! Running the host's programs as steps of a stage.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use keeper::{Failure, Kept};

use crate::{BuildError, BuildEvent, Progress, host};

/// Where a build works and whom it tells.
pub(crate) struct Site<'a> {
    /// Finished stages, downloads.
    pub(crate) cache: PathBuf,
    /// One log per stage.
    pub(crate) logs: PathBuf,
    /// Distinguishes the logs of builds that run side by side.
    pub(crate) name: String,
    pub(crate) progress: &'a dyn Progress,
    /// The locks it holds: stages of one build wait for each other without a word.
    pub(crate) held: Mutex<BTreeSet<PathBuf>>,
}

impl<'a> Site<'a> {
    /// One whose logs are told apart by `name`.
    pub(crate) fn new(
        cache: PathBuf,
        out: &Path,
        name: impl Into<String>,
        progress: &'a dyn Progress,
    ) -> Site<'a> {
        Site {
            cache,
            logs: out.join("logs"),
            name: name.into(),
            progress,
            held: Mutex::default(),
        }
    }
}

impl Site<'_> {
    /// The log of a stage.
    pub(crate) fn log(&self, stage: &str) -> PathBuf {
        self.logs.join(format!("build-{}-{stage}.log", self.name))
    }

    /// Tells the user something.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.progress.event(&BuildEvent::Note { text: text.into() });
    }

    /// A program, found in sbin too, speaking English.
    pub(crate) fn program(name: impl Into<std::ffi::OsString>) -> Kept {
        Kept::new(name)
            .env("PATH", host::path())
            .env("LC_ALL", "C.UTF-8")
    }

    /// A program that is not on the way to the base, which everything waits for: with fewer
    /// processors than jobs the others step back (nice(1)).
    pub(crate) fn background(name: impl Into<std::ffi::OsString>) -> Kept {
        Site::program("nice").args(["-n", "10"]).arg(name)
    }

    /// Runs one program of a stage to its end, with its output in the stage's log.
    pub(crate) async fn step(&self, stage: &str, command: Kept) -> Result<(), BuildError> {
        keeper::run(command, &self.log(stage), |line| {
            if !line.is_empty() {
                self.progress.event(&BuildEvent::Line {
                    stage: stage.into(),
                    line: line.into(),
                });
            }
        })
        .await
        .map_err(|source| self.failed(stage, source))
    }

    /// Runs a program for what it prints on standard output. On failure the error carries what it
    /// printed on standard error.
    pub(crate) async fn output(&self, stage: &str, command: Kept) -> Result<String, BuildError> {
        let temporary = || tempfile::tempfile().map_err(BuildError::io("make", "a temporary file"));
        let (mut out, mut err) = (temporary()?, temporary()?);
        let pass = |file: &fs::File| {
            file.try_clone()
                .map_err(BuildError::io("open", "a temporary file"))
        };
        let command = command.stdout(pass(&out)?).stderr(pass(&err)?);
        let start = |source| BuildError::Step {
            stage: stage.into(),
            source: Failure::Start {
                program: stage.into(),
                source,
            },
        };
        let mut child = command.spawn().await.map_err(start)?;
        let status = child.wait().await.map_err(start)?;
        let read = |file: &mut fs::File| -> Result<String, BuildError> {
            let mut bytes = Vec::new();
            file.rewind()
                .and_then(|()| file.read_to_end(&mut bytes))
                .map_err(BuildError::io("read", "a program's output"))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read(&mut out)?;
        if status.success() {
            return Ok(text);
        }
        let tail = read(&mut err)?.trim_end().to_owned();
        let log = self.log(stage);
        fs::write(&log, format!("{text}{tail}\n")).map_err(BuildError::io("write", &log))?;
        Err(self.failed(
            stage,
            Failure::Ended {
                program: stage.into(),
                status,
                tail,
                log,
            },
        ))
    }

    /// A full disk is what the user has to know about, whichever program ran into it.
    fn failed(&self, stage: &str, source: Failure) -> BuildError {
        let full = match &source {
            Failure::Start { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Failure::Ended { tail, .. } => tail.contains("No space left on device"),
        };
        let stage = stage.into();
        if full {
            return BuildError::DiskFull {
                path: self.cache.clone(),
                stage,
            };
        }
        BuildError::Step { stage, source }
    }
}

/// Checks that an ordinary user gets what mmdebstrap's unshare mode and the builder root need: a user
/// namespace with the ids of subuid(5). Root needs none.
pub(crate) async fn require_namespaces(site: &Site<'_>) -> Result<(), BuildError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let command = Site::program("unshare")
        .args(["--user", "--map-auto", "--map-root-user", "--mount"])
        .arg("true");
    match site.output("namespaces", command).await {
        Err(BuildError::Step {
            source: Failure::Ended { tail, .. },
            ..
        }) => Err(BuildError::NoNamespaces { said: tail }),
        other => other.map(drop),
    }
}

/// Starts a stage's log anew.
pub(crate) fn fresh_log(log: &Path) -> Result<(), BuildError> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
    }
    fs::write(log, "").map_err(BuildError::io("write", log))
}
