//! A kernel compiled from the distribution's linux-source, with the tree under test known to its Kconfig.
//!
//! Its configuration is that of the distribution's kernel, less the modules no machine of ours has
//! (kbuild's localmodconfig by a list), with a preset's fragments and the tree's needs over it. The tree's
//! C is not in this stage: a change of it must not cost a kernel. The module stage compiles it against
//! what is kept here.

use std::fs;
use std::path::{Path, PathBuf};

use image::{CompiledRecord, Manifest, SourceConfig};
use keeper::Kept;

use crate::request::kernel::{Compiled, HOME};
use crate::request::kernel_config;
use crate::request::signing::Signer;
use crate::run::Site;
use crate::source::tree;
use crate::stages::builder::{self, Room};
use crate::store::key::{self, Inputs};
use crate::store::{Entry, Stage};
use crate::{BuildError, KernelChoice};

/// Name of the stage.
pub(crate) const STAGE: &str = "linux";
/// How many results are kept: they are large, and one is enough for each kernel series, and the last one.
pub(crate) const KEPT: usize = 3;
/// The kernel and its modules as a Debian package, in the entry.
pub(crate) const PACKAGE: &str = "kernel.deb";
/// What modules are built against, in the entry.
const TREE: &str = "tree";
/// A Kconfig file in the root of a source tree that can be part of the kernel's.
const KCONFIG: &str = "Kconfig";
/// As much as a kernel's objects take, in MiB.
const ROOM_MIB: u64 = 6144;

/// Unpacks the kernel's source and tells Kconfig of the tree $1, if /build/Kconfig is its Kconfig; then
/// the distribution's configuration, less the modules that are not in /build/lsmod. Folders in COVERED are
/// made to be seen by KCOV (Documentation/dev-tools/kcov.rst).
const PREPARE: &str = "cd /build; tar --extract --file=/usr/src/linux-source-$SERIES.tar.xz; \
    mv linux-source-$SERIES linux; cd linux; \
    if [ -e /build/Kconfig ]; then \
        [ ! -e \"fs/$1\" ] || { echo \"error: the kernel has a file system $1 already\"; exit 1; }; \
        mkdir \"fs/$1\"; cp /build/Kconfig \"fs/$1/Kconfig\"; : >\"fs/$1/Makefile\"; \
        echo \"source \\\"fs/$1/Kconfig\\\"\" >>fs/Kconfig; \
        echo \"obj-y += $1/\" >>fs/Makefile; \
    fi; \
    for dir in $COVERED; do echo 'KCOV_INSTRUMENT := y' >>\"$dir/Makefile\"; done; \
    cp /build/distribution.config .config; make olddefconfig >/dev/null; \
    LSMOD=/build/lsmod make localmodconfig </dev/null; cp .config /build/trimmed.config";
/// Settles what the merged configuration leaves open.
const SETTLE: &str = "cd /build/linux; cp /build/merged.config .config; make olddefconfig; \
    cp .config /build/settled.config";
/// Compiles; leaves the kernel's files in /build/root and what modules are built against in /build/tree,
/// as the kernel's own scripts/package/builddeb chooses it. Times are those of the source.
const COMPILE: &str = "cd /build/linux; make -j$(nproc) bzImage modules; \
    is=$(make -s kernelrelease); \
    [ \"$is\" = \"$KVER\" ] || { echo \"error: the kernel calls itself $is, not $KVER\"; exit 1; }; \
    make INSTALL_MOD_PATH=/build/root INSTALL_MOD_STRIP=1 modules_install >/dev/null; \
    cd /build/root; rm -f lib/modules/$KVER/build lib/modules/$KVER/source; mkdir boot; \
    cp /build/linux/arch/x86/boot/bzImage boot/vmlinuz-$KVER; \
    cp /build/linux/System.map boot/System.map-$KVER; cp /build/linux/.config boot/config-$KVER; \
    cd /build/linux; mkdir /build/tree; \
    { find . arch/x86 -maxdepth 1 -name 'Makefile*'; find include scripts -type f -o -type l; \
      find arch/x86 -name Kbuild.platforms -o -name Platform; \
      find $(find arch/x86 -name include -o -name scripts -type d) -type f; \
      for file in tools/objtool/objtool Module.symvers .config; do [ ! -e $file ] || echo $file; done; \
    } | grep -v '\\.cmd$' | sort -u | tar --create --no-recursion --files-from=- | tar --extract --directory=/build/tree; \
    chmod -R u+w /build/tree";
