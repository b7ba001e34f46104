//! The stages of a build with their content keys, before anything runs; and running them.

use std::collections::BTreeMap;

use image::{
    FileRecord, KernelRecord, Manifest, ProgramRecord, SCHEMA, SigningRecord, SigningState,
    SourceConfig, SourceOrigin, SourceRecord, StageRecord,
};

use crate::archive::sources;
use crate::archive::{Archive, PackageSet};
use crate::evidence::{self, Deb, Ingredients};
use crate::request::data::Recipe;
use crate::request::kernel::Compiled;
use crate::request::signing::{self, Signer};
use crate::run::Site;
use crate::source::git;
use crate::stages::base::Base;
use crate::stages::builder::Room;
use crate::stages::linux::{self, Linux};
use crate::stages::packer::Provisioning;
use crate::stages::payload::Made as PayloadMade;
use crate::stages::test_programs::{self, TestPrograms};
use crate::stages::{base, builder, disk, module, packer, programs, seal, vexctl_source};
use crate::store::key::Inputs;
use crate::store::{Entry, Stage};
use crate::versions::Versions;
use crate::{BuildError, BuildRequest, KernelChoice};

/// The Debian packages of a build, resolved to exact versions.
#[derive(Debug)]
pub(crate) struct Packages {
    /// The distribution's kernel.
    pub(crate) distribution: KernelRecord,
    /// The one that is compiled from source.
    pub(crate) compiled: Option<KernelRecord>,
    /// What is asked for in the base, and all that comes with it.
    pub(crate) base: (Vec<String>, PackageSet),
    /// The builder root.
    pub(crate) builder: builder::Root,
}

impl Packages {
    /// The kernel that boots, and the one beside it.
    fn kernels(&self, choice: &KernelChoice) -> (&KernelRecord, Option<&KernelRecord>) {
        match (choice, &self.compiled) {
            (KernelChoice::Source(_), Some(compiled)) => (compiled, None),
            (_, compiled) => (&self.distribution, compiled.as_ref()),
        }
    }
}

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

/// The stages with their keys.
#[derive(Debug)]
pub(crate) struct Plan {
    programs: Stage,
    base: Stage,
    builder: Stage,
    /// For a kernel compiled from source.
    linux: Option<Stage>,
    module: Stage,
    /// For a second kernel.
    second_module: Option<Stage>,
    disk: Stage,
    /// For variants that have them.
    test_programs: Option<TestPrograms>,
    /// For variants with sources.
    sources: Option<Stage>,
    image: Stage,
    /// Content key of the finished image.
    pub(crate) key: String,
}

/// What the stages left.
#[derive(Debug)]
pub(crate) struct Made {
    programs: Entry,
    base: Entry,
    builder: Entry,
    linux: Option<Entry>,
    pub(crate) module: Entry,
    second_module: Option<Entry>,
    disk: Entry,
    test_programs: Option<test_programs::Made>,
    sources: Option<Entry>,
    pub(crate) image: Entry,
}

