//! Test suites from the Rust crate registry, linked statically so that they run in any guest.

use std::fs;
use std::path::Path;

use crate::data::CrateProgram;
use crate::key::Inputs;
use crate::run::Site;
use crate::stages::programs::{RUSTFLAGS, TARGET};
use crate::store::{Entry, Stage};
use crate::{BuildError, host};

/// Name of the stage.
pub(crate) const STAGE: &str = "suites";
/// They spend their time in the kernel: a quick build is worth more than quick code.
const PROFILE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
];

/// What they are made from: a version in the registry never changes, and each is built with the lock
/// file it was published with.
pub(crate) fn inputs(crates: &[CrateProgram], rustc: &str) -> Inputs {
    let how = format!("{TARGET} {RUSTFLAGS} {PROFILE:?}");
    let inputs = Inputs::default().with("rustc", rustc).with("how", how);
    crates.iter().fold(inputs, |inputs, program| {
        inputs.with(&*program.name, &*program.version)
    })
}

/// Builds them; the entry has one file for each.
pub(crate) async fn make(
    site: &Site<'_>,
    stage: &Stage,
    crates: &[CrateProgram],
    workspace: &Path,
) -> Result<Entry, BuildError> {
    site.stage(stage, async |result| {
        let find = Site::program("cc").arg("-print-file-name=libacl.a");
        let found = site.output(STAGE, find).await?;
        host::require_library(&found, "libacl.a", "libacl1-dev")?;
        let work = site.scratch(STAGE)?;
        let mut command = Site::background("cargo")
            .args(["install", "--locked", "--target", TARGET, "--root"])
            .arg(work.path())
            .env("RUSTFLAGS", RUSTFLAGS)
            .env("CARGO_TARGET_DIR", workspace.join("target/suites"));
        for (name, value) in PROFILE {
            command = command.env(name, value);
        }
        for program in crates {
            command = command.arg(format!("{}@{}", program.name, program.version));
        }
        site.step(STAGE, command).await?;
        for program in crates {
            let from = work.path().join("bin").join(&program.name);
            fs::copy(&from, result.join(&program.name)).map_err(BuildError::io("copy", from))?;
        }
        Ok(())
    })
    .await
}
