//! One build, from request to image.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use image::{Format, Image, KernelRecord, SourceConfig};

use crate::archive::sources::{self, SNAPSHOT_ARCHIVE, Snapshot, Source};
use crate::archive::{Archive, Deb, PackageSet};
use crate::plan::{MadeFrom, Packages, Plan};
use crate::request::access::Access;
use crate::request::data::{self, Recipe, Variant};
use crate::request::kernel::Compiled;
use crate::request::signing::{self, Signer};
use crate::run::Site;
use crate::stages::packer::Provisioning;
use crate::stages::{builder, linux, programs, seal};
use crate::store::cache;
use crate::versions::Versions;
use crate::{BuildError, BuildEvent, BuildRequest, Progress, host, run, source};

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
    let request = &absolute(request)?;
    let variant = data::variant(&request.workspace, &request.variant)?;
    let recipe = data::recipe(&request.workspace)?.of(&variant);
    let disk_bytes = check(request, &recipe, &variant)?;
    let access = Access::read(request)?;
    host::require_tools()?;
    let sources = sources(request)?;
    let site = Site {
        cache: request.cache_dir.clone(),
        logs: request.out_dir.join("logs"),
        name: request.variant.clone(),
        progress,
    };
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
    let request = &slowed(request, compiled.as_ref());
    let signer = Signer::read(request.module_signing.as_ref())?;
    let archive = match &sources {
        Some(sources) => Archive::open_at(&site, sources).await?,
        None => Archive::open(&site, None).await?,
    };
    let wanted = (request, compiled.as_ref());
    let packages = resolve(&site, &archive, &recipe, &variant, &config, wanted).await?;
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
    let parts = (&made.image, &made.module);
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

/// The archive named in the request, if one is.
fn sources(request: &BuildRequest) -> Result<Option<Vec<Source>>, BuildError> {
    let keyring = request.keyring.as_deref();
    match (&request.snapshot_date, &request.mirror) {
        (Some(date), _) => {
            let pattern = request.snapshot_mirror.as_deref();
            let pattern = pattern.unwrap_or(SNAPSHOT_ARCHIVE);
            sources::from_snapshot(Snapshot { pattern, date }, keyring).map(Some)
        }
        (None, Some(url)) => sources::from_mirror(url, keyring).map(Some),
        (None, None) => Ok(None),
    }
}

/// The request with absolute paths: steps run in other directories.
fn absolute(request: &BuildRequest) -> Result<BuildRequest, BuildError> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(BuildError::io("find", path));
    Ok(BuildRequest {
        workspace: absolute(&request.workspace)?,
        out_dir: absolute(&request.out_dir)?,
        cache_dir: absolute(&request.cache_dir)?,
        ..request.clone()
    })
}

/// Checks what can be checked without doing anything; returns the disk's size in bytes.
fn check(request: &BuildRequest, recipe: &Recipe, variant: &Variant) -> Result<u64, BuildError> {
    let bad = |field, value: &str, remedy: String| BuildError::BadRequest {
        field,
        value: value.into(),
        remedy,
    };
    let kernel = &request.kernel_version;
    if !recipe.kernels.contains_key(kernel) {
        let known: Vec<_> = recipe.kernels.keys().map(String::as_str).collect();
        let remedy = format!("the recipe has {}", known.join(" and "));
        return Err(bad("--kernel-version", kernel, remedy));
    }
    let version = &request.vexfs_version;
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let dotted = numbers
        .split('.')
        .filter(|part| part.parse::<u32>().is_ok())
        .count()
        == 3;
    let plain = version
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || ".+-".contains(c));
    if !dotted || !plain {
        let remedy = "a version looks like 1.0.0 or 1.0.0-rc.1".into();
        return Err(bad("--vexfs-version", version, remedy));
    }
    if !["kvm", "tcg"].contains(&request.accelerator.as_str()) {
        let remedy = "QEMU's accelerators here are kvm and tcg".into();
        return Err(bad("--accel", &request.accelerator, remedy));
    }
    let size = request.disk_size.as_ref().unwrap_or(&variant.disk_size);
    disk_bytes(size).ok_or_else(|| {
        bad(
            "--disk-size",
            size,
            "a size looks like 8G, from 1G to 64T".into(),
        )
    })
}

