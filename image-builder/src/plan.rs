//! The stages of a build with their content keys, before anything runs; and running them.
//!
//! What there is to know of a stage is its row in [`TABLE`]; all here goes by the rows.

use std::collections::BTreeMap;
use std::ops::Index;

use futures_util::future::try_join_all;
use image::{KernelRecord, SigningRecord, SigningState, SourceConfig, SourceOrigin, StageRecord};
use tokio::sync::SetOnce;

use crate::archive::{Archive, sources};
use crate::packages::Packages;
use crate::request::data::Recipe;
use crate::request::kernel::Compiled;
use crate::request::signing::{self, Signer};
use crate::run::Site;
use crate::stages::base::Base;
use crate::stages::linux::Linux;
use crate::stages::packer::{self, Provisioning};
use crate::stages::seal;
use crate::stages::table::{Making, Results, Row, TABLE};
use crate::store::{Entry, Stage};
use crate::versions::Versions;
use crate::{BuildError, BuildRequest};

/// Everything that decides what the image will be.
pub(crate) struct MadeFrom<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) recipe: &'a Recipe,
    pub(crate) packages: &'a Packages,
    /// How the kernel is compiled, if one is.
    pub(crate) compiled: Option<&'a Compiled>,
    pub(crate) signer: Option<&'a Signer>,
    pub(crate) signing: SigningRecord,
    pub(crate) provisioning: &'a Provisioning<'a>,
    pub(crate) disk_bytes: u64,
    pub(crate) source_digest: String,
    pub(crate) source_origin: SourceOrigin,
    pub(crate) source_config: &'a SourceConfig,
    pub(crate) versions: Versions,
    pub(crate) rustc: String,
}

/// The stages a build has, with their keys.
pub(crate) struct Plan {
    /// In the order of work: each comes after those it needs.
    rows: Vec<&'static Row>,
    stages: BTreeMap<&'static str, Stage>,
    /// Content key of the finished image.
    pub(crate) key: String,
}

/// What the stages left.
#[derive(Debug)]
pub(crate) struct Made(BTreeMap<&'static str, Entry>);

impl MadeFrom<'_> {
    /// Works out every stage's key. Reads files, runs nothing.
    pub(crate) fn plan(&self) -> Result<Plan, BuildError> {
        let mut rows = Vec::new();
        // From the image on: it is made from all others.
        for row in TABLE.iter().rev().filter(|row| (row.is_in)(self)) {
            self.with_needs(row, &mut rows);
        }
        let mut stages: BTreeMap<&'static str, Stage> = BTreeMap::new();
        for row in &rows {
            let mut inputs = (row.inputs)(self)?.with_all(self.versions.of(row.name));
            for from in row.from.iter().filter(|from| (from.when)(self)) {
                if let Some(stage) = stages.get(from.stage) {
                    inputs = inputs.with(from.called, stage.inputs.key());
                }
            }
            let stage = Stage {
                name: row.name,
                inputs,
                kept: row.kept,
            };
            stages.insert(row.name, stage);
        }
        let key = seal::inputs(&stages[packer::STAGE], &self.versions).key();
        Ok(Plan { rows, stages, key })
    }

    /// Adds a row after those it needs, unless it is there.
    fn with_needs(&self, row: &'static Row, rows: &mut Vec<&'static Row>) {
        if rows.iter().any(|there| there.name == row.name) {
            return;
        }
        for need in self.needs(row) {
            let need = TABLE.iter().find(|row| row.name == need);
            if let Some(need) = need.filter(|row| (row.is_in)(self)) {
                self.with_needs(need, rows);
            }
        }
        rows.push(row);
    }

    /// Every stage a row waits for, of those there are.
    fn needs(&self, row: &'static Row) -> impl Iterator<Item = &'static str> {
        let from = row.from.iter().filter(|from| (from.when)(self));
        let from = from.map(|from| from.stage);
        from.chain(row.after.iter().copied())
    }

    /// Runs every stage that has no result yet, side by side where one does not need the other.
    pub(crate) async fn make(
        &self,
        plan: &Plan,
        site: &Site<'_>,
        archive: &Archive,
    ) -> Result<Made, BuildError> {
        let making = &Making {
            build: self,
            site,
            archive,
        };
        let names = plan.rows.iter().map(|row| row.name);
        let made: BTreeMap<_, SetOnce<Entry>> = names.map(|name| (name, SetOnce::new())).collect();
        let one = async |row: &'static Row| {
            let mut results = Results::new();
            for need in self.needs(row) {
                if let Some(result) = made.get(need) {
                    results.insert(need, result.wait().await);
                }
            }
            let entry = (row.make)(making, &plan.stages[row.name], results).await?;
            // Each row is there once.
            let _first = made[row.name].set(entry);
            Ok::<_, BuildError>(())
        };
        try_join_all(plan.rows.iter().map(|row| one(row))).await?;
        let made = made.into_iter();
        let made = made.filter_map(|(name, entry)| Some((name, entry.into_inner()?)));
        Ok(Made(made.collect()))
    }

    /// The kernel that boots, and the one beside it.
    pub(crate) fn kernels(&self) -> (&KernelRecord, Option<&KernelRecord>) {
        self.packages.kernels(&self.request.kernel)
    }

    /// Whether it is this kernel that is compiled.
    pub(crate) fn is_compiled(&self, kernel: &KernelRecord) -> bool {
        self.packages.compiled.as_ref() == Some(kernel)
    }

    /// The kernel to compile, if there is one.
    pub(crate) fn linux(&self) -> Option<Linux<'_>> {
        let record = self.packages.compiled.as_ref()?;
        Some(Linux {
            compiled: self.compiled?,
            series: &record.series,
            release: &record.release,
            version: &record.version,
            distribution: &self.packages.distribution.release,
            choice: &self.request.kernel,
            source: &self.request.source,
            config: self.source_config,
            signer: self.signer,
        })
    }

    /// The base, before it is made.
    pub(crate) fn base(&self) -> Base<'_> {
        Base {
            workspace: &self.request.workspace,
            recipe: self.recipe,
            packages: &self.packages.base.0,
            set: &self.packages.base.1,
            image_sources: sources::in_image(
                &self.request.image_mirror,
                &self.request.image_security_mirror,
            ),
            kernel_parameters: match self.signing.state {
                SigningState::Enforced => signing::ENFORCE,
                _ => "",
            },
            second: self.kernels().1.map(|kernel| kernel.release.as_str()),
        }
    }
}

impl Plan {
    /// The stages' names, in the order in which they are reported.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.stages().map(|stage| stage.name.to_owned());
        names.chain([seal::STAGE.into()]).collect()
    }

    /// The stages, in that order.
    pub(crate) fn stages(&self) -> impl Iterator<Item = &Stage> {
        TABLE.iter().filter_map(|row| self.stages.get(row.name))
    }
}

impl Made {
    /// The result of a stage that not every build has.
    pub(crate) fn get(&self, stage: &str) -> Option<&Entry> {
        self.0.get(stage)
    }

    /// What the manifest says of them, in the order in which they are reported.
    pub(crate) fn records(&self) -> Vec<StageRecord> {
        let entries = TABLE.iter().filter_map(|row| self.get(row.name));
        entries.map(|entry| entry.record.clone()).collect()
    }
}

/// The result of a stage that every build has.
impl Index<&str> for Made {
    type Output = Entry;

    fn index(&self, stage: &str) -> &Entry {
        &self.0[stage]
    }
}
