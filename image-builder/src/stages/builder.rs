//! The builder root: the image's own compiler and kernel headers, unpacked and not configured.
//!
//! It needs no maintainer script and no privilege to make, only to be entered.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use image::{Manifest, SourceConfig};
use keeper::Kept;

use crate::archive::{Archive, PackageSet};
use crate::request::data::{self, Recipe};
use crate::request::signing::{self, Signer};
use crate::run::Site;
use crate::store::key::Inputs;
use crate::store::{Entry, Stage};
use crate::{BuildError, BuildEvent};

/// Name of the stage.
pub(crate) const STAGE: &str = "builder";
/// How many results are kept: they are large, and one is enough for each kernel series, and the last one.
pub(crate) const KEPT: usize = 3;
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
/// Names by which makefiles call the compiler: they find ccache(1), which finds the compiler.
const COMPILERS: &[&str] = &["gcc", "gcc-12"];
/// The compiler cache: the same for all builds, in the cache directory.
const CCACHE: &str = "ccache";
/// The most it may take.
const CCACHE_SIZE: &str = "2G";
/// What the compiler cache was asked during one build, and what it had: in the build's folder.
const CCACHE_LOG: &str = "ccache-stats";
/// Unpacks `.deb` files ($1 the root, then the files), two at a time.
const UNPACK: &str =
    "root=$1; shift; printf '%s\\0' \"$@\" | xargs -0 -P 2 -I{} dpkg-deb -x {} \"$root\"";

/// Enters the builder root $1 with the compiler cache $2, the tree $4 of a compiled kernel at $3 (if
/// any) and the build's folder $5 mounted in it and runs the rest, in a mount namespace (unshare(1)): what is mounted
/// here is gone with the last process. A key to sign with is open for it, not there.
pub(crate) const ENTER: &str = "mount --rbind /dev \"$1/dev\"; mount --rbind /proc \"$1/proc\"; \
    mount --bind \"$2\" \"$1/ccache\"; [ -z \"$3\" ] || mount --bind \"$4\" \"$1$3\"; \
    mount --bind \"$5\" \"$1/build\"; root=$1; shift 5; \
    [ -z \"${SIGNING_KEY:-}\" ] || exec 9<\"$SIGNING_KEY\"; exec chroot \"$root\" \"$@\"";

/// The builder root before it is there.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// What is asked for.
    pub(crate) packages: Vec<String>,
    /// And all that comes with it.
    pub(crate) set: PackageSet,
    /// The distribution's kernel whose headers are in it.
    pub(crate) release: String,
    /// A kernel compiled from source whose tree can be mounted in it.
    pub(crate) compiled: Option<String>,
}

/// Where the builder root has what modules for kernel `release` are built against.
pub(crate) fn headers(release: &str) -> String {
    format!("/usr/src/linux-headers-{release}")
}

/// What is asked for in it, for the distribution's kernel `release`; with `source` (a series), to
/// compile a kernel in it too.
pub(crate) fn packages(
    recipe: &Recipe,
    config: &SourceConfig,
    release: &str,
    source: Option<&str>,
) -> Vec<String> {
    let mut packages = vec![format!("linux-headers-{release}")];
    packages.extend(PACKAGES.iter().map(|name| name.to_string()));
    packages.extend(recipe.builder.packages.iter().cloned());
    if let Some(series) = source {
        packages.push(format!("linux-source-{series}"));
        packages.extend(recipe.builder.kernel_packages.iter().cloned());
    }
    packages.extend(config.build_packages.iter().cloned());
    packages
}

/// What it is made from.
pub(crate) fn inputs(root: &Root) -> Inputs {
    let inputs = Inputs::default()
        .with_all(root.set.inputs())
        .with("kernel", &*root.release)
        .with(
            "how",
            format!(
                "{UNPACK} {} {ALTERNATIVES:?} {COMPILERS:?}",
                uname(&root.release)
            ),
        );
    match &root.compiled {
        None => inputs,
        Some(release) => inputs.with("room for kernel", &**release),
    }
}

