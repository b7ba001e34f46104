//! `vexfs-images bisect`

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;
use tokio::sync::Mutex;

use anyhow::{Context, bail};
use host_harness::checks::{self, Check, Start};
use host_harness::tryout::bisect::{Answer, Verdict, search, steps};
use host_harness::tryout::history::{Commit, HistoryError, Repository};
use host_harness::tryout::{Asked, Said, Tryout, TryoutError};
use results::Outcome;

use crate::options::{self, Checks, Dossiers, Machines, Place, Testbed, Tree, Usage};
use crate::tryout as loops;

/// Options of `bisect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A commit at which the check holds
    #[arg(long, value_name = "REV")]
    good: String,
    /// A later commit at which it does not
    #[arg(long, value_name = "REV")]
    bad: String,
    #[command(flatten)]
    checks: Checks,
    #[command(flatten)]
    tree: Tree,
    #[command(flatten)]
    testbed: Testbed,
    #[command(flatten)]
    dossiers: Dossiers,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
}

/// What is known of a bad commit.
#[derive(Debug, Clone)]
struct Evidence {
    title: String,
    detail: String,
    places: Vec<String>,
    dossier: Option<PathBuf>,
}

/// Finds the commit and says why.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let begin = Instant::now();
    let layout = args.place.layout()?;
    let check = check(&args.checks)?;
    let image = options::image(&layout, &args.testbed.image)?;
    let source = args.tree.folder(&layout);
    let history = Repository::of(&source).await.map_err(usage)?;
    let _keeper = history.keep().await?;
    let (good, bad) = ends(&history, &args).await?;
    // The workshop wants a tree to begin with.
    history.check_out(&bad).await?;
    let workshop = loops::workshop(&layout, &image, "bisect", &history.tree(), &source)?;
    let host = args.machines.host(&layout).await?;
    let setup = loops::setup(&layout, host, image, loops::policy(args.dossiers)?).await?;
    let voice = std::sync::Arc::new(|said: &Said| {
        if let Said::Note(text) = said {
            eprintln!("note     {text}");
        }
    });
    let tester = Mutex::new(Tester {
        tryout: Tryout::new(setup, workshop, voice),
        check,
        known: HashMap::new(),
        tested: 0,
        unbuildable: 0,
    });
    let ask = async |commit: &str, left: usize| -> anyhow::Result<Answer<Evidence>> {
        if left > 0 {
            eprintln!(
                "         {left} more commits are left, about {} tests",
                steps(left)
            );
        }
        // The search asks for one after the other.
        tester.lock().await.test(&history, commit).await
    };
    let evidence = match ask(&bad, 0).await? {
        Answer::Bad(evidence) => evidence,
        Answer::Good => bail!(Usage(format!(
            "{} passes at {}: there is nothing to look for. --bad must be a commit at which it fails",
            check.name, args.bad
        ))),
        Answer::Untestable => bail!(Usage(format!(
            "the tree does not compile at {}: --bad must be a commit that can be tested",
            args.bad
        ))),
    };
    match ask(&good, 0).await? {
        Answer::Good => {}
        Answer::Bad(evidence) => bail!(Usage(format!(
            "{} fails at {} too ({}): --good must be a commit at which it passes",
            check.name, args.good, evidence.title
        ))),
        Answer::Untestable => bail!(Usage(format!(
            "the tree does not compile at {}: --good must be a commit that can be tested",
            args.good
        ))),
    }
    let history = Fallible(&history);
    let verdict = search(&history, good, bad, evidence, ask).await?;
    let (tested, unbuildable) = {
        let tester = tester.lock().await;
        (tester.tested, tester.unbuildable)
    };
    eprintln!();
    let code = tell(history.0, verdict).await?;
    eprintln!(
        "{tested} commits tested, {unbuildable} do not compile, {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    Ok(code)
}

