//! The gallery of hosts: a host that fails, each time in one way and at one moment of a machine's life,
//! and what the harness must make of it. Nothing a host does may be held against the image: the verdict is
//! the one of a quiet host, or *infrastructure* with the cause in words; never a failure, and never a hang.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clock::HOST_TROUBLE;
use host_harness::checks::{self, Check, Start};
use host_harness::dossier::Policy;
use host_harness::lab::{Boot, Failure, Lab};
use host_harness::runner;
use libtest_mimic::Failed;
use machine::snapshot::{Stage, Watch};
use results::{CaseResult, Outcome};
use serde_json::{Value, json};

use super::gallery::Gallery;

#[path = "host_table.rs"]
mod table;
#[path = "host_trouble.rs"]
mod trouble;

pub use table::ROWS;
pub use trouble::{HOLDER, hold};
use trouble::{Trouble, World};

/// Argument that makes this program play one row, in whatever world it was started.
pub const PLAYER: &str = "__host-row";

/// One host that fails.
pub struct Row {
    /// The case's name.
    pub name: &'static str,
    /// What happens, for the table.
    about: &'static str,
    /// When it does.
    when: When,
    /// What does.
    trouble: Trouble,
    /// How often: the tries that come after it are left in peace.
    lasts: usize,
    /// Whether it takes a minute, and is left to the nightly run.
    pub nightly: bool,
    /// Whether a machine is to be booted and frozen for it, although a snapshot is there.
    boots: bool,
    /// What is to come of it.
    ends: Ends,
}

/// When the host fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Boot,
    Settle,
    Freeze,
    Fork,
    Point(&'static str),
}

/// What is to come of it. Never a failure.
#[derive(Clone, Copy)]
enum Ends {
    /// A pass, at the first try.
    Undisturbed,
    /// A pass after another try, and the report says what the host did to the first.
    Told,
    /// A pass at whichever try, or infrastructure: how much it hurts is the host's affair.
    Either,
    /// Infrastructure, which names this.
    Infrastructure(&'static str),
}

impl When {
    fn is(self, stage: Stage<'_>) -> bool {
        match (self, stage) {
            (When::Point(wanted), Stage::Point(name)) => wanted == name,
            (When::Boot, Stage::Boot)
            | (When::Settle, Stage::Settle)
            | (When::Freeze, Stage::Freeze)
            | (When::Fork, Stage::Fork) => true,
            _ => false,
        }
    }
}

/// A row may take this long at the most, all its tries included: what takes longer hangs.
const AT_MOST: Duration = Duration::from_secs(600);

/// Its rows in the report, and its table in the README.
const REPORT: Gallery = Gallery {
    name: "hosts",
    rows: "hosts",
    marks: ("<!-- hosts -->\n", "<!-- end of hosts -->\n"),
    source: "tests/images/host_table.rs",
};

/// Writes and reads as a check does, and needs memory and disk that its machine has not had before.
async fn story(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    lab.point("mounted", &guest).await?;
    let path = mount.path();
    let file = format!("{path}/file");
    guest
        .sh(&format!(
            "dd if=/dev/urandom of={file} bs=1M count=24 conv=fsync status=none\n\
             dd if=/dev/zero of=/dev/shm/fill bs=1M count=96 status=none; rm /dev/shm/fill\n\
             umount {path}"
        ))
        .await?;
    Ok(())
}

/// Boots, and powers off in good order.
async fn story_to_the_end(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.boot(Boot::invited()).await?;
    guest.settle().await?;
    lab.point("off", &guest).await?;
    guest.power_off().await
}

fn check(row: &Row) -> Result<&'static Check, Failed> {
    let like = checks::find("mkfs_mount").ok_or("no such check")?;
    let off = row.when == When::Point("off");
    Ok(Box::leak(Box::new(Check {
        name: row.name,
        start: if off { Start::PowerOn } else { Start::Settled },
        deadline: Duration::from_secs(if off { 180 } else { 60 }),
        story: if off {
            |lab| Box::pin(story_to_the_end(lab))
        } else {
            |lab| Box::pin(story(lab))
        },
        ..*like
    })))
}

/// Plays the row in a world of its own if it needs one, writes it down, and judges.
pub fn shows(row: &'static Row) -> Result<(), Failed> {
    // Whatever has to be built is built in the world as it is.
    super::block_on(async { super::setup(super::DEFAULT, Vec::new(), Policy::none()).await })?;
    let begin = Instant::now();
    let result = match row.trouble.world()? {
        None => play(row)?,
        Some(world) => play_in(row, &world)?,
    };
    let seconds = begin.elapsed().as_secs_f64();
    super::show(&result);
    let complaint = row.complaint(&result);
    let (kind, title, _) = result.outcome.failure();
    let tries: Vec<&str> = told(&result).collect();
    let line: Value = json!({
        "host": row.name,
        "about": row.about,
        "expected": row.expected(),
        "seen": {"outcome": kind, "title": title, "tries": tries},
        "seconds": (seconds * 10.0).round() / 10.0,
        "complaint": complaint,
    });
    println!("{}", serde_json::to_string_pretty(&line)?);
    REPORT.add(row.name, &line, ROWS.iter().map(|row| row.name))?;
    complaint.map_or(Ok(()), |complaint| Err(complaint.into()))
}

