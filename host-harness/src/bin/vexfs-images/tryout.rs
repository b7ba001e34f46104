//! `vexfs-images try`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::report::{JunitReporter, TerminalReporter};
use host_harness::checks::{Check, SMOKE};
use host_harness::dossier::Policy;
use host_harness::lab::Setup;
use host_harness::runner::{self, Manner};
use host_harness::tryout::{self, Round, Said, Saves, Took, Tryout, Voice};
use image::Image;
use image_builder::{ToolsRequest, Workshop, WorkshopRequest};
use machine::Host;
use results::{Layout, Outcome, SharedReporters, Tally};

use crate::options::{
    self, Checks, Dossiers, Jobs, Machines, Place, Telling, Testbed, Tree, Usage,
};

/// Exit code when the module is one that is known already: nothing was tested, and that is no pass.
pub const NOTHING_TESTED: u8 = Outcome::EXIT_NOTHING;

/// A fork waits for the next save no longer than this: it takes one of the places for machines that
/// this host has.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How many lines of the compiler's are shown, besides all errors; the log has all.
const SAID: usize = 40;

/// How many lines of a failure's detail are shown; the dossier has all.
const DETAIL: usize = 12;

/// Options of `try`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    tree: Tree,
    #[command(flatten)]
    testbed: Testbed,
    #[command(flatten)]
    checks: Checks,
    /// Only the smoke story
    #[arg(long, conflicts_with = "check")]
    smoke: bool,
    /// Wait for the next save when done, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Test a module even if the same one was tried last
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    jobs: Jobs,
    /// JUnit report of the last round
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    dossiers: Dossiers,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
    #[command(flatten)]
    telling: Telling,
}

/// One round, or one for every save.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let begin = Instant::now();
    let layout = args.place.layout()?;
    let image = options::image(&layout, &args.testbed.image)?;
    let source = args.tree.folder(&layout);
    let checks = checks(&image, &args)?;
    let workshop = workshop(&layout, &image, "try", &source, &source)?;
    // Watching begins before the first look at the tree: no save falls in between.
    let mut saves = match args.watch {
        true => Some(Saves::of(workshop.source())?),
        false => None,
    };
    let host = args.machines.host(&layout).await?;
    let setup = setup(&layout, host, image, policy(args.dossiers)?).await?;
    if args.telling.verbose {
        for (name, value) in setup.host.facts() {
            eprintln!("{name}: {value}");
        }
    }
    let mut tryout = Tryout::new(setup, workshop, voice());
    let first = round(&mut tryout, &args, &checks, begin, saves.as_mut()).await;
    if tryout.programs_changed().await {
        eprintln!(
            "note     vexctl or the agent has changed since the image was built: they are no part of \
             this loop, `cargo images build` takes them in"
        );
    }
    match &mut saves {
        None => first.map(|done| done.code),
        Some(saves) => watch(&mut tryout, &args, &checks, first, saves).await,
    }
}

