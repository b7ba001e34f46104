//! The search through a generated history: with a tester that reads its answers from a file, and
//! nightly with real modules in real machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use host_harness::tryout::bisect::{Answer, Verdict, search};
use host_harness::tryout::history::{HistoryError, Repository};
use libtest_mimic::Failed;

use super::{Row, planted, tree, vexfs_images};

pub const TESTS: &[Row] = &[
    ("the_first_bad_commit_is_found", found),
    ("a_merged_branch_is_searched_too", merged),
    ("a_gap_of_untestable_commits_is_named", gap),
    ("ends_that_make_no_sense_are_refused", ends),
];

pub const NIGHTLY: &[Row] = &[("a_planted_bug_in_a_history_of_real_modules", real)];

/// A repository of ours, with a folder in it.
struct Made {
    dir: tempfile::TempDir,
    commits: Vec<String>,
}

impl Made {
    fn new() -> Result<Made, Failed> {
        let made = Made {
            dir: tempfile::tempdir()?,
            commits: Vec::new(),
        };
        made.git(&["init", "--quiet", "--template=", "--initial-branch=main"])?;
        fs::create_dir_all(made.folder())?;
        Ok(made)
    }

    /// The folder that is looked at.
    fn folder(&self) -> PathBuf {
        self.dir.path().join("fs/module")
    }

    fn git(&self, words: &[&str]) -> Result<String, Failed> {
        let output = Command::new("git")
            .args(words)
            .current_dir(self.dir.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .envs(["AUTHOR", "COMMITTER"].iter().flat_map(|who| {
                [
                    (format!("GIT_{who}_NAME"), "Somebody"),
                    (format!("GIT_{who}_EMAIL"), "somebody@example.org"),
                ]
            }))
            .output()?;
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)?.trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    }

    fn commit(&mut self, subject: &str) -> Result<String, Failed> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject])?;
        let id = self.git(&["rev-parse", "HEAD"])?;
        self.commits.push(id.clone());
        Ok(id)
    }

    /// A commit of a file in the folder.
    fn write(&mut self, file: &str, text: &str) -> Result<String, Failed> {
        fs::write(self.folder().join(file), text)?;
        self.commit(&format!("{file}: {text}"))
    }

    /// Everything a user would notice.
    fn state(&self) -> Result<Vec<String>, Failed> {
        [
            &["rev-parse", "--abbrev-ref", "HEAD"][..],
            &["status", "--porcelain"],
            &["for-each-ref"],
            &["worktree", "list"],
            &["stash", "list"],
            &["ls-files", "--stage"],
        ]
        .iter()
        .map(|words| self.git(words))
        .collect()
    }
}

/// Searches with a tester that reads its answer from the file `state`.
fn searched(made: &Made, good: &str, bad: &str) -> Result<(Verdict<String>, usize), Failed> {
    let before = made.state()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (result, work) = runtime.block_on(async {
        let repository = Repository::of(&made.folder()).await?;
        let (good, bad) = (
            repository.resolve(good).await?,
            repository.resolve(bad).await?,
        );
        let bad = repository.last_change(&bad).await?;
        let mut asked = 0;
        let ask = async |commit: &str, _left: usize| -> Result<Answer<String>, HistoryError> {
            asked += 1;
            repository.check_out(commit).await?;
            let state = fs::read_to_string(repository.tree().join("state")).unwrap_or_default();
            Ok(match state.as_str() {
                "bad" => Answer::Bad(commit.to_owned()),
                "broken" => Answer::Untestable,
                _ => Answer::Good,
            })
        };
        let verdict = search(&repository, good, bad.clone(), bad, ask).await?;
        Ok::<_, Failed>(((verdict, asked), repository.tree()))
    })?;
    assert_eq!(made.state()?, before, "the user's repository has changed");
    assert!(!work.exists(), "{} is left", work.display());
    Ok(result)
}

