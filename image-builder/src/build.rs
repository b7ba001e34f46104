//! One build, from request to image.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use image::{Format, Image};

use crate::archive::{Archive, sources};
use crate::plan::{MadeFrom, Plan};
use crate::request::access::Access;
use crate::request::kernel::Compiled;
use crate::request::signing::{self, Signer};
use crate::request::{check, data};
use crate::run::Site;
use crate::stages::packer::Provisioning;
use crate::stages::{module, packer, programs, seal};
use crate::store::cache;
use crate::versions::Versions;
use crate::{BuildError, BuildEvent, BuildRequest, Progress, host, packages, run, source};

/// Free space asked for before anything is built, in MiB: what a cold minimal build leaves in the
/// cache (2.1 GiB with downloads) and the image with its compressed form, each with room to spare.
const CACHE_MIB: u64 = 3072;
const OUT_MIB: u64 = 1024;

/// Builds the image, or finds that it is there already (same inputs: under a second).
///
/// Dropping the future ends everything that was started and leaves nothing half-written: results
/// appear under their names by rename(2) only when whole. Two builds with the same cache or output
/// directory share the work: what one makes the other waits for.
///
/// The process must have called [`keeper::hook`] first thing in `main`.
///
/// # Errors
/// See [`BuildError`]; an earlier image of the same name is untouched by any of them.
pub async fn build(request: &BuildRequest, progress: &dyn Progress) -> Result<Image, BuildError> {
    let request = &check::absolute(request)?;
    let variant = data::variant(&request.workspace, &request.variant)?;
    let recipe = data::recipe(&request.workspace)?.of(&variant);
    let disk_bytes = check::check(request, &recipe, &variant)?;
    let access = Access::read(request)?;
    host::require_tools()?;
    let sources = sources::named(request)?;
    let (cache, name) = (request.cache_dir.clone(), request.variant.clone());
    let site = Site::new(cache, &request.out_dir, name, progress);
    for dir in [&site.cache, &site.logs] {
        fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
    }
    run::require_namespaces(&site).await?;
    site.sweep().await;
    let source = source::prepare(&site, request).await?;
    let config = source.config;
    let request = &BuildRequest {
        source: source.tree,
        // Must not be left in the image, whichever it is.
        mirror: sources.as_ref().map(|s| s[0].uri.clone()),
        ..request.clone()
    };
    let compiled = match request.kernel.preset() {
        Some(preset) => Some(Compiled::read(&request.workspace, preset)?),
        None => None,
    };
    let request = &check::slowed(request, compiled.as_ref());
    let signer = Signer::read(request.module_signing.as_ref())?;
    let archive = match &sources {
        Some(sources) => Archive::open_at(&site, sources).await?,
        None => Archive::open(&site, None).await?,
    };
    let wanted = (request, compiled.as_ref());
    let packages = packages::resolve(&site, &archive, &recipe, &variant, &config, wanted).await?;
    let provisioning = Provisioning::new(request, &variant, &config, access)?;
    let made_from = MadeFrom {
        request,
        recipe: &recipe,
        packages: &packages,
        compiled: compiled.as_ref(),
        signer: signer.as_ref(),
        signing: signing::record(signer.as_ref(), &request.kernel, variant.lockdown),
        provisioning: &provisioning,
        disk_bytes,
        source_config: &config,
        source_digest: source.digest,
        source_origin: source.origin,
        versions: Versions::ask(&site).await?,
        rustc: programs::rustc(&site, programs::STAGE, &request.workspace).await?,
    };
    let plan = made_from.plan()?;
    let stages = plan.names();
    progress.event(&BuildEvent::Planned {
        stages: stages.clone(),
    });
    let name = format!("vexfs-{}-{}", request.variant, request.vexfs_version);
    let images = request.out_dir.join("images");
    let dir = images.join(&name);
    fs::create_dir_all(&images).map_err(BuildError::io("make", &images))?;
    let _lock = site.lock(&images.join(format!(".{name}.lock"))).await?;
    let mut forms = request.formats.clone();
    let why = match in_place(&dir, &plan, &mut forms) {
        Ok(image) => {
            for stage in stages {
                progress.event(&BuildEvent::StageCached { stage });
            }
            return Ok(image);
        }
        Err(why) => why,
    };
    host::require_space(&site.cache, "the build", CACHE_MIB)?;
    host::require_space(&images, "the image", OUT_MIB)?;
    let made = made_from.make(&plan, &site, &archive).await?;
    progress.event(&BuildEvent::StageStarted {
        stage: seal::STAGE.into(),
        why: why.into(),
    });
    run::fresh_log(&site.log(seal::STAGE))?;
    let since = Instant::now();
    let manifest = made_from.manifest(&site, &plan, &made, &name).await?;
    let ingredients = made_from.ingredients(&plan, &made)?;
    let parts = (&made[packer::STAGE], &made[module::STAGE]);
    let image = seal::seal(&site, &dir, parts, manifest, &forms, &ingredients).await?;
    progress.event(&BuildEvent::StageDone {
        stage: seal::STAGE.into(),
        seconds: since.elapsed().as_secs_f64(),
    });
    // What this build has used it still holds.
    let freed = cache::trim(&site.cache, request.cache_cap);
    if freed > 0 {
        site.note(format!("cache: {} MiB of old stages removed", freed >> 20));
    }
    Ok(image)
}

/// The image in place if it is whole, made from exactly these inputs and has these forms, else why it
/// will not do. Forms it has are kept.
fn in_place(dir: &Path, plan: &Plan, forms: &mut BTreeSet<Format>) -> Result<Image, &'static str> {
    let image = Image::read(dir.to_owned()).map_err(|_| "there is no image in place")?;
    if image.manifest.key != plan.key {
        return Err("the image in place is of other inputs");
    }
    let there = &image.manifest.formats;
    let lacks = forms
        .iter()
        .any(|form| *form != Format::Qcow2 && !there.contains_key(form));
    forms.extend(there.keys());
    if lacks {
        return Err("the image in place lacks a format");
    }
    if !image.has_files() {
        return Err("the image in place is damaged");
    }
    Image::open(dir).map_err(|_| "the image in place is damaged")
}