/// A round for every save, whatever came of those before.
async fn watch(
    tryout: &mut Tryout,
    args: &Args,
    checks: &[&'static Check],
    mut done: anyhow::Result<Done>,
    saves: &mut Saves,
) -> anyhow::Result<u8> {
    loop {
        let saved = match done {
            Ok(Done {
                saved: Some(saved), ..
            }) => saved,
            other => {
                if let Err(error) = other {
                    // The next save may mend it.
                    eprintln!("error    {error:#}");
                }
                let source = tryout.source().display();
                eprintln!("waiting  for the next save in {source} (Ctrl-C ends)");
                tryout.warm_up();
                changed(tryout, saves).await?
            }
        };
        eprintln!();
        done = round(tryout, args, checks, saved, Some(saves)).await;
    }
}

/// Waits until something was saved that differs, and says when it was.
async fn changed(tryout: &mut Tryout, saves: &mut Saves) -> anyhow::Result<Instant> {
    loop {
        let saved = match tokio::time::timeout(PATIENCE, saves.next()).await {
            Ok(saved) => saved?,
            Err(_) => {
                tryout.cool_down();
                saves.next().await?
            }
        };
        if !tryout.is_current() {
            return Ok(saved);
        }
    }
}

/// What came of a round.
struct Done {
    code: u8,
    /// Something was saved meanwhile, then.
    saved: Option<Instant>,
}

impl Done {
    fn with(code: u8) -> anyhow::Result<Done> {
        Ok(Done { code, saved: None })
    }
}

/// From the tree as it is to what there is to say about it. A save ends the checks that come after the
/// smoke story.
async fn round(
    tryout: &mut Tryout,
    args: &Args,
    checks: &[&'static Check],
    saved: Instant,
    saves: Option<&mut Saves>,
) -> anyhow::Result<Done> {
    let round = tryout.round(saved, args.again).await?;
    let (subject, result) = match round {
        Round::Broken => return Done::with(1),
        Round::Unchanged => return Done::with(NOTHING_TESTED),
        Round::Judged {
            subject, result, ..
        } => (subject, result),
    };
    let smoke: Tally = std::iter::once(&*result).collect();
    let reporters = reporters(args, &result);
    if smoke.exit_code() != 0 || checks.is_empty() {
        return Done::with(smoke.exit_code());
    }
    if saves.is_some() {
        tryout.warm_up();
    }
    let begin = Instant::now();
    let manner = Manner {
        jobs: args.jobs.parallel.unwrap_or_else(runner::jobs),
        retries: 0,
    };
    let quick = tryout.quick(&subject, checks, manner, &reporters);
    let results = match saves {
        None => quick.await,
        Some(saves) => {
            let other = async {
                loop {
                    let saved = saves.next().await?;
                    if !tryout.is_current() {
                        return anyhow::Ok(saved);
                    }
                }
            };
            tokio::select! {
                results = quick => results,
                saved = other => {
                    eprintln!("quick    broken off: something was saved");
                    let (code, saved) = (smoke.exit_code(), Some(saved?));
                    return Ok(Done { code, saved });
                }
            }
        }
    };
    let tally: Tally = results.iter().collect();
    eprintln!(
        "{:<8} {tally} in {:.1} s",
        match args.checks.filters() {
            [] => "quick",
            _ => "checks",
        },
        begin.elapsed().as_secs_f64()
    );
    let mut all = smoke;
    all += tally;
    Done::with(all.exit_code())
}

/// Those who hear of the checks after the smoke story; JUnit has that one too.
fn reporters(args: &Args, smoke: &results::CaseResult) -> SharedReporters {
    let terminal = TerminalReporter::new(args.telling.verbose, false);
    let reporters = SharedReporters::new(Vec::new());
    if let Some(junit) = &args.junit {
        reporters.subscribe(Box::new(JunitReporter::new(junit)));
        let event = results::Event::CaseFinished(Box::new(smoke.clone()));
        reporters.emit(&event);
    }
    reporters.subscribe(Box::new(terminal));
    reporters
}

/// The checks that come after the smoke story.
fn checks(image: &Image, args: &Args) -> anyhow::Result<Vec<&'static Check>> {
    if args.smoke {
        return Ok(Vec::new());
    }
    let wanted = &args.checks;
    let selection = tryout::select(&image.manifest.variant, wanted.filters());
    if !wanted.filters().is_empty() && selection.checks.is_empty() {
        if wanted.take(SMOKE.name) {
            return Ok(Vec::new());
        }
        let hint = match selection.booting.as_slice() {
            [] => "`cargo nextest list -p host-harness` lists the checks".to_owned(),
            booting => format!(
                "{} boots the image itself, whose module is another: build an image for that",
                booting.join(", ")
            ),
        };
        let said = format!("no check of a module is meant by `{wanted}`: {hint}");
        return Err(Usage(said).into());
    }
    if args.telling.verbose && !selection.booting.is_empty() {
        eprintln!(
            "note     left out, for they boot the image with its own module: {}",
            selection.booting.join(", ")
        );
    }
    Ok(selection.checks)
}

/// The workshop of a tree.
pub fn workshop(
    layout: &Layout,
    image: &Image,
    purpose: &str,
    source: &Path,
    name: &Path,
) -> anyhow::Result<Workshop> {
    let request = WorkshopRequest {
        workspace: layout.workspace.clone(),
        source: source.to_owned(),
        purpose: purpose.to_owned(),
        name: name
            .canonicalize()
            .unwrap_or(name.to_owned())
            .display()
            .to_string(),
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        mirror: None,
    };
    Ok(Workshop::open(request, image)?)
}

/// Which failures leave a dossier.
pub fn policy(dossiers: Dossiers) -> anyhow::Result<Policy> {
    let wish = Policy::from_env().map_err(Usage)?;
    Ok(Policy {
        keep: dossiers.keep.unwrap_or(wish.keep),
        ..wish
    })
}

/// What checks of the image get.
pub async fn setup(
    layout: &Layout,
    host: Host,
    image: Image,
    dossiers: Policy,
) -> anyhow::Result<Setup> {
    let request = ToolsRequest {
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        ..ToolsRequest::new(&layout.workspace)
    };
    let tools = image_builder::tools_disk(&request, &()).await?;
    Ok(Setup {
        dossiers,
        ..Setup::new(layout.clone(), host, image, tools)
    })
}

/// Says on the terminal what happens.
pub fn voice() -> Voice {
    Arc::new(|said| eprintln!("{}", text(said)))
}

/// What a person reads of it.
fn text(said: &Said) -> String {
    let line = |word: &str, text: &str| format!("{word:<8} {text}");
    match said {
        Said::Note(text) => line("note", text),
        Said::Built(product) => {
            let files: Vec<String> = product
                .changed
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            let what = match (&product.anew, files.as_slice()) {
                (Some(why), _) => format!("all of it, {why}"),
                (None, []) => "nothing, it is built already".to_owned(),
                (None, files) if files.len() < 6 => files.join(" "),
                (None, files) => format!("{} files", files.len()),
            };
            let took = product.took.as_secs_f64();
            let mut lines = product.said.clone();
            lines.push(line("built", &format!("{what} ({took:.2} s)")));
            lines.join("\n")
        }
        Said::DoesNotBuild { said, command, log } => {
            let mut lines: Vec<String> = said.iter().take(SAID).cloned().collect();
            let rest = said.iter().skip(SAID);
            lines.extend(rest.filter(|line| Workshop::is_error(line)).cloned());
            if said.len() > lines.len() {
                lines.push(format!("… and {} more lines", said.len() - lines.len()));
            }
            lines.push(line(
                "FAIL",
                &format!("`{command}` does not make the module"),
            ));
            lines.push(line("log", &log.display().to_string()));
            lines.join("\n")
        }
        Said::Unchanged(why) => line(
            "same",
            &format!("no change in the module: nothing was tested ({why})"),
        ),
        Said::Finding { title, places } => {
            let mut lines = vec![line("kernel", title)];
            lines.extend(places.iter().map(|place| line("", place)));
            lines.join("\n")
        }
        Said::Smoke {
            outcome,
            steps,
            places,
            took,
        } => smoke(outcome, steps, places, took),
        Said::Dossier(dir) => line("dossier", &dir.display().to_string()),
    }
}

fn smoke(
    outcome: &Outcome,
    steps: &[(&'static str, Duration)],
    places: &[String],
    took: &Took,
) -> String {
    let seconds = Duration::as_secs_f64;
    let names: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
    let time = format!(
        "{:.2} s after the save: built in {:.2} s, fork {:.2} s, smoke {:.2} s",
        seconds(&took.all),
        seconds(&took.build),
        seconds(&took.fork),
        seconds(&took.smoke)
    );
    if *outcome == Outcome::Pass {
        return format!(
            "{:<8} smoke ({}, kernel log)\n{:<8} {time}",
            "pass",
            names.join(", "),
            ""
        );
    }
    let word = match outcome {
        Outcome::Infrastructure { .. } => "INFRA",
        Outcome::Skip { .. } => "skip",
        _ => "FAIL",
    };
    let (_, title, detail) = outcome.failure();
    let during = names
        .last()
        .map_or_else(String::new, |step| format!(" during {step}"));
    let mut lines = vec![format!("{word:<8} smoke{during}: {title}")];
    lines.extend(places.iter().map(|place| format!("{:<8} {place}", "")));
    let detail = detail.lines().take(DETAIL);
    lines.extend(detail.map(|line| format!("{:<8} | {line}", "")));
    lines.push(format!("{:<8} {time}", ""));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_of_the_compiler_is_left_out() {
        let warning = |n: usize| format!("/t/super.c:{n}:1: warning: unused variable");
        let mut said: Vec<String> = (0..SAID + 5).map(warning).collect();
        let errors = [
            "/t/super.c:90:1: error: expected ';'",
            "/t/inode.c:7:1: fatal error: no.h: No such file or directory",
        ];
        said.extend(errors.map(str::to_owned));
        let shown = text(&Said::DoesNotBuild {
            said,
            command: "make".into(),
            log: "/l".into(),
        });
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[SAID..][..2], errors, "{shown}");
        assert_eq!(lines[SAID + 2], "… and 5 more lines");
        assert_eq!(lines.len(), SAID + 5);
    }
}
