//! Nothing a keeper holds outlives its starter, however the starter ends.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use keeper::{Child, Failure, Kept, run};
use libtest_mimic::{Arguments, Failed, Trial};

/// Argument that makes this program the starter which a test then kills.
const STARTER: &str = "__starter";

fn main() {
    keeper::hook();
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == STARTER) {
        return runtime().block_on(starter(Path::new(&args[2])));
    }
    let trials = vec![
        trial("status_and_output_come_through", || {
            Box::pin(status_and_output())
        }),
        trial("a_missing_program_is_not_found", || Box::pin(missing())),
        trial("a_failed_step_shows_its_last_lines", || {
            Box::pin(failed_step())
        }),
        trial("drop_kills_grandchildren_and_removes", || {
            Box::pin(drop_kills())
        }),
        trial("sigkill_of_the_starter_leaves_nothing", || {
            Box::pin(sigkill())
        }),
        trial("sigkill_of_the_keeper_kills_the_program", || {
            Box::pin(keeper_killed())
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

type Test = std::pin::Pin<Box<dyn Future<Output = Result<(), Failed>>>>;

fn trial(name: &str, test: impl FnOnce() -> Test + Send + 'static) -> Trial {
    Trial::test(name, move || runtime().block_on(test()))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Starts a program that leaves one child in its group and one in a session of its own, writes
/// their pids to `dir/pids`, and waits.
async fn family(dir: &Path) -> std::io::Result<Child> {
    let kept = dir.join("kept");
    std::fs::create_dir(&kept)?;
    let script =
        "sleep 600 & setsid sleep 600 & sleep 0.1; echo $$ $(pgrep -P $$ sleep) $! > pids; wait";
    let child = Kept::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .remove_after(&kept)
        .spawn()
        .await?;
    while std::fs::read_to_string(dir.join("pids"))
        .unwrap_or_default()
        .trim()
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(child)
}

fn alive(dir: &Path) -> Vec<String> {
    let pids = std::fs::read_to_string(dir.join("pids")).unwrap_or_default();
    let running = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
    };
    pids.split_whitespace()
        .filter(running)
        .map(str::to_owned)
        .collect()
}

/// All dead and the kept directory gone, within five seconds.
fn assert_nothing_left(dir: &Path) -> Result<(), Failed> {
    let since = Instant::now();
    loop {
        let left = alive(dir);
        if left.is_empty() && !dir.join("kept").exists() {
            return Ok(());
        }
        if since.elapsed() > Duration::from_secs(5) {
            return Err(format!(
                "left after 5 s: pids {left:?}, kept {}",
                dir.join("kept").exists()
            )
            .into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn starter(dir: &Path) {
    let _child = family(dir).await.expect("the family starts");
    File::create(dir.join("ready")).expect("ready is written");
    std::future::pending().await
}

async fn status_and_output() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("out");
    let mut child = Kept::new("sh")
        .args(["-c", "echo said; exit 3"])
        .stdout(File::create(&out)?)
        .spawn()
        .await?;
    assert_eq!(child.wait().await?.code(), Some(3));
    assert_eq!(std::fs::read_to_string(out)?, "said\n");
    Ok(())
}

async fn missing() -> Result<(), Failed> {
    let error = Kept::new("no-such-program")
        .spawn()
        .await
        .err()
        .ok_or("it started")?;
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    Ok(())
}

async fn failed_step() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log");
    let mut seen = Vec::new();
    let command = Kept::new("sh").args(["-c", "seq 1 40; echo broken >&2; exit 7"]);
    let failure = run(command, &log, |line| seen.push(line.to_owned()))
        .await
        .err()
        .ok_or("it passed")?;
    let Failure::Ended { tail, status, .. } = failure else {
        return Err("wrong failure".into());
    };
    assert_eq!(status.code(), Some(7));
    assert!(tail.ends_with("40\nbroken"), "{tail}");
    assert_eq!((seen.len(), tail.lines().count()), (41, 15));
    assert_eq!(std::fs::read_to_string(log)?.lines().count(), 41);
    Ok(())
}

async fn drop_kills() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let child = family(dir.path()).await?;
    assert!(alive(dir.path()).len() >= 3, "the family is up");
    drop(child);
    // No waiting: a dropped child is a dead one.
    assert_eq!(alive(dir.path()), Vec::<String>::new());
    assert_nothing_left(dir.path())
}

async fn sigkill() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let mut starter = std::process::Command::new("/proc/self/exe")
        .arg(STARTER)
        .arg(dir.path())
        .spawn()?;
    while !dir.path().join("ready").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(alive(dir.path()).len() >= 3, "the family is up");
    starter.kill()?;
    starter.wait()?;
    assert_nothing_left(dir.path())
}

async fn keeper_killed() -> Result<(), Failed> {
    let mut child = Kept::new("sleep").arg("600").spawn().await?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid()))?;
    let keeper: i32 = stat
        .split_whitespace()
        .nth(3)
        .ok_or("no ppid")?
        .parse()
        .map_err(|e| format!("{e}"))?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(keeper),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    assert!(child.wait().await.is_err());
    let proc = format!("/proc/{}", child.pid());
    for _ in 0..200 {
        if !Path::new(&proc).exists() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("the program outlived its keeper".into())
}
