//! Reproducible: the same inputs give the same disk, byte by byte.

use std::fs;
use std::path::Path;

use libtest_mimic::Failed;

use super::{Row, expect, out, vexfs_images, workspace};

pub const TESTS: &[Row] = &[("the_same_inputs_give_the_same_disk", same_disk)];

/// Stages whose results the second build may not take from the first: base and disk are made anew,
/// and Packer's machine runs again. What is compiled is compiled once; its compiler is not ours.
const MADE_ANEW: &[&str] = &["base", "disk", "image"];

fn same_disk() -> Result<(), Failed> {
    let cache = std::env::var_os("VEXFS_CACHE").map_or_else(|| out().join("cache"), Into::into);
    let dir = tempfile::tempdir_in(workspace().join("target"))?;
    let again = dir.path().join("cache");
    fs::create_dir(&again)?;
    for entry in fs::read_dir(&cache)?.flatten() {
        let name = entry.file_name();
        let part_of_image = MADE_ANEW.iter().any(|stage| name == *stage);
        let ours = name == "snapshots" || name == "tmp" || name == "tools";
        if entry.path().is_dir() && !part_of_image && !ours {
            link_tree(&entry.path(), &again.join(&name))?;
        }
    }
    let build = |out_dir: &Path, cache: &Path, stages: &str| {
        let mut command = vexfs_images(&["build", "--no-validation", "--explain"]);
        command
            .arg("--output-dir")
            .arg(out_dir)
            .env("VEXFS_CACHE", cache);
        expect(command, 0, &[stages]).map(drop)
    };
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    build(&one, &cache, "minimal: image")?;
    build(&other, &again, "done  minimal: image")?;
    let image = Path::new("images/vexfs-minimal-1.0.0");
    let (one, other) = (one.join(image), other.join(image));
    let mut diff = vexfs_images(&["diff"]);
    diff.args([&one, &other]);
    let same = expect(diff, 0, &[]);
    if same.is_err() {
        let said = vexfs_images(&["diff"]).args([&one, &other]).output()?;
        println!("{}", String::from_utf8_lossy(&said.stdout));
    }
    same?;
    let digest = |dir: &Path| -> Result<String, Failed> {
        let text = fs::read(dir.join("manifest.json"))?;
        let manifest: serde_json::Value = serde_json::from_slice(&text)?;
        Ok(manifest["disk"]["sha256"].to_string())
    };
    assert_eq!(
        digest(&one)?,
        digest(&other)?,
        "the trees are the same, the disks are not"
    );
    Ok(())
}

/// Hard links to every file: entries are never written to.
fn link_tree(from: &Path, to: &Path) -> Result<(), Failed> {
    let status = std::process::Command::new("cp")
        .arg("-al")
        .args([from, to])
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("cannot link {}", from.display()).into()),
    }
}
