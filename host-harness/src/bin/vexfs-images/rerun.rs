//! `vexfs-images rerun`

use std::sync::Arc;
use std::time::Duration;

use ::report::TerminalReporter;
use host_harness::checks;
use host_harness::dossier::{Dossier, Facts, Policy};
use host_harness::lab::{Break, Setup};
use host_harness::runner;
use machine::{Accelerator, Host, HostRequest, accel};
use results::dossier::Broken;
use results::{Event, Layout, SharedReporters, Tally};

use crate::options::{Left, Telling, Usage};

/// Options of `rerun`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    left: Left,
    #[command(flatten)]
    telling: Telling,
}

/// Runs the check again with the same image, machine and seed, and says what comes of it this time.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let dossier = Dossier::open(&args.left.dossier)?;
    let image = dossier.image()?;
    let facts = &dossier.facts;
    let check = checks::find(&facts.check).ok_or_else(|| {
        Usage(format!(
            "this program has no check `{}`: use the version, or the test, that wrote the dossier",
            facts.check
        ))
    })?;
    let found = Layout::find(Some(&facts.out)).map_err(Usage)?;
    let host = Host::probe(&found.cache, same_machine(facts)).await?;
    for broken in &facts.breaks {
        let Broken { point, script, .. } = broken;
        eprintln!("broken on purpose at `{point}`, as before: {script}");
    }
    let mut setup = Setup {
        boot_deadline: Duration::from_secs_f64(facts.boot_deadline_s.clamp(1.0, 3600.0)),
        second_kernel: facts.machines.iter().any(|m| m.made.spec.second_kernel),
        breaks: facts.breaks.iter().map(broken).collect(),
        dossiers: Policy::from_env().map_err(Usage)?,
        seed: Some(facts.seed),
        ..Setup::new(found, host, image, facts.tools.clone())
    };
    let reporters = SharedReporters::new(vec![Box::new(TerminalReporter::new(
        args.telling.verbose,
        false,
    ))]);
    reporters.emit(&Event::RunStarted {
        facts: setup.host.facts(),
    });
    let manner = runner::Manner {
        jobs: 1,
        retries: 0,
    };
    let subject = dossier.subject().map(Arc::new);
    if let Some(subject) = &subject {
        eprintln!(
            "with the module that was tried, SHA-256 {}",
            &subject.sha256
        );
        // Its tree may say other things than the image's.
        setup.image.manifest.source.config = dossier.manifest()?.source.config;
    }
    let (setup, subject) = (Arc::new(setup), subject.as_ref());
    let results = runner::run_of(&setup, &[check], manner, &reporters, subject).await;
    let before = match facts.outcome.title.as_str() {
        "" => &facts.outcome.kind,
        title => title,
    };
    for result in &results {
        let (kind, title, _) = result.outcome.failure();
        let same = kind == facts.outcome.kind && title == facts.outcome.title;
        eprintln!("before: {before}");
        eprintln!(
            "seed {}: {}",
            facts.seed,
            if same {
                "the same again"
            } else {
                "another outcome"
            }
        );
    }
    Ok(results.iter().collect::<Tally>().exit_code())
}

/// The accelerator and vsock backend of then: a machine of another make would prove nothing.
fn same_machine(facts: &Facts) -> HostRequest {
    match facts.machines.first() {
        None => HostRequest::default(),
        Some(machine) => HostRequest {
            accel: match machine.made.spec.accelerator {
                Accelerator::Kvm => accel::Request::Kvm,
                Accelerator::Tcg => accel::Request::Tcg,
            },
            vsock: machine.made.spec.vsock,
        },
    }
}

/// Breaks are words of a test's source; one of a dossier lives as long as this run of one check.
fn broken(broken: &Broken) -> Break {
    let word = |word: &String| -> &'static str { word.clone().leak() };
    Break {
        point: word(&broken.point),
        script: word(&broken.script),
        files: broken
            .files
            .iter()
            .map(|(from, to)| (from.clone(), word(to)))
            .collect(),
    }
}