impl MadeFrom<'_> {
    /// Works out every stage's key. Reads files, runs nothing.
    pub(crate) fn plan(&self) -> Result<Plan, BuildError> {
        let stage = |name, inputs| Stage { name, inputs };
        let programs = programs::inputs(&programs::IMAGE, &self.request.workspace, &self.rustc)?;
        let programs = stage(programs::STAGE, programs);
        let builder = stage(builder::STAGE, builder::inputs(&self.packages.builder));
        let linux = match self.linux() {
            Some(linux) => Some(stage(linux::STAGE, linux.inputs(&builder)?)),
            None => None,
        };
        let base = stage(base::STAGE, self.base(linux.as_ref()).inputs()?);
        let (kernel, second) = self.kernels();
        let module = |name, kernel: &KernelRecord| {
            let linux = linux.as_ref().filter(|_| self.is_compiled(kernel));
            let from = (&builder, linux);
            let release = &kernel.release;
            let digest = &self.source_digest;
            let inputs = module::inputs(digest, self.source_config, from, release, self.signer);
            stage(name, inputs)
        };
        let second_module = second.map(|kernel| module(module::SECOND, kernel));
        let module = module(module::STAGE, kernel);
        let disk = disk::inputs(&base, self.disk_bytes, &self.versions.of(disk::STAGE));
        let disk = stage(disk::STAGE, disk);
        let tools = self.versions.of(packer::STAGE);
        let sources = match self.provisioning.payload.variant.sources {
            true => Some(stage(
                vexctl_source::STAGE,
                vexctl_source::inputs(&self.request.workspace, &self.rustc)?,
            )),
            false => None,
        };
        let test_programs = match self.provisioning.payload.variant.test_programs {
            true => Some(TestPrograms::plan(
                &self.recipe.tools.crates,
                &self.request.workspace,
                &self.rustc,
            )?),
            false => None,
        };
        let made = [&module, &programs].into_iter().chain(&sources);
        let made = made.chain(test_programs.iter().flat_map(TestPrograms::stages));
        let made: Vec<&Stage> = made.chain(&second_module).collect();
        let image = self.provisioning.inputs(&disk, &made, &tools)?;
        let image = stage(packer::STAGE, image);
        let key = Inputs::default()
            .with("image", image.inputs.key())
            .with("compression", seal::COMPRESSION.join(" "))
            .with("beside it", "the module with debug information")
            .with(
                "documents",
                evidence::DOCUMENTS.map(|(name, _)| name).concat(),
            )
            .with_all(self.versions.of(seal::STAGE))
            .key();
        Ok(Plan {
            programs,
            base,
            builder,
            linux,
            module,
            second_module,
            disk,
            test_programs,
            sources,
            image,
            key,
        })
    }

    /// The kernel that boots, and the one beside it.
    fn kernels(&self) -> (&KernelRecord, Option<&KernelRecord>) {
        self.packages.kernels(&self.request.kernel)
    }

    fn is_compiled(&self, kernel: &KernelRecord) -> bool {
        self.packages.compiled.as_ref() == Some(kernel)
    }

    /// The kernel to compile, if there is one.
    fn linux(&self) -> Option<Linux<'_>> {
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

    fn base<'b>(&'b self, linux: Option<&'b Stage>) -> Base<'b> {
        let second = self.kernels().1.map(|kernel| kernel.release.as_str());
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
            linux: linux.map(|linux| (linux, second)),
            tools: self.versions.of(base::STAGE),
        }
    }

    /// Runs every stage that has no result yet, side by side where one does not need the other.
    pub(crate) async fn make(
        &self,
        plan: &Plan,
        site: &Site<'_>,
        archive: &Archive,
    ) -> Result<Made, BuildError> {
        let (kernel, second) = self.kernels();
        let linux = self.linux();
        // What is compiled here, the base waits for as well; whoever comes first makes it.
        let builder = || builder::make(site, &plan.builder, archive, &self.packages.builder);
        let compiled = async |builder: &Entry| match (&linux, &plan.linux) {
            (Some(linux), Some(stage)) => linux.make(site, stage, builder).await.map(Some),
            _ => Ok(None),
        };
        let base = self.base(plan.linux.as_ref());
        let disk = async |linux: Option<&Entry>| {
            let base = base.make(site, &plan.base, archive, linux).await?;
            base::publish_kernel(site, &base, &kernel.release)?;
            let disk = disk::make(site, &plan.disk, &base, self.disk_bytes).await?;
            Ok::<_, BuildError>((base, disk))
        };
        let modules = async |builder: &Entry, linux: Option<&Entry>| {
            let tree = linux.map(linux::tree);
            let source = (self.request.source.as_path(), self.source_config);
            let make = async |stage: &Stage, kernel: &KernelRecord| {
                let room = Room {
                    root: builder,
                    release: &kernel.release,
                    tree: tree.as_deref().filter(|_| self.is_compiled(kernel)),
                };
                module::make(site, stage, source, room, self.signer).await
            };
            let module = make(&plan.module, kernel).await?;
            let second = match (&plan.second_module, second) {
                (Some(stage), Some(kernel)) => Some(make(stage, kernel).await?),
                _ => None,
            };
            Ok::<_, BuildError>((module, second))
        };
        // The distribution's kernel needs no builder to be in the base.
        let kernels = async {
            if plan.linux.is_none() {
                let built = async {
                    let builder = builder().await?;
                    let modules = modules(&builder, None).await?;
                    Ok((builder, modules))
                };
                let (disk, (builder, modules)) = tokio::try_join!(disk(None), built)?;
                return Ok((builder, None, modules, disk));
            }
            let builder = builder().await?;
            let linux = compiled(&builder).await?;
            let (disk, modules) =
                tokio::try_join!(disk(linux.as_ref()), modules(&builder, linux.as_ref()))?;
            Ok((builder, linux, modules, disk))
        };
        let programs = programs::make(
            site,
            &programs::IMAGE,
            &plan.programs,
            &self.request.workspace,
        );
        let sources = async {
            match &plan.sources {
                Some(stage) => vexctl_source::make(site, stage, &self.request.workspace)
                    .await
                    .map(Some),
                None => Ok(None),
            }
        };
        let test_programs = async {
            match &plan.test_programs {
                Some(plan) => plan.make(site, &self.request.workspace).await.map(Some),
                None => Ok(None),
            }
        };
        let (
            (builder, linux, (module, second_module), (base, disk)),
            programs,
            test_programs,
            sources,
        ) = tokio::try_join!(kernels, programs, test_programs, sources)?;
        let second_release = second.map(|kernel| kernel.release.as_str());
        let made = PayloadMade {
            module: &module,
            second_module: second_module.as_ref().zip(second_release),
            programs: &programs,
            test_programs: test_programs.as_ref(),
            vexctl_source: sources.as_ref(),
        };
        let image = self
            .provisioning
            .make(
                site,
                &plan.image,
                (&disk, base::contents(&base)?.epoch),
                made,
            )
            .await?;
        Ok(Made {
            programs,
            base,
            builder,
            linux,
            module,
            second_module,
            disk,
            test_programs,
            sources,
            image,
        })
    }

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
        let stages = plan.stages().into_iter();
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
        let Some(tests) = &made.test_programs else {
            return programs::third_party(&[&programs::IMAGE], workspace);
        };
        let sets = [&programs::IMAGE, &programs::PROOF];
        let mut crates = programs::third_party(&sets, workspace)?;
        crates.extend(tests.crates()?);
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
        let contents = base::contents(&made.base)?;
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
                &made.module,
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
            programs: made.programs()?,
            tools,
            variables: self.provisioning.variables.clone(),
            packages: contents.packages,
            stages: made.records(),
        })
    }

    fn kernel_record(
        &self,
        made: &Made,
        kernel: &KernelRecord,
    ) -> Result<KernelRecord, BuildError> {
        let compiled = match (&made.linux, self.compiled) {
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

impl Plan {
    /// The stages' names, in the order in which they are reported.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.stages().into_iter().map(|stage| stage.name.to_owned());
        names.chain([seal::STAGE.into()]).collect()
    }

    fn stages(&self) -> Vec<&Stage> {
        let stages = [&self.programs, &self.base, &self.builder];
        let stages = stages.into_iter().chain(&self.linux);
        let stages = stages.chain([&self.module]).chain(&self.second_module);
        let stages = stages.chain([&self.disk]).chain(&self.sources);
        let tests = self.test_programs.iter().flat_map(TestPrograms::stages);
        stages.chain(tests).chain([&self.image]).collect()
    }
}

impl Made {
    fn records(&self) -> Vec<StageRecord> {
        let entries = [&self.programs, &self.base, &self.builder];
        let entries = entries.into_iter().chain(&self.linux);
        let entries = entries.chain([&self.module]).chain(&self.second_module);
        let entries = entries.chain([&self.disk]).chain(&self.sources);
        let tests = self.test_programs.iter();
        let tests = tests.flat_map(test_programs::Made::entries);
        let entries = entries.chain(tests).chain([&self.image]);
        entries.map(|entry| entry.record.clone()).collect()
    }

    /// The programs in the image that are no package's.
    fn programs(&self) -> Result<BTreeMap<String, ProgramRecord>, BuildError> {
        let mut records = programs::records(&self.programs)?;
        if let Some(tests) = &self.test_programs {
            records.extend(tests.records()?);
        }
        Ok(records)
    }
}

/// `1.95.0` of `rustc -vV`.
fn short_rustc(verbose: &str) -> String {
    let release = verbose
        .lines()
        .find_map(|line| line.strip_prefix("release: "));
    release.unwrap_or("unknown").to_owned()
}
