//! What a failure leaves, in real machines: the way back into the failed one, the same run again, and
//! what a deadline collects from a guest that hangs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use host_harness::checks::{self, Check, Start, Telling};
use host_harness::dossier::{Facts, Policy};
use host_harness::lab::Pace;
use host_harness::lab::{Break, Failure, Lab};
use libtest_mimic::Failed;
use results::dossier::{Left, files};
use results::{CaseResult, Tier};

/// A named test.
type Row = (&'static str, fn() -> Result<(), Failed>);

pub const TESTS: &[Row] = &[
    ("reopened_as_it_was_and_rerun_the_same", reopen_and_rerun),
    (
        "a_panicked_guest_is_reopened_from_its_disk",
        reopen_panicked,
    ),
    ("a_deadline_names_what_is_blocked", blocked),
    ("a_guest_that_does_not_answer_is_struck", deaf),
];

/// Beyond the two seconds that collecting may take: what a busy host takes to schedule us.
const COLLECTING: Duration = Duration::from_millis(2500);

fn reopen_and_rerun() -> Result<(), Failed> {
    let broken = Break {
        point: "start",
        script: "echo written before the failure > /run/left-behind
                 printf '#!/bin/sh\\nexit 3\\n' > /usr/sbin/mkfs.vexfs",
        files: Vec::new(),
    };
    let check = checks::find("mkfs_mount").ok_or("no such check")?;
    let result = super::run(super::DEFAULT, check, vec![broken], Policy::default())?;
    super::show(&result);
    let (dir, facts) = whole(&result)?;
    if facts.machines[0].left != Left::Frozen {
        return Err(format!("not frozen: {:?}", facts.machines[0].left).into());
    }
    // Memory as it was: /run is a tmpfs, and the clock of the boot goes on from the freeze.
    let words = ["cat", "/run/left-behind", "/proc/uptime"];
    let (code, out, said) = reopen(dir, &words)?;
    let uptime: Option<f64> = out
        .lines()
        .nth(1)
        .and_then(|l| l.split(' ').next()?.parse().ok());
    if code != Some(0) || !out.starts_with("written before the failure\n") || uptime.is_none() {
        return Err(format!("reopen ended with {code:?}:\n{out}\n{said}").into());
    }
    if !said.contains("as it was") {
        return Err(format!("reopen does not say that it is as it was:\n{said}").into());
    }
    let output = vexfs_images("rerun", dir, &[])
        .env("VEXFS_KEEP", "none")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    if output.status.code() != Some(1) || !said.contains("the same again") {
        return Err(format!(
            "rerun ended with {}, not 1 and the same again",
            output.status
        )
        .into());
    }
    Ok(std::fs::remove_dir_all(dir)?)
}

fn reopen_panicked() -> Result<(), Failed> {
    let broken = Break {
        point: "start",
        script: "echo on disk > /var/left-behind; sync; echo c > /proc/sysrq-trigger; sleep 50",
        files: Vec::new(),
    };
    let check = checks::find("mkfs_mount").ok_or("no such check")?;
    let policy = Policy {
        dump_memory: true,
        ..Policy::default()
    };
    let result = super::run(super::DEFAULT, check, vec![broken], policy)?;
    super::show(&result);
    let (dir, facts) = whole(&result)?;
    if !matches!(&facts.machines[0].left, Left::Dump { why } if why.contains("panicked")) {
        return Err(format!("no dump: {:?}", facts.machines[0].left).into());
    }
    let (code, out, said) = reopen(dir, &["cat", "/var/left-behind"])?;
    if code != Some(0) || out != "on disk\n" || !said.contains("ATTENTION") {
        return Err(format!("reopen ended with {code:?}:\n{out}\n{said}").into());
    }
    Ok(std::fs::remove_dir_all(dir)?)
}

/// A check of this file; not in the registry, because it must not hold.
const fn hanging(name: &'static str, story: for<'a> fn(&'a mut Lab) -> Telling<'a>) -> Check {
    Check {
        name,
        about: "a guest that hangs does not hold us up",
        tier: Tier::Quick,
        start: Start::Settled,
        deadline: Duration::from_secs(10),
        nightly: None,
        story,
        needs: &[],
        variants: &[],
        enforced: false,
        expects: &[],
    }
}

static BLOCKED: Check = hanging("hangs_blocked", |lab| {
    Box::pin(write_to_a_frozen_mount(lab))
});
static DEAF: Check = hanging("hangs_deaf", |lab| Box::pin(stop_the_agent(lab)));

/// Whoever writes to a frozen file system sleeps until it thaws, and no signal wakes it.
async fn write_to_a_frozen_mount(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    let path = mount.path();
    guest
        .sh(&format!("fsfreeze --freeze {path}; echo x > {path}/file"))
        .await
        .map(drop)
}

async fn stop_the_agent(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    guest
        .sh("systemctl kill --signal=STOP vexfs-agent")
        .await
        .map(drop)
}

fn blocked() -> Result<(), Failed> {
    let (result, facts, words) = overdue(&BLOCKED)?;
    let (kind, title, _) = result.outcome.failure();
    let named = title.contains("not done within 10 s: `sh` is blocked in ");
    if kind != "deadline" || !named || !words.contains("state:D") {
        return Err(format!("not told what is blocked: {kind}: {title}\n{words}").into());
    }
    // It hangs, and it can be looked at hanging.
    let dir = result.dossier.as_deref().ok_or("no dossier")?;
    if facts.machines[0].left != Left::Frozen {
        return Err(format!("not frozen: {:?}", facts.machines[0].left).into());
    }
    let (code, out, said) = reopen(
        dir,
        &["sh", "-c", "grep -l '^State:.D' /proc/[0-9]*/status"],
    )?;
    if code != Some(0) || !out.contains("/proc/") {
        return Err(format!("nothing is blocked any more, {code:?}:\n{out}\n{said}").into());
    }
    Ok(std::fs::remove_dir_all(dir)?)
}

fn deaf() -> Result<(), Failed> {
    let (result, facts, words) = overdue(&DEAF)?;
    let (kind, title, _) = result.outcome.failure();
    if kind != "deadline" || facts.first_finding.is_some() {
        return Err(format!("our own NMI was taken for the guest's doing: {kind}: {title}").into());
    }
    for want in [
        "did not answer",
        "NMI: Not continuing",
        "Call Trace",
        "RIP=",
    ] {
        if !words.contains(want) {
            return Err(format!("the last words lack `{want}`:\n{words}").into());
        }
    }
    if !matches!(facts.machines[0].left, Left::Disks { .. }) {
        return Err(format!("more is left than can be: {:?}", facts.machines[0].left).into());
    }
    Ok(std::fs::remove_dir_all(
        result.dossier.ok_or("no dossier")?,
    )?)
}

/// Runs a check that hangs: its result, its dossier's facts, its last words, which were collected in
/// time.
fn overdue(check: &'static Check) -> Result<(CaseResult, Facts, String), Failed> {
    let result = super::run(super::DEFAULT, check, Vec::new(), Policy::default())?;
    super::show(&result);
    let (dir, facts) = whole(&result)?;
    let words = std::fs::read_to_string(dir.join(files::LAST_WORDS))?;
    println!("{words}");
    let took = result
        .properties
        .iter()
        .find(|(name, _)| name == "last-words-s");
    let took = took
        .and_then(|(_, seconds)| seconds.parse().ok())
        .ok_or("no last words")?;
    println!("collected in {took} s");
    match Duration::from_secs_f64(took) > pace(&result).stretch(COLLECTING) {
        true => Err(format!("collecting took {took} s").into()),
        false => Ok((result, facts, words)),
    }
}

/// How the host kept up while a check ran, by what its fork took.
pub fn pace(result: &CaseResult) -> Pace {
    let ready = result
        .properties
        .iter()
        .find(|(name, _)| name == "seconds-machine")
        .and_then(|(_, seconds)| seconds.parse().ok());
    Pace::of(Duration::from_secs_f64(ready.unwrap_or(0.0)))
}

/// The dossier of a result, which must be complete.
pub fn whole(result: &CaseResult) -> Result<(&Path, Facts), Failed> {
    let dir = result.dossier.as_deref().ok_or("no dossier")?;
    let facts = Facts::read(dir)?;
    let missing = facts.missing(dir)?;
    match missing.is_empty() {
        true => Ok((dir, facts)),
        false => Err(format!("the dossier {} lacks {missing:?}", dir.display()).into()),
    }
}

fn vexfs_images(what: &str, dossier: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vexfs-images"));
    command.arg(what).arg(dossier);
    if !words.is_empty() {
        command.arg("--").args(words);
    }
    command
}

/// Exit code, standard output and standard error of a program in a reopened machine.
fn reopen(dossier: &Path, words: &[&str]) -> Result<(Option<i32>, String, String), Failed> {
    let output = vexfs_images("reopen", dossier, words).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    println!(
        "$ vexfs-images reopen {} -- {}\n{said}{out}",
        dossier.display(),
        words.join(" ")
    );
    Ok((output.status.code(), out, said))
}