/// Makes it; the entry has `root`.
pub(crate) async fn make(
    site: &Site<'_>,
    stage: &Stage,
    archive: &Archive,
    plan: &Root,
) -> Result<Entry, BuildError> {
    site.stage(stage, async |result| {
        let work = site.scratch(STAGE)?;
        let debs = work.path().join("debs");
        archive
            .fetch(site, STAGE, &plan.packages, &plan.set, &debs)
            .await?;
        let root = result.join("root");
        unpack(site, STAGE, &debs, &plan.set, &root).await?;
        let bin = root.join("usr/local/bin");
        let fake = bin.join("uname");
        fs::create_dir_all(&bin)
            .and_then(|()| fs::create_dir_all(root.join("build")))
            .and_then(|()| fs::create_dir_all(root.join(CCACHE)))
            .and_then(|()| fs::write(&fake, uname(&plan.release)))
            .and_then(|()| fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)))
            .map_err(BuildError::io("write", fake))?;
        let compilers = COMPILERS.iter().map(|name| (*name, "/usr/bin/ccache"));
        for (name, program) in ALTERNATIVES.iter().copied().chain(compilers) {
            symlink(program, bin.join(name)).map_err(BuildError::io("link", bin.join(name)))?;
        }
        if let Some(release) = &plan.compiled {
            let tree = headers(release);
            let modules = root.join(format!("lib/modules/{release}"));
            fs::create_dir_all(root.join(tree.trim_start_matches('/')))
                .and_then(|()| fs::create_dir_all(&modules))
                .and_then(|()| symlink(&tree, modules.join("build")))
                .map_err(BuildError::io("make", modules))?;
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
    let kernel = &image.kernel;
    let compiled = kernel.compiled.as_ref().map(|_| kernel.release.clone());
    let (release, source) = match &compiled {
        None => (kernel.release.clone(), None),
        Some(_) => {
            let (package, _) = archive
                .newest(site, &recipe.kernels[&kernel.series])
                .await?;
            let release = package.trim_start_matches("linux-image-").to_owned();
            (release, Some(kernel.series.as_str()))
        }
    };
    let asked = packages(&recipe, config, &release, source);
    let plan = Root {
        set: archive.resolve(site, &asked).await?,
        packages: asked,
        release,
        compiled,
    };
    let stage = Stage {
        name: STAGE,
        inputs: inputs(&plan),
        kept: KEPT,
    };
    make(site, &stage, &archive, &plan).await
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

/// Somebody who works in a builder root for one kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) root: &'a Entry,
    /// The kernel that is built for.
    pub(crate) release: &'a str,
    /// Its tree, when it was compiled from source and is not the root's own.
    pub(crate) tree: Option<&'a Path>,
}

impl Room<'_> {
    /// Where the host has what modules for its kernel are built against.
    pub(crate) fn headers(&self) -> PathBuf {
        match self.tree {
            Some(tree) => tree.to_owned(),
            None => {
                let root = self.root.dir.join("root");
                root.join(headers(self.release).trim_start_matches('/'))
            }
        }
    }

    /// The beginning of a command that runs in the builder root, with `build` mounted on `/build`:
    /// what follows are further `NAME=value` of its environment, and its words.
    pub(crate) fn enter(&self, site: &Site<'_>, build: &Path) -> Result<Kept, BuildError> {
        let cache = site.cache.join(CCACHE);
        fs::create_dir_all(&cache).map_err(BuildError::io("make", &cache))?;
        let release = self.release;
        let (at, tree) = match self.tree {
            Some(tree) => (headers(release), tree.to_owned()),
            None => (String::new(), PathBuf::new()),
        };
        Ok(Site::background("unshare")
            .args(namespaces())
            .args(["sh", "-euc", ENTER, "sh"])
            .args([self.root.dir.join("root"), cache])
            .arg(at)
            .args([tree, build.to_owned()])
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
            .args([
                "KBUILD_BUILD_TIMESTAMP=@0".to_owned(),
                format!("CCACHE_DIR=/{CCACHE}"),
                format!("CCACHE_MAXSIZE={CCACHE_SIZE}"),
                format!("CCACHE_STATSLOG=/build/{CCACHE_LOG}"),
                // Not its time of change: that is another one in each root.
                "CCACHE_COMPILERCHECK=content".into(),
                // kbuild has the compiler list what it includes (-MMD): what is not in the cache need not go
                // through the preprocessor once more to be looked for, a fifth to a third of a compilation.
                "CCACHE_DEPEND=1".into(),
                format!("KDIR=/lib/modules/{release}/build"),
                format!("KVER={release}"),
            ]))
    }

    /// Signs modules: files below the build's folder. Nothing of the tree under test runs meanwhile.
    pub(crate) async fn sign(
        &self,
        site: &Site<'_>,
        stage: &str,
        build: &Path,
        signer: &Signer,
    ) -> Result<(), BuildError> {
        let certificate = build.join("certificate.pem");
        fs::write(&certificate, &signer.certificate)
            .map_err(BuildError::io("write", &certificate))?;
        let command = self
            .enter(site, build)?
            .args(["sh", "-euc", SIGN, "sh", signing::HASH, signing::KEY_FILE])
            .env("SIGNING_KEY", &signer.key);
        site.step(stage, command).await
    }
}