/// `8G` in bytes.
fn disk_bytes(size: &str) -> Option<u64> {
    let bytes = cache::parse_size(size)?;
    ((1 << 30)..=(64 << 40)).contains(&bytes).then_some(bytes)
}

/// The request with as much patience as the kernel needs that Packer boots.
fn slowed(request: &BuildRequest, compiled: Option<&Compiled>) -> BuildRequest {
    let boots = compiled.filter(|_| !request.kernel.has_package());
    BuildRequest {
        ssh_timeout: request
            .ssh_timeout
            .mul_f64(boots.map_or(1.0, |kernel| kernel.preset.slowdown.max(1.0))),
        ..request.clone()
    }
}

/// Resolves the packages of a build to exact versions.
async fn resolve(
    site: &Site<'_>,
    archive: &Archive,
    recipe: &Recipe,
    variant: &Variant,
    config: &SourceConfig,
    (request, compiled): (&BuildRequest, Option<&Compiled>),
) -> Result<Packages, BuildError> {
    let series = request.kernel_version.as_str();
    let (package, version) = archive.newest(site, &recipe.kernels[series]).await?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let has_package = request.kernel.has_package();
    let of_variant = variant.packages.iter();
    if let Some(package) = of_variant.clone().find(|name| name.contains(PLACEHOLDER))
        && !has_package
    {
        return Err(BuildError::BadRequest {
            field: "--kernel",
            value: request.kernel.to_string(),
            remedy: format!(
                "variant {} wants {package}, which only the distribution's kernel has: use both:PRESET",
                variant.image_variant
            ),
        });
    }
    let mut base = vec!["?essential".to_owned(), "apt".into()];
    base.push(match has_package {
        true => package.clone(),
        // What the kernel's own package would have brought.
        false => "linux-base".into(),
    });
    base.extend(
        recipe
            .packages
            .iter()
            .chain(of_variant)
            .chain(&config.runtime_packages)
            .map(|name| name.replace(PLACEHOLDER, &release)),
    );
    let source = compiled.map(|_| series);
    let asked = builder::packages(recipe, config, &release, source);
    let base_set = archive.resolve(site, &base).await?;
    let set = archive.resolve(site, &asked).await?;
    let compiled = match compiled {
        None => None,
        Some(compiled) => Some(compiled_kernel(compiled, series, &set)?),
    };
    Ok(Packages {
        distribution: KernelRecord {
            series: series.into(),
            release: release.clone(),
            package,
            version,
            compiled: None,
        },
        base: (base, base_set),
        builder: builder::Root {
            packages: asked,
            set,
            release,
            compiled: compiled.as_ref().map(|kernel| kernel.release.clone()),
        },
        compiled,
    })
}

/// Stands for the release of the distribution's kernel in names of packages.
const PLACEHOLDER: &str = "@KERNEL@";

/// What the kernel that is compiled from the source in `set` will be.
fn compiled_kernel(
    compiled: &Compiled,
    series: &str,
    set: &PackageSet,
) -> Result<KernelRecord, BuildError> {
    let source = format!("linux-source-{series}");
    let debs = set.debs.iter().map(Deb::name_version);
    let version = debs.into_iter().find(|(name, _)| *name == source);
    let (_, version) = version.ok_or_else(|| BuildError::Packages {
        said: format!("no {source} among the packages of the builder root"),
    })?;
    let release = compiled.release(&version);
    Ok(KernelRecord {
        series: series.into(),
        package: linux::package(&release),
        release,
        version,
        compiled: None,
    })
}
