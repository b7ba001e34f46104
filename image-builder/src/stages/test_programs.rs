//! The harness's test programs: our own, and suites from the Rust crate registry. They are on the tools
//! disk for checks of the full tier, and in the images of variants that have `test_programs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::ProgramRecord;

use crate::BuildError;
use crate::evidence::Crate;
use crate::request::data::CrateProgram;
use crate::run::Site;
use crate::stages::{programs, suites};
use crate::store::{Entry, Stage};

/// What they are made from.
#[derive(Debug)]
pub(crate) struct TestPrograms {
    crates: Vec<CrateProgram>,
    suites: Stage,
    own: Stage,
}

/// Where they are.
#[derive(Debug)]
pub(crate) struct Made {
    /// Name, version and file of each.
    pub(crate) programs: Vec<(String, String, PathBuf)>,
    suites: Entry,
    own: Entry,
}

impl TestPrograms {
    /// Works out the keys of the stages; runs nothing.
    pub(crate) fn plan(
        crates: &[CrateProgram],
        workspace: &Path,
        rustc: &str,
    ) -> Result<TestPrograms, BuildError> {
        Ok(TestPrograms {
            crates: crates.to_vec(),
            suites: Stage {
                name: suites::STAGE,
                inputs: suites::inputs(crates, rustc),
            },
            own: Stage {
                name: programs::PROOF.stage,
                inputs: programs::inputs(&programs::PROOF, workspace, rustc)?,
            },
        })
    }

    pub(crate) fn stages(&self) -> [&Stage; 2] {
        [&self.suites, &self.own]
    }

    pub(crate) async fn make(&self, site: &Site<'_>, workspace: &Path) -> Result<Made, BuildError> {
        let suites = suites::make(site, &self.suites, &self.crates, workspace).await?;
        let own = programs::make(site, &programs::PROOF, &self.own, workspace).await?;
        let file = |name: &str, version: &str, entry: &Entry| {
            (name.to_owned(), version.to_owned(), entry.dir.join(name))
        };
        let foreign = self.crates.iter();
        let foreign = foreign.map(|program| file(&program.name, &program.version, &suites));
        let ours = programs::PROOF.programs.iter();
        let ours = ours.map(|(_, name)| file(name, env!("CARGO_PKG_VERSION"), &own));
        Ok(Made {
            programs: foreign.chain(ours).collect(),
            suites,
            own,
        })
    }
}

impl Made {
    pub(crate) fn entries(&self) -> [&Entry; 2] {
        [&self.suites, &self.own]
    }

    /// Digests and versions, by name.
    pub(crate) fn records(&self) -> Result<BTreeMap<String, ProgramRecord>, BuildError> {
        let records = self
            .programs
            .iter()
            .map(|(name, version, path)| Ok((name.clone(), ProgramRecord::of(path, version)?)));
        records.collect()
    }

    /// The crates the suites are made of, themselves with them.
    pub(crate) fn crates(&self) -> Result<Vec<Crate>, BuildError> {
        suites::crates(&self.suites)
    }
}
