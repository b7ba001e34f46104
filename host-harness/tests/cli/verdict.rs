//! A verdict that holds is not asked for again, and every report says so.

use std::fs;
use std::process::Command;
use std::time::Instant;

use libtest_mimic::Failed;

use super::{Row, expect, vexfs_images};

pub const TESTS: &[Row] = &[("unchanged_is_not_checked_again", unchanged)];

/// With a stored verdict a whole pipeline run has this long, program start included.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(1);

fn unchanged() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let junit = dir.path().join("junit.xml");
    let ci = |more: &[&str]| -> Command {
        let mut command = vexfs_images(&["ci", "--check", "vexctl_status", "--explain"]);
        command.args(more).arg("--junit").arg(&junit);
        command
    };
    let report = || fs::read_to_string(&junit);
    expect(
        ci(&["--revalidate"]),
        0,
        &["check minimal: asked for", "1 passed"],
    )?;
    let fresh = report()?;
    assert!(!fresh.contains("nothing it rests on has changed since"));
    fs::remove_file(&junit)?;

    let since = Instant::now();
    let output = expect(
        ci(&[]),
        0,
        &["same  minimal: 1 checks, verdict of 20", "1 passed"],
    )?;
    let took = since.elapsed();
    assert!(took < AT_ONCE, "it took {took:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("nothing has changed since"), "{said}");
    // The report is there again, has the evidence, and says from when it is.
    let kept = report()?;
    assert!(kept.contains("nothing it rests on has changed since"));
    let boot_id = fresh
        .split("name=\"boot-id\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .ok_or("the report names no boot id")?;
    assert!(kept.contains(boot_id), "no boot {boot_id} in the report");
    Ok(())
}
