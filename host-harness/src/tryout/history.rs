//! A folder of a git repository as it was at a commit, without touching the user's checkout: only
//! objects are read, into an index and a folder of our own.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use keeper::Kept;

use super::bisect::History;

/// A folder of a repository.
#[derive(Debug)]
pub struct Repository {
    /// The folder with git's own files.
    git_dir: PathBuf,
    /// The folder, relative to the top; empty for the top itself.
    below: String,
    /// Index and tree of ours.
    work: tempfile::TempDir,
}

/// A commit, as a person knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its whole id.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
    /// Who wrote it.
    pub author: String,
    /// When, as a date.
    pub date: String,
}

/// Why a repository does not tell.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The folder is in no repository.
    #[error("{} is in no git repository: bisect needs the history of the tree", dir.display())]
    NoRepository {
        /// The folder.
        dir: PathBuf,
    },
    /// A word that names no commit.
    #[error("there is no commit `{revision}` in the repository of {}", dir.display())]
    NoCommit {
        /// The word.
        revision: String,
        /// The folder.
        dir: PathBuf,
    },
    /// Git said no.
    #[error("git {doing}: {said}")]
    Git {
        /// The subcommand.
        doing: String,
        /// Its words.
        said: String,
    },
    /// A file of ours failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HistoryError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> HistoryError {
        let what = what.into();
        move |source| HistoryError::Io { what, source }
    }
}

impl Repository {
    /// The repository that `dir` is in.
    ///
    /// # Errors
    /// When it is in none.
    pub async fn of(dir: &Path) -> Result<Repository, HistoryError> {
        let none = || HistoryError::NoRepository {
            dir: dir.to_owned(),
        };
        let git = |word: &str| {
            let git = Kept::new("git").arg("-C").arg(dir);
            git.args(["rev-parse", word])
        };
        let (status, git_dir) = output(git("--absolute-git-dir")).await?;
        if !status.success() {
            return Err(none());
        }
        let (status, below) = output(git("--show-prefix")).await?;
        if !status.success() {
            return Err(none());
        }
        Ok(Repository {
            git_dir: git_dir.trim().into(),
            below: below.trim().trim_end_matches('/').to_owned(),
            work: tempfile::Builder::new()
                .prefix("vexfs-bisect-")
                .tempdir()
                .map_err(HistoryError::io("cannot make a folder"))?,
        })
    }

    /// Where [`Repository::check_out`] puts the folder.
    pub fn tree(&self) -> PathBuf {
        self.work.path().join("tree")
    }

    /// Removes our folder when this process is killed; hold what is returned as long as this.
    ///
    /// # Errors
    /// When no keeper comes up.
    pub async fn keep(&self) -> Result<keeper::Child, HistoryError> {
        let holder = Kept::new("sleep").arg("infinity");
        holder
            .remove_after(self.work.path())
            .spawn()
            .await
            .map_err(HistoryError::io("cannot start a keeper"))
    }

    /// The id of the commit a word names.
    ///
    /// # Errors
    /// When it names none.
    pub async fn resolve(&self, revision: &str) -> Result<String, HistoryError> {
        let word = format!("{revision}^{{commit}}");
        let git = self.git(&[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &word,
        ]);
        let (status, said) = output(git).await?;
        match status.success() {
            true => Ok(said.trim().to_owned()),
            false => Err(HistoryError::NoCommit {
                revision: revision.to_owned(),
                dir: self.git_dir.clone(),
            }),
        }
    }

