//! What a workshop has made: modules kept under names of their own, because a dossier may still read the
//! one before when the next is there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::SourceConfig;

use super::{Workshop, substance};
use crate::BuildError;
use crate::stages::module;
use crate::store::key;

/// How many products of one are kept: the present one, and those a dossier under way may read.
const PRODUCTS: usize = 4;

/// A module that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// The module as an image has it.
    pub module: PathBuf,
    /// Same with its debug information.
    pub debug: PathBuf,
    /// SHA-256 of [`Product::module`], in hex.
    pub sha256: String,
    /// Digest of what the kernel makes of it. Two modules with the same one behave the same, whatever
    /// comments and debug information say.
    pub substance: String,
    /// What the tree says about itself.
    pub config: SourceConfig,
    /// Files of the tree that an image has besides the module.
    pub installed: Vec<Installed>,
    /// Whether depmod(8) would write other things about it than about the image's own module.
    pub depmod: bool,
    /// Files that had changed since the last build here, relative to the tree.
    pub changed: Vec<PathBuf>,
    /// Whether all was built, not only what changed, and why.
    pub anew: Option<String>,
    /// What the compiler had to say, with paths of the user's tree.
    pub said: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// A file of a tree that an image has besides the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The file here.
    pub from: PathBuf,
    /// Its absolute path in the image.
    pub to: String,
    /// Its mode there.
    pub mode: u32,
}

impl Product {
    /// A value of the module's `.modinfo`, such as `depends`.
    pub fn modinfo(&self, name: &str) -> Option<String> {
        let bytes = fs::read(&self.module).ok()?;
        module::modinfo(&bytes, name)
    }
}

impl Workshop {
    /// Keeps what a build left under a name of its own, which is returned.
    pub(super) fn keep(
        &self,
        build: &Path,
        config: &SourceConfig,
        release: &str,
        log: &Path,
    ) -> Result<String, BuildError> {
        let read = |name: &str| {
            let path = build.join(name);
            fs::read(&path).map_err(BuildError::io("read", path))
        };
        let (stripped, debug) = (read("module.ko")?, read("debug.ko")?);
        let broken = |error: String| BuildError::SourceBuild {
            command: config.build.join(" "),
            source_tree: self.request.source.clone(),
            errors: vec![error],
            log: log.to_owned(),
        };
        module::check_release(&stripped, release).map_err(broken)?;
        // The image's own kernel took the image's own module: the whole word must be the same.
        let (own, its) = (
            module::modinfo(&stripped, "vermagic"),
            self.modinfo_of_image("vermagic"),
        );
        if let Some(its) = its.filter(|its| own.as_ref() != Some(its)) {
            let own = own.unwrap_or_default();
            return Err(broken(format!(
                "the module's vermagic is `{own}`, that of the image's own module is `{its}`"
            )));
        }
        let mut all = key::digest(&debug);
        for n in 0..config.install.len() {
            all = key::digest(all + &key::digest(read(&format!("install/{n}"))?));
        }
        let name = all[..16].to_owned();
        let (place, draft) = (self.products().join(&name), self.products().join(".draft"));
        if place.is_dir() {
            return Ok(name);
        }
        let copy = || -> std::io::Result<()> {
            if draft.exists() {
                fs::remove_dir_all(&draft)?;
            }
            fs::create_dir_all(&draft)?;
            fs::write(draft.join(module::MODULE), &stripped)?;
            fs::write(draft.join(module::MODULE_DEBUG), &debug)?;
            for n in 0..config.install.len() {
                let (from, to) = (
                    build.join(format!("install/{n}")),
                    draft.join(n.to_string()),
                );
                fs::copy(from, to)?;
            }
            fs::rename(&draft, &place)
        };
        copy().map_err(BuildError::io("keep the module in", &place))?;
        keep_newest(&self.products(), PRODUCTS, &place);
        Ok(name)
    }

    fn products(&self) -> PathBuf {
        self.home.join("products")
    }

    /// Reads a product that was kept.
    pub(super) fn product(&self, name: &str, config: &SourceConfig) -> Result<Product, BuildError> {
        let dir = self.products().join(name);
        let module = dir.join(module::MODULE);
        let bytes = fs::read(&module).map_err(BuildError::io("read", &module))?;
        let substance = substance::digest(&bytes)
            .map_err(|said| BuildError::io("read", &module)(std::io::Error::other(said)))?;
        let mut installed = Vec::new();
        for (n, to) in config.install.values().enumerate() {
            let from = dir.join(n.to_string());
            let meta = fs::metadata(&from).map_err(BuildError::io("read", &from))?;
            installed.push(Installed {
                mode: if meta.permissions().mode() & 0o111 == 0 {
                    0o644
                } else {
                    0o755
                },
                from,
                to: to.clone(),
            });
        }
        Ok(Product {
            debug: dir.join(module::MODULE_DEBUG),
            module,
            sha256: key::digest(&bytes),
            substance,
            depmod: self
                .debug_of_image()
                .is_none_or(|its| module::dependencies(&its) != module::dependencies(&bytes)),
            config: config.clone(),
            installed,
            changed: Vec::new(),
            anew: None,
            said: Vec::new(),
            took: Duration::ZERO,
        })
    }
}

/// Removes the folders in `home` but the `kept` newest, `keep` among them.
pub(super) fn keep_newest(home: &Path, kept: usize, keep: &Path) {
    let mut dirs: Vec<_> = fs::read_dir(home)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path() != keep && entry.path().is_dir())
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    dirs.sort();
    dirs.reverse();
    for (_, dir) in dirs.drain(..).skip(kept - 1) {
        let _left = fs::remove_dir_all(dir);
    }
}
