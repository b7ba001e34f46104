//! The harness's test programs: our own, and suites from the Rust crate registry. They are on the tools
//! disk for checks of the full tier, and in the images of variants that have `test_programs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use image::ProgramRecord;

use crate::BuildError;
use crate::request::data::CrateProgram;
use crate::stages::programs;
use crate::store::Entry;

/// A program that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestProgram {
    pub(crate) name: String,
    version: String,
    pub(crate) path: PathBuf,
}

/// What the two stages left.
pub(crate) fn list(crates: &[CrateProgram], (suites, own): (&Entry, &Entry)) -> Vec<TestProgram> {
    let program = |name: &str, version: &str, entry: &Entry| TestProgram {
        name: name.to_owned(),
        version: version.to_owned(),
        path: entry.dir.join(name),
    };
    let foreign = crates.iter();
    let foreign = foreign.map(|of| program(&of.name, &of.version, suites));
    let ours = programs::PROOF.programs.iter();
    let ours = ours.map(|(_, name)| program(name, env!("CARGO_PKG_VERSION"), own));
    foreign.chain(ours).collect()
}

/// Digests and versions, by name.
pub(crate) fn records(
    programs: &[TestProgram],
) -> Result<BTreeMap<String, ProgramRecord>, BuildError> {
    let records = programs.iter().map(|program| {
        let record = ProgramRecord::of(&program.path, &program.version)?;
        Ok((program.name.clone(), record))
    });
    records.collect()
}
