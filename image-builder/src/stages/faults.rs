//! The modules and programs of the fault gallery, built like the module under test: by the image's own
//! compiler and headers. They are in no image; tests put them into a guest that is to misbehave.

use std::fs;
use std::path::{Path, PathBuf};

use image::Manifest;

use crate::run::Site;
use crate::source::tree;
use crate::stages::{builder, linux};
use crate::store::key::Inputs;
use crate::store::{KEPT, Stage};
use crate::{BuildError, FaultsRequest, Progress, host};

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
    host::require_tools()?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(BuildError::io("find", path));
    let (cache, out) = (absolute(&request.cache_dir)?, absolute(&request.out_dir)?);
    let site = Site::new(cache, &out, STAGE, progress);
    for dir in [&site.cache, &site.logs] {
        fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
    }
    let source = absolute(&request.workspace)?.join(SOURCE);
    let release = &image.kernel.release;
    let tree = linux::tree_of_image(&site, image)?;
    let digest = tree::digest(&source).map_err(BuildError::io("read", &source))?;
    let place = (&*request.workspace, request.mirror.as_deref());
    let builder = builder::of_image(&site, place, image, &image.source.config).await?;
    let stage = Stage {
        name: STAGE,
        inputs: Inputs::default()
            .with("sources", digest)
            .with("builder", &*builder.record.key)
            .with("kernel", &**release)
            .with("tree", format!("{tree:?}"))
            .with("how", format!("{} {BUILD}", builder::ENTER)),
        kept: KEPT,
    };
    let entry = site
        .stage(&stage, async |result| {
            let work = site.scratch(STAGE)?;
            let build = work.path().join("build");
            tree::copy(&source, &build.join("src")).map_err(BuildError::io("copy", &source))?;
            let room = builder::Room {
                root: &builder,
                release,
                tree: tree.as_deref(),
            };
            let command = room.enter(&site, &build)?.args(["sh", "-euc", BUILD]);
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
