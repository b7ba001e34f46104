//! The builder root: the image's own compiler and kernel headers, unpacked and not configured.
//!
//! It needs no maintainer script and no privilege to make, only to be entered.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::apt::{Archive, PackageSet};
use crate::data::{self, Recipe};
use crate::key::Inputs;
use crate::run::Site;
use crate::store::{Entry, Stage};
use crate::{BuildError, Manifest, SourceConfig};

/// Name of the stage.
pub(crate) const STAGE: &str = "builder";
/// Packages a shell, make and kbuild need beside the recipe's, since nothing pulls in "essential".
const PACKAGES: &[&str] = &[
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "mawk",
    "grep",
    "gzip",
    "sed",
    "tar",
    "usr-is-merged",
];
/// What update-alternatives(1) would have linked.
const ALTERNATIVES: &[(&str, &str)] = &[("awk", "/usr/bin/mawk"), ("cc", "/usr/bin/gcc")];
/// Unpacks `.deb` files ($1 the root, then the files), two at a time.
const UNPACK: &str =
    "root=$1; shift; printf '%s\\0' \"$@\" | xargs -0 -P 2 -I{} dpkg-deb -x {} \"$root\"";

/// Enters the builder root $1 with $2 mounted on /build and runs the rest, in a mount namespace
/// (unshare(1)): what is mounted here is gone with the last process.
pub(crate) const ENTER: &str = "mount --rbind /dev \"$1/dev\"; mount --rbind /proc \"$1/proc\"; \
    mount --bind \"$2\" \"$1/build\"; root=$1; shift 2; exec chroot \"$root\" \"$@\"";

/// What is asked for in it, for kernel `release`.
pub(crate) fn packages(recipe: &Recipe, config: &SourceConfig, release: &str) -> Vec<String> {
    let mut packages = vec![format!("linux-headers-{release}")];
    packages.extend(PACKAGES.iter().map(|name| name.to_string()));
    packages.extend(recipe.builder.packages.iter().cloned());
    packages.extend(config.build_packages.iter().cloned());
    packages
}

/// What it is made from.
pub(crate) fn inputs(set: &PackageSet, release: &str) -> Inputs {
    Inputs::default()
        .with_all(set.inputs())
        .with("kernel", release)
        .with(
            "how",
            format!("{UNPACK} {} {ALTERNATIVES:?}", uname(release)),
        )
}

/// Makes it; the entry has `root`.
pub(crate) async fn make(
    site: &Site<'_>,
    stage: &Stage,
    archive: &Archive,
    packages: &[String],
    set: &PackageSet,
    release: &str,
) -> Result<Entry, BuildError> {
    site.stage(stage, async |result| {
        let work = site.scratch(STAGE)?;
        let debs = work.path().join("debs");
        archive.fetch(site, STAGE, packages, set, &debs).await?;
        let root = result.join("root");
        unpack(site, STAGE, &debs, set, &root).await?;
        let bin = root.join("usr/local/bin");
        let fake = bin.join("uname");
        fs::create_dir_all(&bin)
            .and_then(|()| fs::create_dir_all(root.join("build")))
            .and_then(|()| fs::write(&fake, uname(release)))
            .and_then(|()| fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)))
            .map_err(BuildError::io("write", fake))?;
        for (name, program) in ALTERNATIVES {
            symlink(program, bin.join(name)).map_err(BuildError::io("link", bin.join(name)))?;
        }
        Ok(())
    })
    .await
}

/// The root in which the module of `image` was built, as it is in the cache. When it is not there any
/// more, or `config` asks for other packages than the image's, one is made for the image's kernel.
pub(crate) async fn of_image(
    site: &Site<'_>,
    (workspace, mirror): (&Path, Option<&str>),
    image: &Manifest,
    config: &SourceConfig,
) -> Result<Entry, BuildError> {
    let made = image.stages.iter().find(|stage| stage.name == STAGE);
    if config.build_packages == image.source.config.build_packages
        && let Some(made) = made
        && let Some(entry) = site.find(STAGE, &made.key).await
    {
        return Ok(entry);
    }
    let recipe = data::recipe(workspace)?;
    let archive = Archive::open(site, mirror).await?;
    let release = &image.kernel.release;
    let asked = packages(&recipe, config, release);
    let set = archive.resolve(site, &asked).await?;
    let stage = Stage {
        name: STAGE,
        inputs: inputs(&set, release),
    };
    make(site, &stage, &archive, &asked, &set, release).await
}

/// Unpacks a set of packages whose files are in `debs` into `root`.
pub(crate) async fn unpack(
    site: &Site<'_>,
    stage: &str,
    debs: &Path,
    set: &PackageSet,
    root: &Path,
) -> Result<(), BuildError> {
    fs::create_dir_all(root).map_err(BuildError::io("make", root))?;
    let command = Site::background("sh")
        .args(["-euc", UNPACK, "sh"])
        .arg(root)
        .args(set.debs.iter().map(|deb| debs.join(&deb.file)));
    site.step(stage, command).await
}

/// The beginning of a command that runs in the builder root of kernel `release`, with `build` mounted
/// on `/build`: what follows are further `NAME=value` of its environment, and its words.
pub(crate) fn enter(builder: &Entry, build: &Path, release: &str) -> keeper::Kept {
    Site::background("unshare")
        .args(namespaces())
        .args(["sh", "-euc", ENTER, "sh"])
        .args([builder.dir.join("root"), build.to_owned()])
        .args([
            "/usr/bin/env",
            "-i",
            "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        ])
        .args([
            "HOME=/build",
            "LC_ALL=C",
            "KBUILD_BUILD_USER=vexfs",
            "KBUILD_BUILD_HOST=builder",
        ])
        .arg("KBUILD_BUILD_TIMESTAMP=@0")
        .arg(format!("KDIR=/lib/modules/{release}/build"))
        .arg(format!("KVER={release}"))
}

/// unshare(1) options: no network for a tree's build, and root in there also for an ordinary user.
fn namespaces() -> Vec<&'static str> {
    let mut options = vec!["--mount", "--net", "--pid", "--fork", "--kill-child"];
    if !nix::unistd::geteuid().is_root() {
        options.extend(["--user", "--map-root-user"]);
    }
    options
}

/// A `uname` that speaks of the image's kernel: many makefiles look for
/// `/lib/modules/$(uname -r)/build`.
fn uname(release: &str) -> String {
    format!("#!/bin/sh\n[ \"$*\" != -r ] || {{ echo {release}; exit; }}\nexec /bin/uname \"$@\"\n")
}
