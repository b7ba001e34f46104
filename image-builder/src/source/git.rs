//! A revision of a git repository, fetched for a build: the smallest part that does, and only what
//! always means the same tree.

use std::path::{Path, PathBuf};

use keeper::Kept;

use crate::run::Site;
use crate::source::STEP;
use crate::source::checks::{SourceChecks, refused, without_secrets, words_of};
use crate::store::scratch::Scratch;
use crate::{BuildError, run};

/// Digits of a whole commit id.
const WHOLE: usize = 40;
/// Digits that can be the start of one.
const SHORTEST: usize = 7;

/// A revision that is here.
pub(crate) struct Fetched {
    pub(crate) commit: String,
    /// What `git verify-tag` said, where it was asked.
    pub(crate) signature: Option<String>,
    repository: Repository,
}

/// A repository of our own, for one fetch.
struct Repository {
    scratch: Scratch,
}

/// Runs a command and repeats what it said: on standard output when it went well.
const SAY: &str = "said=$(\"$@\" 2>&1) || { echo \"$said\" >&2; exit 1; }; echo \"$said\"";

/// Whether address and revision can be handed to git as they are.
pub(crate) fn check_words(url: &str, revision: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/+-".contains(c);
    if url.starts_with('-') || url.chars().any(char::is_control) {
        return Err(format!("`{url}` cannot be the address of a repository"));
    }
    let fine = !revision.is_empty()
        && !revision.starts_with(['-', '.', '/'])
        && !revision.contains("..")
        && revision.chars().all(plain);
    if fine {
        Ok(())
    } else {
        Err(format!("`{revision}` cannot be a commit or a tag"))
    }
}

/// Fetches the revision and checks what there is to check about it.
pub(crate) async fn fetch(
    site: &Site<'_>,
    url: &str,
    revision: &str,
    checks: &SourceChecks,
) -> Result<Fetched, BuildError> {
    let name = format!("{url}@{revision}");
    let repository = Repository {
        scratch: site.scratch(STEP)?,
    };
    run::fresh_log(&site.log(STEP))?;
    let git = |arguments: &[&str]| site.output(STEP, repository.git().args(arguments.to_vec()));
    git(&["init", "--quiet", "--template="]).await?;
    let tag = format!("+refs/tags/{revision}:refs/tags/{revision}");
    let everything = [
        "fetch",
        "--quiet",
        "--",
        url,
        "+refs/heads/*:refs/remotes/origin/*",
        "+refs/tags/*:refs/tags/*",
    ];
    let hex = revision.chars().all(|c| c.is_ascii_hexdigit());
    let shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", url];
    let is_tag = if hex && revision.len() == WHOLE {
        // Not every server hands out a commit by its id alone.
        let alone = git(&[&shallow[..], &[revision]].concat()).await;
        if alone.is_err() {
            git(&everything)
                .await
                .map_err(|error| unreachable(url, error))?;
        }
        false
    } else if let Err(error) = git(&[&shallow[..], &[&tag]].concat()).await {
        let heads = git(&["ls-remote", "--heads", "--", url, revision])
            .await
            .map_err(|_| unreachable(url, error))?;
        let branch = format!("\trefs/heads/{revision}");
        if heads.lines().any(|line| line.ends_with(&branch)) {
            return Err(refused(
                &name,
                format!(
                    "{revision} is a branch and means another tree tomorrow: name a commit or a tag"
                ),
            ));
        }
        if !hex || revision.len() < SHORTEST {
            return Err(refused(&name, format!("there is no tag {revision}")));
        }
        git(&everything)
            .await
            .map_err(|error| unreachable(url, error))?;
        false
    } else {
        true
    };
    let object = if is_tag {
        format!("refs/tags/{revision}^{{commit}}")
    } else {
        format!("{revision}^{{commit}}")
    };
    let commit = git(&["rev-parse", "--verify", "--quiet", &object])
        .await
        .map_err(|_| refused(&name, format!("there is no commit {revision}")))?;
    let commit = commit.trim().to_owned();
    if !is_tag && !commit.starts_with(&revision.to_ascii_lowercase()) {
        return Err(refused(&name, format!("{revision} is not a commit's id")));
    }
    let signature = if checks.signed_tag {
        if !is_tag {
            return Err(refused(
                &name,
                "a commit is no tag, and only tags are signed",
            ));
        }
        Some(repository.verify_tag(site, &name, revision, checks).await?)
    } else {
        None
    };
    Ok(Fetched {
        commit,
        signature,
        repository,
    })
}

/// Puts the files of a fetched revision into `to`.
pub(crate) async fn check_out(
    site: &Site<'_>,
    url: &str,
    fetched: &Fetched,
    to: &Path,
) -> Result<(), BuildError> {
    let command = fetched
        .repository
        .git()
        .arg("--work-tree")
        .arg(to)
        .args([
            "-c",
            "core.autocrlf=false",
            "checkout",
            "--quiet",
            "--force",
        ])
        .args(["--detach", &fetched.commit]);
    site.output(STEP, command)
        .await
        .map_err(|error| refused(url, words_of(error)))?;
    if to.join(".gitmodules").exists() {
        site.note("the source has submodules: they are not fetched");
    }
    Ok(())
}

impl Repository {
    fn git_dir(&self) -> PathBuf {
        self.scratch.path().join("repository.git")
    }

    fn git(&self) -> Kept {
        Site::program("git")
            .arg("--git-dir")
            .arg(self.git_dir())
            // Nobody is there to answer, and a repository's address must not start a program.
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
    }

    async fn verify_tag(
        &self,
        site: &Site<'_>,
        name: &str,
        tag: &str,
        checks: &SourceChecks,
    ) -> Result<String, BuildError> {
        // It speaks on standard error, also when all is well.
        let mut command = Site::program("sh")
            .args(["-c", SAY, "sh", "git", "--git-dir"])
            .arg(self.git_dir());
        if let Some(file) = &checks.allowed_signers {
            let file = std::path::absolute(file).map_err(BuildError::io("find", file))?;
            if !file.is_file() {
                let said = format!("--allowed-signers {}: no such file", file.display());
                return Err(refused(name, said));
            }
            let setting = format!("gpg.ssh.allowedSignersFile={}", file.display());
            command = command.args(["-c", "gpg.format=ssh", "-c", &setting]);
        }
        let command = command.args(["verify-tag", "--", tag]);
        site.output(STEP, command)
            .await
            .map(|said| said.trim().to_owned())
            .map_err(|error| {
                refused(
                    name,
                    format!("the signature of {tag} does not hold: {}", words_of(error)),
                )
            })
    }
}

fn unreachable(url: &str, error: BuildError) -> BuildError {
    BuildError::SourceFetch {
        url: without_secrets(url),
        said: words_of(error),
    }
}

/// The commit a tree is at, if it is a git checkout without changes.
pub(crate) async fn commit(site: &Site<'_>, source: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        Site::program("git")
            .arg("-C")
            .arg(source)
            .args(arguments.iter().copied())
    };
    let changes = git(&["status", "--porcelain", "--", "."]);
    let changes = site.output("source commit", changes).await.ok()?;
    if !changes.trim().is_empty() {
        return None;
    }
    let head = site
        .output("source commit", git(&["rev-parse", "HEAD"]))
        .await
        .ok()?;
    Some(head.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (url, shown) in [
            ("https://me:pass@host/x.git", "https://host/x.git"),
            ("https://host/x@y.git", "https://host/x@y.git"),
            ("git@host:x.git", "git@host:x.git"),
            ("/srv/x.git", "/srv/x.git"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