/// Gives every file of /build/root the time of the kernel's source.
const TIMES: &str = "find /build/root /build/root/. -exec \
    touch --no-dereference --reference=/usr/src/linux-source-$SERIES.tar.xz {} +";

/// Everything about a kernel that is decided before it is compiled.
#[derive(Debug, Clone)]
pub(crate) struct Linux<'a> {
    pub(crate) compiled: &'a Compiled,
    /// The kernel series, `6.1`.
    pub(crate) series: &'a str,
    /// `uname -r` of it.
    pub(crate) release: &'a str,
    /// The version of the source package.
    pub(crate) version: &'a str,
    /// The distribution's kernel whose configuration it starts from.
    pub(crate) distribution: &'a str,
    pub(crate) choice: &'a KernelChoice,
    pub(crate) source: &'a Path,
    pub(crate) config: &'a SourceConfig,
    pub(crate) signer: Option<&'a Signer>,
}

/// The Debian package's name.
pub(crate) fn package(release: &str) -> String {
    format!("linux-image-{release}")
}

/// Where modules for it are built against.
pub(crate) fn tree(entry: &Entry) -> PathBuf {
    entry.dir.join(TREE)
}

/// Where they are for the entry with this key.
fn tree_of(cache: &Path, key: &str) -> PathBuf {
    cache.join(STAGE).join(key).join(TREE)
}

/// Where the tree of the image's kernel is, when that was compiled from source.
pub(crate) fn tree_of_image(
    site: &Site<'_>,
    image: &Manifest,
) -> Result<Option<PathBuf>, BuildError> {
    if image.kernel.compiled.is_none() {
        return Ok(None);
    }
    let stage = image.stages.iter().find(|stage| stage.name == STAGE);
    let tree = stage.map(|stage| tree_of(&site.cache, &stage.key));
    tree.filter(|tree| tree.is_dir())
        .map(Some)
        .ok_or_else(|| BuildError::BadRequest {
            field: "the image's kernel",
            value: image.kernel.release.clone(),
            remedy: "it is no longer in the cache: build the image again".into(),
        })
}

/// What the manifest says about it.
pub(crate) fn record(entry: &Entry, compiled: &Compiled) -> Result<CompiledRecord, BuildError> {
    let config = tree(entry).join(".config");
    Ok(CompiledRecord {
        preset: compiled.name.clone(),
        slowdown: compiled.preset.slowdown,
        config_sha256: key::file_digest(&config).map_err(BuildError::io("read", config))?,
    })
}

