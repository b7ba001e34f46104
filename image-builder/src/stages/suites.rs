//! Test suites from the Rust crate registry, linked statically so that they run in any guest.

use std::fs;
use std::path::{Path, PathBuf};

use crate::evidence::Crate;
use crate::request::data::CrateProgram;
use crate::run::Site;
use crate::stages::programs::{self, RUSTFLAGS, TARGET};
use crate::store::key::{self, Inputs};
use crate::store::{Entry, Stage};
use crate::{BuildError, host};

/// Name of the stage.
pub(crate) const STAGE: &str = "suites";
/// The crates they are made of, in the entry.
const CRATES: &str = "crates.json";
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
    let how = format!("{TARGET} {RUSTFLAGS} {PROFILE:?} {CRATES}");
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
            .env(
                "CARGO_TARGET_DIR",
                host::cargo_target(workspace).join("suites"),
            );
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
        let mut made_of = Vec::new();
        for program in crates {
            made_of.extend(published(program)?);
        }
        made_of.sort();
        made_of.dedup();
        let list = result.join(CRATES);
        let text = serde_json::to_vec_pretty(&made_of).map_err(std::io::Error::from);
        text.and_then(|text| fs::write(&list, text))
            .map_err(BuildError::io("write", list))
    })
    .await
}

/// The crates the suites of an entry are made of, themselves with them.
pub(crate) fn crates(entry: &Entry) -> Result<Vec<Crate>, BuildError> {
    let list = entry.dir.join(CRATES);
    fs::read(&list)
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .map_err(BuildError::io("read", list))
}

/// A program's own crate and those in the lock file it was published with, as cargo has just fetched them.
fn published(program: &CrateProgram) -> Result<Vec<Crate>, BuildError> {
    let id = format!("{}-{}", program.name, program.version);
    let file = in_registry("cache", &format!("{id}.crate"))?;
    let lock = in_registry("src", &id)?.join("Cargo.lock");
    let text = fs::read_to_string(&lock).map_err(BuildError::io("read", &lock))?;
    let mut crates = programs::locked(&text, [&*program.name].into_iter())
        .map_err(|said| BuildError::DataFile { path: lock, said })?;
    crates.push(Crate {
        name: program.name.clone(),
        version: program.version.clone(),
        sha256: key::file_digest(&file).map_err(BuildError::io("read", file))?,
    });
    Ok(crates)
}

/// What cargo keeps under this name, of whichever registry it is (the Cargo book, "Cargo Home").
fn in_registry(kind: &str, name: &str) -> Result<PathBuf, BuildError> {
    let home = keeper::find::cargo_home().unwrap_or_default();
    let dir = home.join("registry").join(kind);
    let registries = fs::read_dir(&dir).map_err(BuildError::io("list", &dir))?;
    registries
        .flatten()
        .map(|registry| registry.path().join(name))
        .find(|path| path.exists())
        .ok_or_else(|| {
            BuildError::io("find", dir.join("*").join(name))(std::io::ErrorKind::NotFound.into())
        })
}