/// Signs each module in /build/sign, or below it, with digest $1 and key $2.
const SIGN: &str = "find /build/sign/ -name '*.ko' >/build/modules; while read -r module; do \
    \"$KDIR/scripts/sign-file\" \"$1\" \"$2\" /build/certificate.pem \"$module\" </dev/null; done </build/modules";

/// Tells how much of a build its compiler cache had.
pub(crate) fn tell_cache(site: &Site<'_>, stage: &str, build: &Path) {
    let text = fs::read_to_string(build.join(CCACHE_LOG)).unwrap_or_default();
    if let Some(text) = cache_use(&text) {
        site.progress.event(&BuildEvent::StageDetail {
            stage: stage.into(),
            text,
        });
    }
}

/// `12 of 16 objects from the compiler cache` of a statistics log of ccache(1), `None` when it was not
/// asked for an object: linking, preprocessing and tests of the compiler do not count.
fn cache_use(log: &str) -> Option<String> {
    let count = |what: &[&str]| log.lines().filter(|line| what.contains(line)).count();
    let hits = count(&["direct_cache_hit", "preprocessed_cache_hit"]);
    let all = hits + count(&["cache_miss"]);
    (all > 0).then(|| format!("{hits} of {all} objects from the compiler cache"))
}

/// unshare(1) options: no network for a tree's build, and root in there also for an ordinary user.
fn namespaces() -> Vec<&'static str> {
    let mut options = vec!["--mount", "--net", "--pid", "--fork", "--kill-child"];
    if !nix::unistd::geteuid().is_root() {
        options.extend(["--user", "--map-root-user"]);
    }
    options
}

/// A `uname` that speaks of the kernel that is built for: many makefiles look for
/// `/lib/modules/$(uname -r)/build`.
fn uname(release: &str) -> String {
    format!(
        "#!/bin/sh\n[ \"$*\" != -r ] || {{ echo \"${{KVER:-{release}}}\"; exit; }}\nexec /bin/uname \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_the_compiler_cache_are_counted() {
        let log = "# super.c\ncache_miss\n# inode.c\ndirect_cache_hit\n# x.c\npreprocessed_cache_hit\n\
                   # -\ncalled_for_link\n";
        assert_eq!(
            cache_use(log).as_deref(),
            Some("2 of 3 objects from the compiler cache")
        );
        assert_eq!(cache_use("# a.o\ncalled_for_link\n"), None);
        assert_eq!(cache_use(""), None);
    }
}
