//! Reports of an `out/` that is full of hostile text: three forms that say the same, KernelCI's form, and
//! the page in a real browser.

mod facts;
mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use self::fixture::{HOSTILE, Out};
use super::{Row, expect, vexfs_images};

pub const TESTS: &[Row] = &[
    ("all_forms_say_the_same", same),
    ("kcidb_fits_its_schema", kcidb),
    ("page_works_in_a_browser", browser),
    ("nothing_there_is_a_report_too", nothing),
];

fn report(out: &Out, more: &[&str]) -> Result<String, Failed> {
    let mut command = vexfs_images(&["report", "--output-dir"]);
    command.arg(out.path()).args(more);
    let output = expect(command, 0, &[])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn same() -> Result<(), Failed> {
    let out = Out::new()?;
    let said = report(&out, &[])?;
    let read = |name: &str| fs::read_to_string(out.reports().join(name));
    for name in ["index.html", "report.md", "report.json"] {
        assert!(said.contains(name), "{said}");
    }
    let model: Value = serde_json::from_str(&read("report.json")?)?;
    let facts = facts::of_json(&model)?;
    assert!(facts.len() > 300, "only {} facts", facts.len());
    assert_eq!(model["tally"]["failed"], 1);
    assert_eq!(model["tally"]["infrastructure"], 1);
    assert_eq!(model["tally"]["flaky"], 1);
    let page = facts::of_html(&read("index.html")?)?;
    let markdown = facts::of_markdown(&read("report.md")?);
    for (form, blocks) in [("the page", &page), ("Markdown", &markdown)] {
        let missing = facts::missing(&facts, blocks);
        assert!(missing.is_empty(), "{form} does not say {missing:#?}");
    }
    // And the comparison can tell: one figure that differs is seen in both.
    let mut other = model;
    let count = other["history"].as_array().map_or(0, Vec::len);
    assert_eq!(count, 4, "sizes, two hosts, and the host that was measured");
    other["images"][0]["stages"][0]["seconds"] = json!(75.6);
    let rows = other["checks"].as_array_mut().ok_or("no checks")?;
    let mut rows = rows.iter_mut();
    let row = rows
        .find(|row| row["check"] == "mkfs_mount")
        .ok_or("no such check")?;
    row["cells"][0]["outcome"] = json!("fail");
    let facts = facts::of_json(&other)?;
    for blocks in [&page, &markdown] {
        assert_eq!(facts::missing(&facts, blocks).len(), 2);
    }
    // The slower half of the history is found, on the host where it was, and nowhere else.
    let changes: Vec<&Value> = other["history"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|trends| trends["series"].as_array().into_iter().flatten())
        .filter(|series| series["changes"].as_array().is_some_and(|c| !c.is_empty()))
        .collect();
    assert_eq!(changes.len(), 1, "{changes:#?}");
    assert_eq!(changes[0]["changes"][0]["verdict"], "worse");
    assert_eq!(changes[0]["changes"][0]["index"], 12);
    // Made again, it has the same to say, and measured figures are not counted twice.
    report(&out, &["--format", "json"])?;
    let again: Value = serde_json::from_str(&read("report.json")?)?;
    assert_eq!(again["history"].as_array().map(Vec::len), Some(count));
    assert_eq!(again["history"], other["history"]);
    Ok(())
}

/// A program of the Python tools.
fn python() -> Result<Command, Failed> {
    let tools =
        std::env::var_os("VEXFS_TOOLS").map_or_else(|| super::out().join("tools"), PathBuf::from);
    let file = tools.join("python/bin/python");
    match file.is_file() {
        true => Ok(Command::new(file)),
        false => Err(format!("no {}: run `ci/setup test`", file.display()).into()),
    }
}

fn kcidb() -> Result<(), Failed> {
    let out = Out::new()?;
    let file = out.path().join("kcidb.json");
    report(
        &out,
        &["--format", "json", "--kcidb", &file.display().to_string()],
    )?;
    let fits = |file: &Path| -> Result<bool, Failed> {
        let mut command = python()?;
        command.args(["-c", KCIDB]).arg(file);
        let output = command.output()?;
        println!("{}", String::from_utf8_lossy(&output.stderr));
        Ok(output.status.success())
    };
    assert!(fits(&file)?, "KCIDB's schema refuses the export");
    let objects: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let tests = objects["tests"].as_array().ok_or("no tests")?;
    let status = |word: &str| tests.iter().filter(|t| t["status"] == word).count();
    assert_eq!((status("FAIL"), status("ERROR"), status("SKIP")), (1, 1, 1));
    assert!(status("PASS") > 20);
    // The validator does look.
    let mut broken = objects.clone();
    broken["tests"][0]["status"] = json!("passed");
    fs::write(&file, broken.to_string())?;
    assert!(!fits(&file)?, "a status that is none is accepted");
    Ok(())
}

const KCIDB: &str = "
import json, sys
import kcidb_io
kcidb_io.schema.V5_3.validate(json.load(open(sys.argv[1])))
";

fn browser() -> Result<(), Failed> {
    let out = Out::new()?;
    report(&out, &[])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/report/browser.py");
    let profile = tempfile::tempdir()?;
    let mut command = python()?;
    command.arg(script).arg(out.reports().join("index.html"));
    command.arg(profile.path()).arg(HOSTILE);
    let output = command.output()?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    match output.status.success() {
        true => Ok(()),
        false => Err("the page does not work in Chromium: see above".into()),
    }
}

fn nothing() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let mut command = vexfs_images(&["report", "--output-dir"]);
    command.arg(dir.path());
    expect(command, 0, &[])?;
    let page = fs::read_to_string(dir.path().join("reports/index.html"))?;
    assert!(
        page.contains("cargo images build"),
        "it does not say what to do"
    );
    assert!(page.contains("Nothing was checked"));
    // A history that is none is not written over.
    fs::write(dir.path().join("history.redb"), "mine")?;
    let mut command = vexfs_images(&["report", "--output-dir"]);
    command.arg(dir.path());
    expect(command, 75, &["history.redb", "move it away"])?;
    assert_eq!(fs::read(dir.path().join("history.redb"))?, b"mine");
    Ok(())
}
