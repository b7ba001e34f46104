//! The gate: the same is the same, and what was made slower is found. And figures of unlike hosts are not
//! compared by accident.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;

use super::{Row, expect, out, vexfs_images, workspace};

pub const TESTS: &[Row] = &[
    ("unlike_hosts_are_refused", unlike_hosts_are_refused),
    ("a_missing_record_is_named", a_missing_record_is_named),
];

/// In machines, a minute or two each.
pub const NIGHTLY: &[Row] = &[
    ("the_same_tree_is_the_same", the_same_tree_is_the_same),
    ("a_planted_slowdown_is_worse", a_planted_slowdown_is_worse),
];

/// How often the planted module looks up a file's blocks more than it must: what makes random reads and
/// writes about 15 % dearer (12 times were measured as 24.0 and 27.1 %).
const PLANTED: u32 = 7;

fn record(dir: &Path, name: &str, cores: u32) -> std::io::Result<PathBuf> {
    let record = serde_json::json!({
        "schema": 1, "time": "2026-01-01T00:00:00Z",
        "fingerprint": {
            "cpu": "A", "cores": cores, "accelerator": "tcg", "vsock": "user", "qemu": "7.2.22",
            "host_kernel": "6.1", "guest_kernel": "6.1", "image_sha256": "00", "variant": "minimal",
        },
        "metrics": [{
            "name": "fio/fsync", "subject": "vexfs", "unit": "ms", "direction": "lower",
            "samples": [1.0, 1.1, 1.0, 1.1, 1.0], "peer_of": null, "percentiles": null,
        }],
    });
    let path = dir.join(name);
    fs::write(&path, record.to_string())?;
    Ok(path)
}

fn unlike_hosts_are_refused() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let (old, new) = (
        record(dir.path(), "a.json", 2)?,
        record(dir.path(), "b.json", 64)?,
    );
    let diff = |more: &[&str]| {
        let mut command = vexfs_images(&["perf", "diff"]);
        command.args([&old, &new]).args(more);
        command
    };
    expect(
        diff(&[]),
        2,
        &["unlike hosts", "cores: `2` and `64`", "--across-hosts"],
    )?;
    let output = expect(diff(&["--across-hosts"]), 0, &[])?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("UNLIKE HOSTS") && said.contains("fio/fsync"),
        "{said}"
    );
    Ok(())
}

fn a_missing_record_is_named() -> Result<(), Failed> {
    let command = vexfs_images(&["perf", "diff", "/no/such.json", "/nor/this.json"]);
    expect(command, 2, &["/no/such.json"]).map(drop)
}

/// The gate on VexFS as it is and another tree; what it wrote for JUnit.
fn compare(new: &Path, code: i32) -> Result<String, Failed> {
    let dir = tempfile::tempdir()?;
    let junit = dir.path().join("gate.xml");
    let mut command = vexfs_images(&["perf", "compare"]);
    command
        .arg(workspace().join("vexfs"))
        .arg(new)
        .arg("--junit")
        .arg(&junit);
    if std::env::var_os("VEXFS_CACHE").is_none() {
        command.env("VEXFS_CACHE", out().join("cache"));
    }
    let output = expect(command, code, &[])?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(fs::read_to_string(junit)?)
}

fn the_same_tree_is_the_same() -> Result<(), Failed> {
    let dir = tempfile::tempdir_in(workspace().join("target"))?;
    let tree = dir.path().join("again");
    copy(&workspace().join("vexfs"), &tree)?;
    let report = compare(&tree, 0)?;
    assert!(
        !report.contains("<failure") && !report.contains("<error"),
        "{report}"
    );
    Ok(())
}

fn a_planted_slowdown_is_worse() -> Result<(), Failed> {
    let dir = tempfile::tempdir_in(workspace().join("target"))?;
    let tree = dir.path().join("planted");
    copy(&workspace().join("vexfs"), &tree)?;
    let header = workspace().join("host-harness/tests/planted/planted.h");
    fs::copy(header, tree.join("planted.h"))?;
    let mut kbuild = fs::read_to_string(tree.join("Kbuild"))?;
    kbuild.push_str(&format!(
        "CFLAGS_iomap.o += -DPLANTED={PLANTED} -include $(src)/planted.h\n"
    ));
    fs::write(tree.join("Kbuild"), kbuild)?;
    let report = compare(&tree, 1)?;
    let worse = report
        .split("<testcase ")
        .find(|case| case.contains("name=\"perf_compare::fio/rand_write\""))
        .ok_or("no case for random writes")?;
    assert!(worse.contains("<failure"), "{worse}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}