impl Linux<'_> {
    /// A file of the tree, if it has it. A link could lead anywhere.
    fn of_tree(&self, name: &str) -> Result<Option<String>, BuildError> {
        let path = self.source.join(name);
        match fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
            true => fs::read_to_string(&path)
                .map(Some)
                .map_err(BuildError::io("read", path)),
            false => Ok(None),
        }
    }

    /// Everything that is laid over the distribution's configuration, by name.
    fn fragments(&self) -> Result<Vec<(String, String)>, BuildError> {
        let mut fragments = self.compiled.fragments.clone();
        if let Some(needs) = self.of_tree(kernel_config::FILE)? {
            fragments.push((kernel_config::FILE.into(), needs));
        }
        let mut ours = format!(
            "CONFIG_LOCALVERSION=\"{}\"\nCONFIG_BUILD_SALT=\"{}\"\n",
            self.compiled.local_version(),
            self.release
        );
        if let Some(kconfig) = self.of_tree(KCONFIG)? {
            for symbol in tristates(&kconfig) {
                ours += &format!("CONFIG_{symbol}=m\n");
            }
        }
        if self.signer.is_some() {
            ours += "CONFIG_SYSTEM_TRUSTED_KEYS=\"/build/trusted.pem\"\n";
        }
        fragments.push(("of the build".into(), ours));
        Ok(fragments)
    }

    /// What it is made from besides the builder root.
    pub(crate) fn inputs(&self) -> Result<Inputs, BuildError> {
        let fragments = self.fragments()?.into_iter();
        let inputs = Inputs::default()
            .with("kernel", self.release)
            .with("source", self.version)
            .with(
                format!("{HOME}/modules.list"),
                self.compiled.modules.join(" "),
            )
            .with_all(fragments.map(|(name, text)| (name, key::digest(text))))
            .with("covered", self.compiled.preset.covered.join(" "))
            .with("boots", self.boots().to_string())
            .with(
                "how",
                format!("{} {PREPARE} {SETTLE} {COMPILE} {TIMES}", builder::ENTER),
            );
        let inputs = match self.of_tree(KCONFIG)? {
            Some(text) => inputs.with("Kconfig of the tree", key::digest(text)),
            None => inputs,
        };
        Ok(match self.signer {
            Some(signer) => inputs.with("trusts and is signed for", signer.digest()),
            None => inputs,
        })
    }

    /// Whether it boots when nobody asks for it.
    fn boots(&self) -> bool {
        !self.choice.has_package()
    }

    /// Makes it; the entry has [`PACKAGE`] and the tree modules are built against.
    pub(crate) async fn make(
        &self,
        site: &Site<'_>,
        stage: &Stage,
        builder: &Entry,
    ) -> Result<Entry, BuildError> {
        site.stage(stage, async |result| {
            crate::host::require_space(&site.cache, STAGE, ROOM_MIB)?;
            let work = site.scratch(STAGE)?;
            let build = work.path().join("build");
            fs::create_dir(&build).map_err(BuildError::io("make", &build))?;
            let root = Room {
                root: builder,
                release: self.release,
                tree: None,
            };
            self.configure(site, &root, &build).await?;
            let run = |script: &str| -> Result<Kept, BuildError> {
                Ok(root
                    .enter(site, &build)?
                    .arg(format!("SERIES={}", self.series))
                    .args(["sh", "-euc", script, "sh"]))
            };
            site.step(STAGE, run(COMPILE)?).await?;
            builder::tell_cache(site, STAGE, &build);
            if let Some(signer) = self.signer {
                let linux = build.join("linux");
                let signing = Room {
                    tree: Some(&linux),
                    ..root
                };
                let sign = build.join("sign");
                std::os::unix::fs::symlink("root", &sign).map_err(BuildError::io("link", &sign))?;
                signing.sign(site, STAGE, &build, signer).await?;
            }
            self.control_files(&build.join("root"))?;
            site.step(STAGE, run(TIMES)?).await?;
            let package = Site::program("dpkg-deb")
                .args(["--build", "--root-owner-group", "-Znone"])
                .args([build.join("root"), result.join(PACKAGE)])
                .env("SOURCE_DATE_EPOCH", "1700000000");
            site.step(STAGE, package).await?;
            let (from, to) = (build.join("tree"), result.join(TREE));
            fs::rename(&from, &to)
                .or_else(|_| tree::copy(&from, &to))
                .map_err(BuildError::io("copy", from))
        })
        .await
    }

    /// Leaves the source, configured, in `build`.
    async fn configure(
        &self,
        site: &Site<'_>,
        root: &Room<'_>,
        build: &Path,
    ) -> Result<(), BuildError> {
        let path = |name: &str| build.join(name);
        let write = |name: &str, text: &str| {
            fs::write(path(name), text).map_err(BuildError::io("write", path(name)))
        };
        let read =
            |name: &str| fs::read_to_string(path(name)).map_err(BuildError::io("read", path(name)));
        let headers = builder::headers(self.distribution);
        let distribution = root
            .root
            .dir
            .join("root")
            .join(&headers[1..])
            .join(".config");
        let text =
            fs::read_to_string(&distribution).map_err(BuildError::io("read", distribution))?;
        write("distribution.config", &text)?;
        write("lsmod", &lsmod(&self.compiled.modules))?;
        if let Some(kconfig) = self.of_tree(KCONFIG)? {
            write(KCONFIG, &kconfig)?;
        }
        if let Some(signer) = self.signer {
            write("trusted.pem", &signer.certificate)?;
        }
        let run = |script: &str| -> Result<Kept, BuildError> {
            Ok(root
                .enter(site, build)?
                .arg(format!("SERIES={}", self.series))
                .arg(format!(
                    "COVERED={}",
                    self.compiled.preset.covered.join(" ")
                ))
                .args(["sh", "-euc", script, "sh", &self.config.module]))
        };
        site.step(STAGE, run(PREPARE)?).await?;
        let fragments = self.fragments()?;
        let texts = fragments.iter().map(|(_, text)| text.as_str());
        let trimmed = read("trimmed.config")?;
        write(
            "merged.config",
            &kernel_config::merge(&trimmed, texts.clone()),
        )?;
        site.step(STAGE, run(SETTLE)?).await?;
        // Of what several fragments say, the last word is asked for.
        let wanted = kernel_config::merge("", texts);
        let missing = kernel_config::missing(&wanted, &read("settled.config")?);
        match missing.is_empty() {
            true => Ok(()),
            false => Err(BuildError::KernelConfig {
                release: self.release.into(),
                needs: PathBuf::from(HOME),
                missing: missing.join("; "),
            }),
        }
    }

    /// The package's own files.
    fn control_files(&self, root: &Path) -> Result<(), BuildError> {
        use std::os::unix::fs::PermissionsExt;
        let dir = root.join("DEBIAN");
        fs::create_dir(&dir).map_err(BuildError::io("make", &dir))?;
        let files = [
            ("control", self.control(), 0o644),
            ("postinst", postinst(self.release, self.boots()), 0o755),
        ];
        for (name, text, mode) in files {
            let path = dir.join(name);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
                .map_err(BuildError::io("write", path))?;
        }
        Ok(())
    }

    fn control(&self) -> String {
        format!(
            "Package: {}\nVersion: {}\nArchitecture: amd64\nSection: kernel\nPriority: optional\n\
             Maintainer: VexFS images <root@localhost>\nDepends: kmod, linux-base\n\
             Description: Linux {} for VexFS: {}\n",
            package(self.release),
            self.version,
            self.release,
            self.compiled.preset.about
        )
    }
}

