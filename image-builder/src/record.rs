//! What is written down of a build: its manifest, and what went into it for the documents beside the image.

use std::collections::BTreeMap;

use image::{FileRecord, KernelRecord, Manifest, ProgramRecord, SCHEMA, SourceRecord};

use crate::BuildError;
use crate::archive::PackageSet;
use crate::evidence::{self, Deb, Ingredients};
use crate::plan::{Made, MadeFrom, Plan};
use crate::run::Site;
use crate::source::git;
use crate::stages::{base, builder, linux, module, programs, suites, test_programs};

impl MadeFrom<'_> {
    /// Everything that went into it, for the documents beside the image.
    pub(crate) fn ingredients(&self, plan: &Plan, made: &Made) -> Result<Ingredients, BuildError> {
        let debs = |set: &PackageSet| {
            let debs = set.debs.iter().map(|deb| {
                let (name, version) = deb.name_version();
                Deb {
                    name,
                    version,
                    sha256: deb.sha256.clone(),
                }
            });
            debs.collect()
        };
        let stages = plan.stages();
        Ok(Ingredients {
            debs: [
                (base::STAGE, debs(&self.packages.base.1)),
                (builder::STAGE, debs(&self.packages.builder.set)),
            ]
            .into(),
            crates: self.crates(made)?,
            stages: stages.map(|s| (s.name, s.inputs.clone())).collect(),
        })
    }

    /// The crates in the programs of the image.
    fn crates(&self, made: &Made) -> Result<Vec<evidence::Crate>, BuildError> {
        let workspace = &self.request.workspace;
        let Some(suites) = made.get(suites::STAGE) else {
            return programs::third_party(&[&programs::IMAGE], workspace);
        };
        let sets = [&programs::IMAGE, &programs::PROOF];
        let mut crates = programs::third_party(&sets, workspace)?;
        crates.extend(suites::crates(suites)?);
        crates.sort();
        crates.dedup();
        Ok(crates)
    }

    /// The manifest, but for digests and sizes of files that are still to be written.
    pub(crate) async fn manifest(
        &self,
        site: &Site<'_>,
        plan: &Plan,
        made: &Made,
        name: &str,
    ) -> Result<Manifest, BuildError> {
        let file = |suffix: &str, virtual_bytes| FileRecord {
            name: format!("{name}{suffix}"),
            bytes: 0,
            sha256: String::new(),
            virtual_bytes,
        };
        let contents = base::contents(&made[base::STAGE])?;
        let (kernel, second) = self.kernels();
        let mut tools = self.versions.all();
        tools.insert("rustc".into(), short_rustc(&self.rustc));
        Ok(Manifest {
            schema: SCHEMA,
            key: plan.key.clone(),
            variant: self.request.variant.clone(),
            vexfs_version: self.request.vexfs_version.clone(),
            source_date_epoch: contents.epoch,
            disk: file(".qcow2", Some(self.disk_bytes)),
            compressed: file(".qcow2.zst", None),
            formats: BTreeMap::new(),
            kernel: self.kernel_record(made, kernel)?,
            second_kernel: second
                .map(|kernel| self.kernel_record(made, kernel))
                .transpose()?,
            signing: self.signing.clone(),
            module: module::record(
                &made[module::STAGE],
                self.source_config,
                self.provisioning.payload.variant.debug_module,
            )?,
            source: SourceRecord {
                config: self.source_config.clone(),
                sha256: self.source_digest.clone(),
                commit: match &self.source_origin.commit {
                    Some(commit) => Some(commit.clone()),
                    None => git::commit(site, &self.request.source).await,
                },
                origin: self.source_origin.clone(),
            },
            programs: self.programs(made)?,
            tools,
            variables: self.provisioning.variables.clone(),
            packages: contents.packages,
            stages: made.records(),
        })
    }

    /// The programs in the image that are no package's.
    fn programs(&self, made: &Made) -> Result<BTreeMap<String, ProgramRecord>, BuildError> {
        let mut records = programs::records(&made[programs::STAGE])?;
        let tests = made.get(suites::STAGE).zip(made.get(programs::PROOF.stage));
        if let Some(entries) = tests {
            let tests = test_programs::list(&self.recipe.tools.crates, entries);
            records.extend(test_programs::records(&tests)?);
        }
        Ok(records)
    }

    fn kernel_record(
        &self,
        made: &Made,
        kernel: &KernelRecord,
    ) -> Result<KernelRecord, BuildError> {
        let compiled = match (made.get(linux::STAGE), self.compiled) {
            (Some(entry), Some(compiled)) if self.is_compiled(kernel) => {
                Some(linux::record(entry, compiled)?)
            }
            _ => None,
        };
        Ok(KernelRecord {
            compiled,
            ..kernel.clone()
        })
    }
}

/// `1.95.0` of `rustc -vV`.
fn short_rustc(verbose: &str) -> String {
    let release = verbose
        .lines()
        .find_map(|line| line.strip_prefix("release: "));
    release.unwrap_or("unknown").to_owned()
}