    /// Whether the history of `late` contains `early`.
    ///
    /// # Errors
    /// When git fails.
    pub async fn contains(&self, late: &str, early: &str) -> Result<bool, HistoryError> {
        let git = self.git(&["merge-base", "--is-ancestor", early, late]);
        let (status, said) = output(git).await?;
        match status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(failed("merge-base", said)),
        }
    }

    /// The last commit up to `commit` that changed the folder; the folder is the same in both.
    ///
    /// # Errors
    /// When git fails, or the folder is in none.
    pub async fn last_change(&self, commit: &str) -> Result<String, HistoryError> {
        let said = self
            .ask(&[&["rev-list", "-1", commit][..], &self.paths()].concat())
            .await?;
        match said.trim() {
            "" => Err(failed(
                "rev-list",
                format!("no commit up to {commit} has the folder"),
            )),
            id => Ok(id.to_owned()),
        }
    }

    /// A commit for people.
    ///
    /// # Errors
    /// When git fails.
    pub async fn describe(&self, commit: &str) -> Result<Commit, HistoryError> {
        let format = "--format=%H%x00%s%x00%an <%ae>%x00%ad";
        let said = self
            .ask(&["show", "--no-patch", "--date=iso", format, commit])
            .await?;
        let mut fields = said.trim_end().split('\0').map(str::to_owned);
        let mut field = || fields.next().unwrap_or_default();
        Ok(Commit {
            id: field(),
            subject: field(),
            author: field(),
            date: field(),
        })
    }

    /// Puts the folder as it was at `commit` into [`Repository::tree`].
    ///
    /// # Errors
    /// When git fails, or the folder was not there then.
    pub async fn check_out(&self, commit: &str) -> Result<(), HistoryError> {
        let tree = self.tree();
        match std::fs::remove_dir_all(&tree) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HistoryError::io("cannot empty a folder")(error));
            }
            _ => {
                std::fs::create_dir_all(&tree).map_err(HistoryError::io("cannot make a folder"))?
            }
        }
        let what = format!("{commit}:{}", self.below);
        self.ask(&["read-tree", &what]).await?;
        self.ask(&["checkout-index", "--all", "--force"]).await?;
        Ok(())
    }

    fn paths(&self) -> Vec<&str> {
        match self.below.as_str() {
            "" => Vec::new(),
            below => vec!["--", below],
        }
    }

    /// Git on the user's objects, with everything it writes in our folder.
    fn git(&self, words: &[&str]) -> Kept {
        let tree = self.tree();
        Kept::new("git")
            .args(words.iter().copied())
            .env("GIT_DIR", &self.git_dir)
            .env("GIT_WORK_TREE", &tree)
            .env("GIT_INDEX_FILE", self.work.path().join("index"))
            .env("LC_ALL", "C.UTF-8")
            .current_dir(match tree.is_dir() {
                true => tree,
                false => self.work.path().to_owned(),
            })
    }

    async fn ask(&self, words: &[&str]) -> Result<String, HistoryError> {
        let (status, said) = output(self.git(words)).await?;
        match status.success() {
            true => Ok(said),
            false => Err(failed(words[0], said)),
        }
    }
}

impl History for Repository {
    type Error = HistoryError;

    async fn between(&self, bad: &str, good: &[String]) -> Result<Vec<String>, HistoryError> {
        let excluded: Vec<String> = good.iter().map(|good| format!("^{good}")).collect();
        let mut words = vec!["rev-list", "--bisect-all", bad];
        words.extend(excluded.iter().map(String::as_str));
        words.extend(self.paths());
        let said = self.ask(&words).await?;
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        Ok(said.lines().map(first).collect())
    }
}

fn failed(doing: impl Into<String>, said: impl Into<String>) -> HistoryError {
    HistoryError::Git {
        doing: doing.into(),
        said: said.into().trim().to_owned(),
    }
}

/// Runs a program; what it printed on standard output, or on standard error when it failed.
async fn output(command: Kept) -> Result<(ExitStatus, String), HistoryError> {
    let what = || HistoryError::io("cannot run git (Debian package git)");
    let (mut out, mut err) = (
        tempfile::tempfile().map_err(what())?,
        tempfile::tempfile().map_err(what())?,
    );
    let mut child = command
        .stdout(out.try_clone().map_err(what())?)
        .stderr(err.try_clone().map_err(what())?)
        .spawn()
        .await
        .map_err(what())?;
    let status = child.wait().await.map_err(what())?;
    let from = if status.success() { &mut out } else { &mut err };
    let mut bytes = Vec::new();
    from.rewind()
        .and_then(|()| from.read_to_end(&mut bytes))
        .map_err(what())?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}
