//! How long from saving a real change in one C file to the smoke verdict? Once as `vexfs-images try
//! --watch` does it, with a fork that waits; once as a single `try`, which makes the fork while it
//! compiles. Each round changes other code in the write path of the in-tree module.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use image_builder::{Workshop, WorkshopRequest};
use results::Outcome;
use results::figures::{Direction, Metric};

use crate::lab::{Failure, Setup};
use crate::tryout::{Round, Said, Took, Tryout};

/// The file that is edited, and the line after which the change goes.
const FILE: &str = "file.c";
const AFTER: &str = "\tssize_t ret = generic_write_checks(iocb, from);\n";

/// How long a fork has to get ready before a save that finds it waiting: a person types for longer.
const TYPING: Duration = Duration::from_secs(3);

/// Measures `rounds` edits of each kind, by turns, after the first build, which makes everything.
///
/// # Errors
/// When the tree cannot be built, or a change that is harmless does not pass.
pub async fn measure(setup: &Arc<Setup>, rounds: usize) -> Result<Vec<Metric>, Failure> {
    let dir = tempfile::tempdir().map_err(|e| trouble("make a folder", &e))?;
    let source = setup.layout.workspace.join("vexfs");
    copy(&source, dir.path()).map_err(|e| trouble("copy the tree", &e))?;
    let file = dir.path().join(FILE);
    let original = std::fs::read_to_string(&file).map_err(|e| trouble("read the tree", &e))?;
    let request = WorkshopRequest {
        workspace: setup.layout.workspace.clone(),
        source: dir.path().to_owned(),
        purpose: "perf".into(),
        name: "edits".into(),
        out_dir: setup.layout.out.clone(),
        cache_dir: setup.layout.cache.clone(),
        mirror: None,
    };
    let workshop =
        Workshop::open(request, &setup.image).map_err(|e| trouble("open a workshop", &e))?;
    let seen: Arc<Mutex<Option<Took>>> = Arc::default();
    let heard = seen.clone();
    let voice = Arc::new(move |said: &Said| {
        if let Said::Smoke { took, .. } = said {
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(*took);
        }
    });
    let mut editor = Editor {
        tryout: Tryout::new(Setup::clone(setup), workshop, voice),
        file,
        original,
        number: std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs()
            % 1_000_000_000,
        seen,
    };
    let kinds = ["watching", "single try"];
    let parts: [(&str, Part); 4] = [
        ("edits/save_to_verdict", |took| took.all),
        ("edits/build", |took| took.build),
        ("edits/fork", |took| took.fork),
        ("edits/smoke", |took| took.smoke),
    ];
    let mut metrics: Vec<Metric> = parts
        .iter()
        .flat_map(|(name, _)| kinds.map(|kind| Metric::new(name, kind, "s", Direction::Lower)))
        .collect();
    editor.edit(false).await?;
    for _ in 0..rounds {
        for (kind, waiting) in kinds.into_iter().zip([true, false]) {
            let took = editor.edit(waiting).await?;
            for (name, part) in &parts {
                let metric = metrics
                    .iter_mut()
                    .find(|metric| metric.name == *name && metric.subject == kind);
                if let Some(metric) = metric {
                    metric.samples.push(part(&took).as_secs_f64());
                }
            }
        }
    }
    Ok(metrics)
}

/// A part of a round's time.
type Part = fn(&Took) -> Duration;

/// One who edits and waits for the verdict.
struct Editor {
    tryout: Tryout,
    file: PathBuf,
    original: String,
    number: u64,
    seen: Arc<Mutex<Option<Took>>>,
}

impl Editor {
    /// A change, and how the time until its verdict went.
    async fn edit(&mut self, waiting: bool) -> Result<Took, Failure> {
        if waiting {
            self.tryout.warm_up();
            tokio::time::sleep(TYPING).await;
        } else {
            self.tryout.cool_down();
        }
        self.number += 1;
        let change = format!(
            "{AFTER}\tif (size == LLONG_MAX - {})\n\t\treturn -EFBIG;\n",
            self.number
        );
        let changed = self.original.replace(AFTER, &change);
        if changed == self.original {
            let title = format!("{FILE} is not what this was written for");
            return Err(Failure::Ours(title));
        }
        let saved = Instant::now();
        std::fs::write(&self.file, changed).map_err(|e| trouble("save a change", &e))?;
        let round = self
            .tryout
            .round(saved, false)
            .await
            .map_err(|e| trouble("try a change", &e))?;
        match round {
            Round::Judged { result, .. } if result.outcome == Outcome::Pass => {}
            other => {
                let detail = format!("{other:?}");
                return Err(Failure::check(
                    "performance",
                    "a harmless change does not pass",
                    detail,
                ));
            }
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.ok_or_else(|| Failure::Ours("no verdict was told".into()))
    }
}

fn trouble(doing: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Host(format!("cannot {doing}: {error}"))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