/// The one check that is meant, if a module can be asked it. A whole name means the check of that name alone,
/// also where others have it in theirs.
fn check(wanted: &Checks) -> anyhow::Result<&'static Check> {
    let named = match wanted.filters() {
        [] => Some(checks::SMOKE),
        [filter] => filter.word().and_then(checks::find),
        _ => None,
    };
    let all = checks::REGISTRY.iter().chain([checks::SMOKE]);
    let meant: Vec<&Check> = match named {
        Some(check) => vec![check],
        None => all
            .clone()
            .filter(|check| wanted.take(check.name))
            .collect(),
    };
    let names = |checks: &[&Check]| -> String {
        let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
        names.join(", ")
    };
    let check = match meant.as_slice() {
        [check] => *check,
        [] => bail!(Usage(format!(
            "no check is meant by `{wanted}`; there are: {}",
            names(&all.collect::<Vec<_>>())
        ))),
        several => bail!(Usage(format!(
            "bisect asks one check, and `{wanted}` means {}: {}",
            several.len(),
            names(several)
        ))),
    };
    if check.start == Start::PowerOn {
        bail!(Usage(format!(
            "{} boots the image itself, whose module is another: bisect asks checks of a settled guest",
            check.name
        )));
    }
    Ok(check)
}

/// The ids of both ends, when one comes before the other.
async fn ends(history: &Repository, args: &Args) -> anyhow::Result<(String, String)> {
    let good = history.resolve(&args.good).await.map_err(usage)?;
    let bad = history.resolve(&args.bad).await.map_err(usage)?;
    if good == bad {
        bail!(Usage(format!(
            "--good {} and --bad {} are the same commit",
            args.good, args.bad
        )));
    }
    if !history.contains(&bad, &good).await? {
        let turned = match history.contains(&good, &bad).await? {
            true => "; it is the other way round, exchange them",
            false => "",
        };
        bail!(Usage(format!(
            "--good {} is no ancestor of --bad {}{turned}",
            args.good, args.bad
        )));
    }
    let changed = history.last_change(&bad).await.map_err(usage)?;
    // Both ends may have the same tree: between them is nothing that could have broken it.
    if history.contains(&good, &changed).await? {
        bail!(Usage(format!(
            "no commit between {} and {} changes the tree",
            args.good, args.bad
        )));
    }
    Ok((good, changed))
}

/// What the user said wrong is not the host's fault.
fn usage(error: HistoryError) -> anyhow::Error {
    match error {
        HistoryError::NoRepository { .. }
        | HistoryError::NoCommit { .. }
        | HistoryError::Git { .. } => Usage(error.to_string()).into(),
        HistoryError::Io { .. } => error.into(),
    }
}

/// Asks the check of commits.
struct Tester {
    tryout: Tryout,
    check: &'static Check,
    /// What came of each module, by its identity: commits that change only comments are not run again.
    known: HashMap<String, Option<Evidence>>,
    tested: usize,
    unbuildable: usize,
}

impl Tester {
    async fn test(
        &mut self,
        history: &Repository,
        commit: &str,
    ) -> anyhow::Result<Answer<Evidence>> {
        let begin = Instant::now();
        let about = history.describe(commit).await?;
        history.check_out(commit).await?;
        let known = &self.known;
        let asked = self
            .tryout
            .ask(self.check, |identity| known.contains_key(identity))
            .await;
        let (word, answer, note) = match asked {
            Ok(None) => {
                self.unbuildable += 1;
                ("skip", Answer::Untestable, "does not compile".to_owned())
            }
            // A tree that says of itself what cannot be, at that commit.
            Err(TryoutError::Build(error @ image_builder::BuildError::DataFile { .. })) => {
                self.unbuildable += 1;
                ("skip", Answer::Untestable, error.to_string())
            }
            Err(error) => return Err(error.into()),
            Ok(Some((identity, result))) => {
                let (evidence, note) = match result {
                    None => (
                        self.known
                            .get(&identity)
                            .cloned()
                            .context("a known module")?,
                        "the same module as one before",
                    ),
                    Some(asked) => {
                        self.tested += 1;
                        let evidence = evidence(&asked)?;
                        self.known.insert(identity, evidence.clone());
                        (evidence, "")
                    }
                };
                match evidence {
                    None => ("good", Answer::Good, note.to_owned()),
                    Some(evidence) => {
                        let title = match note {
                            "" => evidence.title.clone(),
                            note => format!("{} ({note})", evidence.title),
                        };
                        ("BAD", Answer::Bad(evidence), title)
                    }
                }
            }
        };
        let Commit { id, subject, .. } = about;
        let took = begin.elapsed().as_secs_f64();
        eprintln!("{word:<8} {} {subject} ({took:.1} s)", &id[..12]);
        if !note.is_empty() {
            eprintln!("         {note}");
        }
        Ok(answer)
    }
}