fn first(verdict: Verdict<String>) -> Result<String, Failed> {
    match verdict {
        Verdict::First { commit, evidence } => {
            assert_eq!(commit, evidence, "the evidence is another commit's");
            Ok(commit)
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn found() -> Result<(), Failed> {
    let mut made = Made::new()?;
    let good = made.write("state", "good")?;
    let mut bug = String::new();
    for n in 0..36 {
        match n {
            7 | 20 | 21 => drop(made.write("state", "broken")?),
            8 | 22 => drop(made.write("state", "good")?),
            25 => bug = made.write("state", "bad")?,
            n if n % 3 == 0 => {
                fs::write(made.dir.path().join("elsewhere"), n.to_string())?;
                made.commit("not in the folder")?;
            }
            n => drop(made.write("trivial", &n.to_string())?),
        }
    }
    // What is not committed is nothing to the search.
    fs::write(made.folder().join("state"), "good")?;
    let (verdict, asked) = searched(&made, &good, "HEAD")?;
    assert_eq!(first(verdict)?, bug);
    assert!(asked <= 9, "{asked} tests for 37 commits");
    Ok(())
}

fn merged() -> Result<(), Failed> {
    let mut made = Made::new()?;
    let good = made.write("state", "good")?;
    made.git(&["checkout", "--quiet", "-b", "side"])?;
    made.write("side", "1")?;
    let bug = made.write("state", "bad")?;
    made.write("side", "2")?;
    made.git(&["checkout", "--quiet", "main"])?;
    for n in 0..6 {
        made.write("trivial", &n.to_string())?;
    }
    made.git(&["merge", "--quiet", "--no-ff", "--message", "both", "side"])?;
    made.write("trivial", "after")?;
    let (verdict, _) = searched(&made, &good, "HEAD")?;
    assert_eq!(first(verdict)?, bug);
    Ok(())
}

fn gap() -> Result<(), Failed> {
    let mut made = Made::new()?;
    let good = made.write("state", "good")?;
    made.write("trivial", "1")?;
    let mut possible = vec![made.write("state", "broken")?];
    possible.push(made.write("trivial", "2")?);
    possible.push(made.write("state", "bad")?);
    made.write("trivial", "3")?;
    let (verdict, _) = searched(&made, &good, "HEAD")?;
    let Verdict::OneOf { mut commits, .. } = verdict else {
        return Err(format!("{verdict:?}").into());
    };
    commits.sort();
    possible.sort();
    assert_eq!(commits, possible);
    Ok(())
}

fn ends() -> Result<(), Failed> {
    let mut made = Made::new()?;
    let early = made.write("state", "good")?;
    let late = made.write("state", "bad")?;
    made.git(&["checkout", "--quiet", "-b", "side", &early])?;
    let side = made.write("state", "other")?;
    let folder = made.folder().to_string_lossy().into_owned();
    for (good, bad, words) in [
        (&late, &early, "it is the other way round"),
        (&side, &late, "is no ancestor of"),
    ] {
        let output = vexfs_images(&["bisect", "--good", good, "--bad", bad])
            .args(["--vexfs-source", &folder])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(2) || !said.contains(words) {
            return Err(format!("{}: not 2 with `{words}`:\n{said}", output.status).into());
        }
    }
    Ok(())
}

/// How many commits the history of real modules has, the first one not counted.
const COMMITS: usize = 34;
/// Which has the bug.
const BUG: usize = 21;
/// Which do not compile; the commit after each mends that.
const BROKEN: &[usize] = &[6, 13, 17, 22, 29];

fn real() -> Result<(), Failed> {
    let mut made = Made::new()?;
    fs::remove_dir_all(made.folder())?;
    let source = tree(&made.folder())?;
    let good = made.commit("the tree as it is")?;
    let file = source.join("file.c");
    let (with_bug, line) = planted(&fs::read_to_string(&file)?, "\tWRITE_ONCE(*(int *)8, 1);")?;
    let mut bug = String::new();
    for n in 1..=COMMITS {
        let trivial = source.join(["dir.c", "xattr.c", "namei.c", "sysfs.c"][n % 4]);
        let text = fs::read_to_string(&trivial)?;
        if n == BUG {
            fs::write(&file, &with_bug)?;
            bug = made.commit("write: check sooner")?;
        } else if BROKEN.contains(&n) {
            fs::write(
                source.join("symlink.c"),
                fs::read_to_string(source.join("symlink.c"))? + "int broken(\n",
            )?;
            made.commit(&format!("half of change {n}"))?;
        } else {
            if BROKEN.contains(&(n - 1)) {
                let symlink = source.join("symlink.c");
                let text = fs::read_to_string(&symlink)?.replace("int broken(\n", "");
                fs::write(symlink, text)?;
            }
            // Some change the module, some only say more about it.
            let more = match n % 3 {
                0 => format!("/* Remark {n}. */\n"),
                _ => format!(
                    "int vexfs_trivial_{n}(void);\nint vexfs_trivial_{n}(void)\n{{\n\treturn {n};\n}}\n"
                ),
            };
            fs::write(&trivial, text + &more)?;
            made.commit(&format!("trivial change {n}"))?;
        }
    }
    let before = made.state()?;
    let output = vexfs_images(&[
        "bisect", "--good", &good, "--bad", "main", "--check", "smoke",
    ])
    .arg("--vexfs-source")
    .arg(&source)
    .env("VEXFS_KEEP", "none")
    .output()?;
    let (told, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{said}\n{told}");
    if !output.status.success() {
        return Err(format!("ended with {}", output.status).into());
    }
    assert!(told.starts_with(&format!("{bug} is the first bad commit")));
    for words in [
        "write: check sooner",
        "BUG: NULL pointer",
        &format!("file.c:{line}: vexfs_write_checks"),
    ] {
        if !told.contains(words) {
            return Err(format!("it does not say `{words}`").into());
        }
    }
    assert_eq!(made.state()?, before, "the user's repository has changed");
    unused(source)
}

/// Nothing of the search is where the tree is.
fn unused(source: impl AsRef<Path>) -> Result<(), Failed> {
    let left = fs::read_dir(source)?
        .flatten()
        .find(|entry| entry.path().extension().is_some_and(|end| end == "ko"));
    match left {
        Some(left) => Err(format!("{} is left", left.path().display()).into()),
        None => Ok(()),
    }
}
