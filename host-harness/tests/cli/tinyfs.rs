//! Another team's file system, from its tree to a verdict: `tests/tinyfs` differs from VexFS in
//! everything that a `vexfs-source.toml` can say.

use std::fs;

use libtest_mimic::Failed;

use super::{Row, expect, vexfs_images, workspace};

pub const TESTS: &[Row] = &[("from_tree_to_verdict", from_tree_to_verdict)];

/// Checks of the quick tier that need what tinyfs says it lacks.
const SKIPPED: &[&str] = &[
    "write_remount_compare",
    "space_returns",
    "service",
    "fio_verify",
];
/// Checks that use its module, mkfs, mount options and control tool.
const PASSED: &[&str] = &[
    "module_load",
    "module_unload",
    "mkfs_mount",
    "vexctl_status",
    "stress",
];

fn from_tree_to_verdict() -> Result<(), Failed> {
    let dir = tempfile::tempdir_in(workspace().join("target"))?;
    let junit = dir.path().join("junit.xml");
    let mut command = vexfs_images(&["ci", "--vexfs-version", "2.3.4", "--verbose"]);
    command
        .arg("--vexfs-source")
        .arg(workspace().join("host-harness/tests/tinyfs"))
        .arg("--output-dir")
        .arg(dir.path());
    if std::env::var_os("VEXFS_CACHE").is_none() {
        command.env("VEXFS_CACHE", super::out().join("cache"));
    }
    command.arg("--junit").arg(&junit);
    let output = expect(command, 0, &[" 0 failed, ", "module_load"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    for (word, checks) in [("skip ", SKIPPED), ("pass ", PASSED)] {
        for check in checks {
            let line = said
                .lines()
                .find(|line| line.contains(&format!("quick::{check} (")))
                .ok_or_else(|| format!("nothing is said of {check}"))?;
            assert!(line.trim_start().starts_with(word), "{line}");
        }
    }
    assert!(said.contains("Tiny FS says it lacks persistence"));
    // A skip is no pass in the report either.
    let report = fs::read_to_string(&junit)?;
    for check in SKIPPED {
        let case = report
            .split("<testcase ")
            .find(|case| case.contains(&format!("name=\"{check}\"")))
            .ok_or_else(|| format!("no case {check}"))?;
        assert!(case.contains("<skipped"), "{case}");
    }
    let manifest = dir.path().join("images/vexfs-minimal-2.3.4/manifest.json");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest)?)?;
    assert_eq!(manifest["module"]["name"], "tiny_fs.ko");
    assert_eq!(manifest["module"]["version"], "2.3.4");
    let packages = manifest["packages"].as_array().cloned().unwrap_or_default();
    assert!(packages.iter().any(|package| package["name"] == "jq"));
    assert!(!packages.iter().any(|package| package["name"] == "m4"));
    one_edit(dir.path())
}

/// A change of its module, in the image that was built: the loop goes by `vexfs-source.toml` too.
fn one_edit(out: &std::path::Path) -> Result<(), Failed> {
    let tree = out.join("tree");
    let from = workspace().join("host-harness/tests/tinyfs");
    let mut copy = std::process::Command::new("cp");
    if !copy.arg("-r").arg(from).arg(&tree).status()?.success() {
        return Err("the tree cannot be copied".into());
    }
    let file = tree.join("kernel/tiny_main.c");
    let text = fs::read_to_string(&file)?;
    let changed = text.replacen(
        "static int __init tiny_init(void)\n{\n",
        "static int __init tiny_init(void)\n{\n\tpr_info(\"tinyfs: one edit\\n\");\n",
        1,
    );
    assert_ne!(
        text, changed,
        "tiny_main.c is not what this test was written for"
    );
    fs::write(&file, changed)?;
    let mut command = vexfs_images(&["try", "--check", "mkfs_mount", "--output-dir"]);
    command.arg(out).arg("--vexfs-source").arg(&tree);
    if std::env::var_os("VEXFS_CACHE").is_none() {
        command.env("VEXFS_CACHE", super::out().join("cache"));
    }
    expect(
        command,
        0,
        &["pass     smoke", "mkfs_mount", "1 passed, 0 failed"],
    )
    .map(drop)
}
