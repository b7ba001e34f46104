//! The stages of a build, as a table: a row says all there is to say about a stage.
//!
//! From the rows follow the content keys and what a miss says, which stages a build has, in what order
//! they are reported, and which run side by side ([`crate::plan`] works that out). A further stage is a file
//! beside this one that says how it is made, and its row here.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use image::KernelRecord;

use crate::BuildError;
use crate::archive::Archive;
use crate::plan::MadeFrom;
use crate::run::Site;
use crate::stages::linux::Linux;
use crate::stages::payload::Made as PayloadMade;
use crate::stages::programs::{self, IMAGE, PROOF};
use crate::stages::{
    base, builder, disk, linux, module, packer, suites, test_programs, vexctl_source,
};
use crate::store::key::Inputs;
use crate::store::{Entry, KEPT, Stage};

/// A stage whose result is kept in the cache.
pub(crate) struct Row {
    /// In events, logs and the manifest, and its folder in the cache.
    pub(crate) name: &'static str,
    /// Whether a build has it.
    pub(crate) is_in: fn(&MadeFrom<'_>) -> bool,
    /// Stages whose results it is made from, of those the build has.
    pub(crate) from: &'static [From],
    /// Stages it waits for besides: their keys are no part of its own.
    pub(crate) after: &'static [&'static str],
    /// How many results are kept; the least recently used go first.
    pub(crate) kept: usize,
    /// What else it is made from.
    pub(crate) inputs: fn(&MadeFrom<'_>) -> Result<Inputs, BuildError>,
    /// Makes it, or finds it in the cache.
    pub(crate) make: for<'m> fn(&'m Making<'m>, &'m Stage, Results<'m>) -> InTheMaking<'m>,
}

/// A stage another is made from.
pub(crate) struct From {
    pub(crate) stage: &'static str,
    /// What it is called among the other's inputs, and so when a miss says why.
    pub(crate) called: &'static str,
    /// In which builds it is so.
    pub(crate) when: fn(&MadeFrom<'_>) -> bool,
}

/// What making a stage takes besides the results of others.
pub(crate) struct Making<'m> {
    pub(crate) build: &'m MadeFrom<'m>,
    pub(crate) site: &'m Site<'m>,
    pub(crate) archive: &'m Archive,
}

/// The results of the stages a row names, of those the build has.
pub(crate) type Results<'m> = BTreeMap<&'static str, &'m Entry>;
/// A stage in the making.
pub(crate) type InTheMaking<'m> = BoxFuture<'m, Result<Entry, BuildError>>;

/// All but the seal, in the order in which they are reported. The image is made from all others: it is the
/// last.
pub(crate) const TABLE: &[Row] = &[
    Row {
        name: programs::STAGE,
        is_in: always,
        from: &[],
        after: &[],
        kept: KEPT,
        inputs: |build| programs::inputs(&IMAGE, &build.request.workspace, &build.rustc),
        make: |m, stage, _| {
            let workspace = &m.build.request.workspace;
            Box::pin(programs::make(m.site, &IMAGE, stage, workspace))
        },
    },
    Row {
        name: base::STAGE,
        is_in: always,
        from: &[from(linux::STAGE, "compiled kernel")],
        after: &[],
        kept: KEPT,
        inputs: |build| build.base().inputs(),
        make: |m, stage, results| {
            Box::pin(async move {
                let linux = results.get(linux::STAGE).copied();
                let made = m.build.base();
                let made = made.make(m.site, stage, m.archive, linux).await?;
                let (kernel, _) = m.build.kernels();
                base::publish_kernel(m.site, &made, &kernel.release)?;
                Ok(made)
            })
        },
    },
    Row {
        name: builder::STAGE,
        is_in: always,
        from: &[],
        after: &[],
        kept: builder::KEPT,
        inputs: |build| Ok(builder::inputs(&build.packages.builder)),
        make: |m, stage, _| {
            let root = &m.build.packages.builder;
            Box::pin(builder::make(m.site, stage, m.archive, root))
        },
    },
    Row {
        name: linux::STAGE,
        is_in: |build| build.linux().is_some(),
        from: &[from(builder::STAGE, "builder")],
        after: &[],
        kept: linux::KEPT,
        inputs: |build| compiled(build).inputs(),
        make: |m, stage, results| {
            Box::pin(async move {
                let linux = compiled(m.build);
                linux.make(m.site, stage, results[builder::STAGE]).await
            })
        },
    },
    Row {
        name: module::STAGE,
        is_in: always,
        from: &[
            from(builder::STAGE, "builder"),
            From {
                when: |build| build.is_compiled(build.kernels().0),
                ..from(linux::STAGE, "compiled kernel")
            },
        ],
        // Both take every processor there is.
        after: &[linux::STAGE],
        kept: KEPT,
        inputs: |build| Ok(module_inputs(build, build.kernels().0)),
        make: |m, stage, results| Box::pin(module(m, stage, results, m.build.kernels().0)),
    },
    Row {
        name: module::SECOND,
        is_in: |build| build.kernels().1.is_some(),
        from: &[
            from(builder::STAGE, "builder"),
            from(linux::STAGE, "compiled kernel"),
        ],
        // Likewise.
        after: &[module::STAGE],
        kept: KEPT,
        inputs: |build| Ok(module_inputs(build, second(build))),
        make: |m, stage, results| Box::pin(module(m, stage, results, second(m.build))),
    },
    Row {
        name: disk::STAGE,
        is_in: always,
        from: &[from(base::STAGE, "base")],
        after: &[],
        kept: KEPT,
        inputs: |build| Ok(disk::inputs(build.disk_bytes)),
        make: |m, stage, results| {
            let base = results[base::STAGE];
            Box::pin(disk::make(m.site, stage, base, m.build.disk_bytes))
        },
    },
    Row {
        name: vexctl_source::STAGE,
        is_in: |build| build.provisioning.payload.variant.sources,
        from: &[],
        after: &[],
        kept: KEPT,
        inputs: |build| vexctl_source::inputs(&build.request.workspace, &build.rustc),
        make: |m, stage, _| {
            let workspace = &m.build.request.workspace;
            Box::pin(vexctl_source::make(m.site, stage, workspace))
        },
    },
    Row {
        name: suites::STAGE,
        is_in: has_test_programs,
        from: &[],
        after: &[],
        kept: KEPT,
        inputs: |build| Ok(suites::inputs(&build.recipe.tools.crates, &build.rustc)),
        make: |m, stage, _| {
            let crates = &m.build.recipe.tools.crates;
            let workspace = &m.build.request.workspace;
            Box::pin(suites::make(m.site, stage, crates, workspace))
        },
    },
    Row {
        name: PROOF.stage,
        is_in: has_test_programs,
        from: &[],
        // Two cargos at once gain nothing.
        after: &[suites::STAGE],
        kept: KEPT,
        inputs: |build| programs::inputs(&PROOF, &build.request.workspace, &build.rustc),
        make: |m, stage, _| {
            let workspace = &m.build.request.workspace;
            Box::pin(programs::make(m.site, &PROOF, stage, workspace))
        },
    },
    Row {
        name: packer::STAGE,
        is_in: always,
        // The disk first, and what it and the modules need: all wait for that.
        from: &[
            from(disk::STAGE, disk::STAGE),
            from(module::STAGE, module::STAGE),
            from(module::SECOND, module::SECOND),
            from(programs::STAGE, programs::STAGE),
            from(suites::STAGE, suites::STAGE),
            from(PROOF.stage, PROOF.stage),
            from(vexctl_source::STAGE, vexctl_source::STAGE),
        ],
        // Its packages and its time; its key is in the disk's.
        after: &[base::STAGE],
        kept: KEPT,
        inputs: |build| build.provisioning.inputs(),
        make: |m, stage, results| Box::pin(image(m, stage, results)),
    },
];

const fn from(stage: &'static str, called: &'static str) -> From {
    From {
        stage,
        called,
        when: always,
    }
}

fn always(_: &MadeFrom<'_>) -> bool {
    true
}

fn has_test_programs(build: &MadeFrom<'_>) -> bool {
    build.provisioning.payload.variant.test_programs
}

/// The kernel that is compiled, for a row of builds that have one.
fn compiled<'b>(build: &'b MadeFrom<'_>) -> Linux<'b> {
    build.linux().expect("the row says when it is planned")
}

/// The kernel beside the one that boots, likewise.
fn second<'b>(build: &'b MadeFrom<'_>) -> &'b KernelRecord {
    build.kernels().1.expect("the row says when it is planned")
}

fn module_inputs(build: &MadeFrom<'_>, kernel: &KernelRecord) -> Inputs {
    let source = (build.source_digest.as_str(), build.source_config);
    module::inputs(source, &kernel.release, build.signer)
}

async fn module(
    m: &Making<'_>,
    stage: &Stage,
    results: Results<'_>,
    kernel: &KernelRecord,
) -> Result<Entry, BuildError> {
    let linux = results.get(linux::STAGE).map(|linux| linux::tree(linux));
    let room = builder::Room {
        root: results[builder::STAGE],
        release: &kernel.release,
        tree: linux.as_deref().filter(|_| m.build.is_compiled(kernel)),
    };
    let source = (m.build.request.source.as_path(), m.build.source_config);
    module::make(m.site, stage, source, room, m.build.signer).await
}

async fn image(m: &Making<'_>, stage: &Stage, results: Results<'_>) -> Result<Entry, BuildError> {
    let get = |stage| results.get(stage).copied();
    let second = m.build.kernels().1.map(|kernel| kernel.release.as_str());
    let tests = get(suites::STAGE).zip(get(PROOF.stage));
    let tests = tests.map(|entries| test_programs::list(&m.build.recipe.tools.crates, entries));
    let made = PayloadMade {
        module: results[module::STAGE],
        second_module: get(module::SECOND).zip(second),
        programs: results[programs::STAGE],
        test_programs: &tests.unwrap_or_default(),
        vexctl_source: get(vexctl_source::STAGE),
    };
    let epoch = base::contents(results[base::STAGE])?.epoch;
    let disk = (results[disk::STAGE], epoch);
    m.build.provisioning.make(m.site, stage, disk, made).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_stands_once_and_names_rows_that_are_there() {
        let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len(), "two stages of one name");
        for row in TABLE {
            let needs = row.from.iter().map(|from| from.stage);
            for need in needs.chain(row.after.iter().copied()) {
                assert!(names.contains(need), "{}: there is no {need}", row.name);
            }
            let called: BTreeSet<&str> = row.from.iter().map(|from| from.called).collect();
            assert_eq!(
                called.len(),
                row.from.len(),
                "{}: one input of two",
                row.name
            );
        }
    }

    #[test]
    fn all_ends_in_the_image_and_nothing_needs_itself() {
        let needs = |row: &'static Row| {
            let from = row.from.iter().map(|from| from.stage);
            from.chain(row.after.iter().copied())
        };
        let mut left: Vec<&Row> = TABLE.iter().collect();
        for row in &TABLE[..TABLE.len() - 1] {
            let needed = TABLE.iter().flat_map(needs).any(|need| need == row.name);
            assert!(needed, "{} is for nothing", row.name);
        }
        // What needs nothing that is left can be taken away, until nothing is left.
        while !left.is_empty() {
            let names: Vec<&str> = left.iter().map(|row| row.name).collect();
            left.retain(|row| needs(row).any(|need| names.contains(&need)));
            assert!(left.len() < names.len(), "a circle in {names:?}");
        }
    }
}
