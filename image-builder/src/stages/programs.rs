//! Our programs that run inside the guest, linked statically so that they suit any base.

use std::fs;
use std::path::Path;

use crate::key::Inputs;
use crate::run::Site;
use crate::store::{Entry, Stage};
use crate::{BuildError, key, tree};

/// Name of the stage.
pub(crate) const STAGE: &str = "programs";
/// Cargo packages and the programs they make.
pub(crate) const PROGRAMS: &[(&str, &str)] = &[
    ("guest-agent", "vexfs-agent"),
    ("guest-seed", "vexfs-seed"),
    ("vexctl", "vexctl"),
];
/// Folders and files of the workspace the programs are made from.
const SOURCES: &[&str] = &[
    "agent-protocol",
    "guest-agent",
    "guest-seed",
    "vexctl",
    "Cargo.lock",
    "Cargo.toml",
];
const TARGET: &str = "x86_64-unknown-linux-gnu";
const RUSTFLAGS: &str = "-C target-feature=+crt-static";

/// What the programs are made from.
pub(crate) fn inputs(workspace: &Path, rustc: &str) -> Result<Inputs, BuildError> {
    let mut inputs = Inputs::default()
        .with("rustc", rustc)
        .with("RUSTFLAGS", RUSTFLAGS)
        .with("target", TARGET);
    for source in SOURCES {
        let path = workspace.join(source);
        let digest = if path.is_dir() {
            tree::digest(&path)
        } else {
            key::file_digest(&path)
        };
        inputs = inputs.with(*source, digest.map_err(BuildError::io("read", path))?);
    }
    Ok(inputs)
}

/// Builds them; the entry has one file for each program.
pub(crate) async fn make(
    site: &Site<'_>,
    stage: &Stage,
    workspace: &Path,
) -> Result<Entry, BuildError> {
    site.stage(stage, async |result| {
        let target_dir = workspace.join("target/guest");
        let mut command = Site::background("cargo")
            .args([
                "build",
                "--release",
                "--locked",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(&target_dir)
            .env("RUSTFLAGS", RUSTFLAGS)
            .current_dir(workspace);
        for (package, _) in PROGRAMS {
            command = command.args(["--package", package]);
        }
        site.step(STAGE, command).await?;
        for (_, program) in PROGRAMS {
            let from = target_dir.join(TARGET).join("release").join(program);
            fs::copy(&from, result.join(program)).map_err(BuildError::io("copy", from))?;
        }
        Ok(())
    })
    .await
}