/// Plays the row here.
fn play(row: &'static Row) -> Result<CaseResult, Failed> {
    let check = check(row)?;
    let store = tempfile::tempdir_in(super::layout()?.out)?;
    super::block_on(async {
        let mut setup = super::setup(super::DEFAULT, Vec::new(), Policy::none()).await?;
        if row.boots {
            // No snapshot is there, and the one that is made is nobody else's.
            setup.layout.cache = store.path().to_owned();
        }
        let troubles = Arc::new(trouble::Under::default());
        let (acting, times) = (troubles.clone(), AtomicUsize::new(0));
        row.trouble.before()?;
        setup.watch = Watch::new(move |stage, machine| {
            if row.when.is(stage) && times.fetch_add(1, Ordering::Relaxed) < row.lasts {
                row.trouble.happen(machine, &acting);
            }
        });
        let setup = Arc::new(setup);
        let played = runner::run_check(&setup, check);
        let result = tokio::time::timeout(AT_MOST, played).await;
        troubles.over();
        result.map_err(|_| Failed::from(format!("it hangs: no end after {AT_MOST:?}")))
    })
}

/// Plays the row in another process, started in that world.
fn play_in(row: &Row, world: &World) -> Result<CaseResult, Failed> {
    let mut command = Command::new(world.program());
    command
        .args(world.arguments())
        .arg(std::env::current_exe()?)
        .args([PLAYER, row.name])
        .envs(world.environment())
        .stdout(Stdio::piped());
    let output = command.spawn()?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    match (output.status.success(), serde_json::from_str(last)) {
        (true, Ok(result)) => Ok(result),
        _ => Err(format!("the player ended with {}: {said}", output.status).into()),
    }
}

/// The other process: plays the row and says on its last line what came of it.
pub fn player(name: &str) -> Result<(), Failed> {
    let row = ROWS
        .iter()
        .find(|row| row.name == name)
        .ok_or("no such row")?;
    let result = play(row)?;
    println!("\n{}", serde_json::to_string(&result)?);
    Ok(())
}

/// What the report says of tries that the host has ended.
fn told(result: &CaseResult) -> impl Iterator<Item = &str> {
    let properties = result.properties.iter();
    properties
        .filter(|(name, _)| name == HOST_TROUBLE)
        .map(|(_, what)| what.as_str())
}

impl Row {
    /// What is not as it must be.
    fn complaint(&self, seen: &CaseResult) -> Option<String> {
        let tries = told(seen).count();
        let right = match (&seen.outcome, self.ends) {
            (Outcome::Pass, Ends::Undisturbed) => tries == 0,
            (Outcome::Pass, Ends::Told) => tries > 0 && !seen.is_flaky(),
            (Outcome::Pass | Outcome::Infrastructure { .. }, Ends::Either) => true,
            (Outcome::Infrastructure { what }, Ends::Infrastructure(named)) => what.contains(named),
            _ => false,
        };
        let (kind, title, detail) = seen.outcome.failure();
        (!right).then(|| {
            let expected = self.expected();
            format!("expected {expected}; saw {kind} `{title}`, {tries} disturbed tries\n{detail}")
        })
    }

    fn expected(&self) -> String {
        match self.ends {
            Ends::Undisturbed => "pass".into(),
            Ends::Told => "pass, after a try that the report tells of".into(),
            Ends::Either => "pass, or infrastructure".into(),
            Ends::Infrastructure(named) => format!("infrastructure: … {named} …"),
        }
    }
}

/// The README's table says what the data say.
pub fn the_readme_is_true() -> Result<(), Failed> {
    REPORT.holds(|seconds| {
        let mut out = String::from(
            "| host | what happens | outcome | run | seconds |\n|---|---|---|---|---|\n",
        );
        for row in ROWS {
            let run = if row.nightly { "nightly" } else { "`ci/test`" };
            let (name, about, expected) = (row.name, row.about, row.expected());
            let seconds = seconds(name);
            out.push_str(&format!(
                "| {name} | {about} | {expected} | {run} | {seconds} |\n"
            ));
        }
        out
    })
}

/// A folder of the host's memory file system that belongs to this process.
fn own_folder(below: &str) -> PathBuf {
    PathBuf::from(below).join(format!("vexfs-filler-{}", std::process::id()))
}