/// What a result says against a commit.
fn evidence(asked: &Asked) -> anyhow::Result<Option<Evidence>> {
    match &asked.result.outcome {
        Outcome::Pass => Ok(None),
        Outcome::Fail { title, detail, .. } => Ok(Some(Evidence {
            title: title.clone(),
            detail: detail.clone(),
            places: asked.places.clone(),
            dossier: asked.result.dossier.clone(),
        })),
        Outcome::Skip { reason } => bail!(Usage(format!("the check cannot be asked: {reason}"))),
        Outcome::Infrastructure { what } => bail!("the host could not do its part: {what}"),
    }
}

async fn tell(history: &Repository, verdict: Verdict<Evidence>) -> anyhow::Result<u8> {
    let (commits, evidence, code) = match verdict {
        Verdict::First { commit, evidence } => (vec![commit], evidence, 0),
        Verdict::OneOf { commits, evidence } => (commits, evidence, 1),
    };
    if code == 0 {
        println!("{} is the first bad commit", commits[0]);
    } else {
        println!("the first bad commit is one of these; all but the first do not compile:");
    }
    for commit in &commits {
        let Commit {
            id,
            subject,
            author,
            date,
        } = history.describe(commit).await?;
        println!("commit {id}\nAuthor: {author}\nDate:   {date}\n\n    {subject}\n");
    }
    println!("{}", evidence.title);
    for place in &evidence.places {
        println!("  {place}");
    }
    for line in evidence.detail.lines() {
        println!("| {line}");
    }
    if let Some(dossier) = evidence.dossier {
        println!("dossier: {}", dossier.display());
    }
    Ok(code)
}

/// The history with the errors of a command.
struct Fallible<'a>(&'a Repository);

impl host_harness::tryout::bisect::History for Fallible<'_> {
    type Error = anyhow::Error;

    async fn between(&self, bad: &str, good: &[String]) -> anyhow::Result<Vec<String>> {
        Ok(self.0.between(bad, good).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        checks: Checks,
    }

    fn meant(words: &[&str]) -> Result<&'static str, String> {
        let words = words.iter().flat_map(|word| ["--check", word]);
        let line = Line::try_parse_from(["it"].into_iter().chain(words)).expect("a command line");
        let check = check(&line.checks).map_err(|error| error.to_string())?;
        Ok(check.name)
    }

    #[test]
    fn one_check_is_asked() {
        assert_eq!(meant(&[]), Ok("smoke"));
        // A name alone, though `stress_filesystem` has it in its own.
        assert_eq!(meant(&["stress"]), Ok("stress"));
        assert_eq!(meant(&["test(=mkfs_mount)"]), Ok("mkfs_mount"));
        assert_eq!(meant(&["fio_v"]), Ok("fio_verify"));
        let several = meant(&["mkfs_mount", "fio_verify"]).expect_err("two");
        assert!(
            several.contains("means 2: mkfs_mount, fio_verify"),
            "{several}"
        );
        let none = meant(&["no_such_check"]).expect_err("none");
        assert!(none.contains("there are: settles, "), "{none}");
        let boots = meant(&["settles"]).expect_err("it boots");
        assert!(boots.contains("settles boots the image itself"), "{boots}");
    }
}