/// What happens when it is installed: links, if it is to boot, and an initramfs.
fn postinst(release: &str, boots: bool) -> String {
    let links = match boots {
        true => format!("linux-update-symlinks install {release} /boot/vmlinuz-{release}\n"),
        false => String::new(),
    };
    format!(
        "#!/bin/sh\nset -e\n{links}run-parts --report --exit-on-error --arg={release} \
         --arg=/boot/vmlinuz-{release} /etc/kernel/postinst.d\n"
    )
}

/// What lsmod(8) would say if these modules were loaded.
fn lsmod(modules: &[String]) -> String {
    let lines = modules.iter().map(|module| format!("{module} 1 0\n"));
    std::iter::once("Module Size Used by\n".to_owned())
        .chain(lines)
        .collect()
}

/// Symbols a Kconfig file defines as tristate: they are to be modules.
fn tristates(kconfig: &str) -> Vec<&str> {
    let mut symbols = Vec::new();
    let mut symbol = None;
    for line in kconfig.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["config" | "menuconfig", name] => symbol = Some(name),
            ["tristate", ..] => symbols.extend(symbol.take()),
            _ => {}
        }
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trees_own_options_become_modules() {
        let kconfig = "config VEXFS\n\ttristate \"VexFS\"\n\tdepends on BLOCK\n\n\
                       config VEXFS_DEBUG\n\tbool \"Debug\"\n\nconfig OTHER\n\ttristate\n";
        assert_eq!(tristates(kconfig), ["VEXFS", "OTHER"]);
        assert!(tristates("").is_empty());
    }

    #[test]
    fn only_a_kernel_that_is_to_boot_takes_the_links() {
        assert!(postinst("6.1.1-x", true).contains("linux-update-symlinks install 6.1.1-x"));
        assert!(!postinst("6.1.1-x", false).contains("symlinks"));
        assert_eq!(
            lsmod(&["loop".into(), "fuse".into()]),
            "Module Size Used by\nloop 1 0\nfuse 1 0\n"
        );
    }
}
