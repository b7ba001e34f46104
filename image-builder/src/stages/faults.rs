//! The modules and programs of the fault gallery, built like the module under test: by the image's own
//! compiler and headers. They are in no image; tests put them into a guest that is to misbehave.

use std::fs;
use std::path::{Path, PathBuf};

use crate::apt::Archive;
use crate::key::Inputs;
use crate::run::Site;
use crate::stages::{builder, linux};
use crate::store::Stage;
use crate::{BuildError, BuildEvent, FaultsRequest, Manifest, Progress, data, host, tree};

/// Name of the stage.
const STAGE: &str = "faults";
/// The sources, below the workspace.
const SOURCE: &str = "faults/src";
/// Runs in the builder root; leaves what is to be kept in /build/made.
const BUILD: &str = "cd /build/src; make -j$(nproc) KDIR=\"$KDIR\"; mkdir /build/made; \
    strip --strip-debug *.ko; find . -maxdepth 1 -type f \\( -name '*.ko' -o -executable \\) \
    -exec cp {} /build/made \\;";

/// Builds the faults for the kernel of `image`, or finds them in the cache, and returns the folder with
/// the modules (`spin.ko`) and static programs (`eat_memory`).
///
/// # Errors
/// As [`crate::build`].
pub async fn faults(
    request: &FaultsRequest,
    image: &Manifest,
    progress: &dyn Progress,
) -> Result<PathBuf, BuildError> {
    let recipe = data::recipe(&request.workspace)?;
    host::require_tools()?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(BuildError::io("find", path));
    let site = Site {
        cache: absolute(&request.cache_dir)?,
        logs: absolute(&request.out_dir)?.join("logs"),
        name: STAGE.into(),
        progress,
    };
    for dir in [&site.cache, &site.logs] {
        fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
    }
    let source = absolute(&request.workspace)?.join(SOURCE);
    let archive = Archive::open(&site, request.mirror.as_deref()).await?;
    let release = &image.kernel.release;
    let tree = compiled_tree(&site, image)?;
    let series = &image.kernel.series;
    let headers = match &tree {
        None => release.clone(),
        Some(_) => {
            let (package, _) = archive.newest(&site, &recipe.kernels[series]).await?;
            package.trim_start_matches("linux-image-").to_owned()
        }
    };
    let of_series = tree.as_ref().map(|_| series.as_str());
    let asked = builder::packages(&recipe, &image.source.config, &headers, of_series);
    let plan = builder::Root {
        set: archive.resolve(&site, &asked).await?,
        packages: asked,
        release: headers,
        compiled: tree.as_ref().map(|_| release.clone()),
    };
    let root = Stage {
        name: builder::STAGE,
        inputs: builder::inputs(&plan),
    };
    let digest = tree::digest(&source).map_err(BuildError::io("read", &source))?;
    let stage = Stage {
        name: STAGE,
        inputs: Inputs::default()
            .with("sources", digest)
            .with("builder", root.inputs.key())
            .with("kernel", &**release)
            .with("tree", format!("{tree:?}"))
            .with("how", format!("{} {BUILD}", builder::ENTER)),
    };
    progress.event(&BuildEvent::Planned {
        stages: vec![root.name.into(), STAGE.into()],
    });
    let builder = builder::make(&site, &root, &archive, &plan).await?;
    let entry = site
        .stage(&stage, async |result| {
            let work = site.scratch(STAGE)?;
            let build = work.path().join("build");
            tree::copy(&source, &build.join("src")).map_err(BuildError::io("copy", &source))?;
            let workshop = builder::Workshop {
                root: &builder,
                release,
                tree: tree.as_deref(),
            };
            let command = workshop.enter(&site, &build)?.args(["sh", "-euc", BUILD]);
            site.step(STAGE, command).await?;
            let made = build.join("made");
            for file in fs::read_dir(&made).map_err(BuildError::io("list", &made))? {
                let file = file.map_err(BuildError::io("list", &made))?;
                fs::copy(file.path(), result.join(file.file_name()))
                    .map_err(BuildError::io("copy", file.path()))?;
            }
            Ok(())
        })
        .await?;
    Ok(entry.dir)
}

/// Where the tree of the image's kernel is, when that was compiled from source.
fn compiled_tree(site: &Site<'_>, image: &Manifest) -> Result<Option<PathBuf>, BuildError> {
    if image.kernel.compiled.is_none() {
        return Ok(None);
    }
    let stage = image.stages.iter().find(|stage| stage.name == linux::STAGE);
    let tree = stage.map(|stage| linux::tree_of(&site.cache, &stage.key));
    tree.filter(|tree| tree.is_dir())
        .map(Some)
        .ok_or_else(|| BuildError::BadRequest {
            field: "the image's kernel",
            value: image.kernel.release.clone(),
            remedy: "it is no longer in the cache: build the image again".into(),
        })
}
