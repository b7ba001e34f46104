//! The payload: everything Packer carries into the guest, for the scripts in `provision/` to install.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use image::SourceConfig;

use crate::request::access::Access;
use crate::request::data;
use crate::request::kernel_config;
use crate::run::Site;
use crate::source::tree;
use crate::stages::test_programs::TestProgram;
use crate::stages::{module, programs, tree_files, vexctl_source};
use crate::store::Entry;
use crate::store::key::{self, Inputs};
use crate::{BuildError, BuildRequest};

/// Scripts and files, below the workspace.
pub(crate) const PROVISION: &str = "provision";
/// Files that are not made by a stage: where in the VexFS tree they are, and in this workspace for
/// a tree that has none.
const FILES: &[(&str, &str)] = &[
    ("vexfs.conf", "vexfs/vexfs.conf"),
    ("vexfs.service", "vexfs/vexfs.service"),
    ("60-vexfs.rules", "vexfs/60-vexfs.rules"),
    ("vexfs-agent.service", "guest-agent/vexfs-agent.service"),
    ("vexfs-seed@.service", "guest-seed/vexfs-seed@.service"),
    ("90-vexfs-seed.rules", "guest-seed/90-vexfs-seed.rules"),
];
/// Folder with files that are laid over the root: below [`PROVISION`] those of every image, below
/// a variant's home its own.
const OVERLAY: &str = "files";
/// Where test programs go, below the root.
const PROGRAMS: &str = "usr/local/bin";
/// The module for the second kernel, and the release of that, as 10-module.sh knows them.
const SECOND_MODULE: &str = "second-module.ko";
const SECOND_KERNEL: &str = "second-kernel";

/// What goes into it besides the results of stages.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    request: &'a BuildRequest,
    config: &'a SourceConfig,
    pub(crate) variant: &'a data::Variant,
    pub(crate) access: Access,
    /// Name and place of each file of [`FILES`], and of what the tree needs of a kernel.
    files: Vec<(&'static str, PathBuf)>,
}

/// The stages whose results go into it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made<'a> {
    pub(crate) module: &'a Entry,
    /// The module for a second kernel, and that kernel's release.
    pub(crate) second_module: Option<(&'a Entry, &'a str)>,
    pub(crate) programs: &'a Entry,
    /// For variants that have them.
    pub(crate) test_programs: &'a [TestProgram],
    /// For variants with sources.
    pub(crate) vexctl_source: Option<&'a Entry>,
}

impl<'a> Payload<'a> {
    pub(crate) fn new(
        request: &'a BuildRequest,
        variant: &'a data::Variant,
        config: &'a SourceConfig,
        access: Access,
    ) -> Result<Payload<'a>, BuildError> {
        // A link in a stranger's tree could point at any file of this host.
        let regular = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
        let files = FILES.iter().map(|&(name, ours)| {
            let path = [request.source.join(name), request.workspace.join(ours)]
                .into_iter()
                .find(|path| regular(path));
            path.map(|path| (name, path))
                .ok_or_else(|| BuildError::MissingSource {
                    path: request.source.clone(),
                    said: format!("it has no {name}, and neither has this repository at {ours}"),
                })
        });
        let mut files = files.collect::<Result<Vec<_>, _>>()?;
        let needs = request.source.join(kernel_config::FILE);
        if regular(&needs) {
            files.push((kernel_config::FILE, needs));
        }
        Ok(Payload {
            request,
            config,
            variant,
            access,
            files,
        })
    }

    /// What it is made from, with the scripts that install it.
    pub(crate) fn inputs(&self) -> Result<Inputs, BuildError> {
        let workspace = &self.request.workspace;
        let mut paths = Vec::new();
        for script in scripts(&workspace.join(PROVISION))? {
            paths.push(Path::new(PROVISION).join(script));
        }
        let home = data::variant_home(Path::new(""), &self.variant.image_variant);
        paths.extend(self.variant.scripts.iter().map(|script| home.join(script)));
        let paths = paths
            .into_iter()
            .map(|path| (path.display().to_string(), workspace.join(path)));
        let files = self
            .files
            .iter()
            .map(|(name, path)| (name.to_string(), path.clone()));
        let mut inputs = Inputs::default()
            .with_all(self.access.inputs())
            .with("file times", tree::FILE_TIME)
            .with("installed files", format!("{:?}", self.config.install))
            .with("mount options", &*self.config.mount_options)
            .with("lacks", self.config.lacks.join(" "));
        for (name, path) in paths.chain(files) {
            let digest = key::file_digest(&path).map_err(BuildError::io("read", path))?;
            inputs = inputs.with(name, digest);
        }
        for overlay in self.overlays() {
            let digest = tree::digest(&overlay).map_err(BuildError::io("read", &overlay))?;
            let name = overlay.strip_prefix(workspace).unwrap_or(&overlay);
            inputs = inputs.with(name.display().to_string(), digest);
        }
        Ok(inputs)
    }

    /// Folders laid over the root, in this order.
    fn overlays(&self) -> Vec<PathBuf> {
        let workspace = &self.request.workspace;
        let home = data::variant_home(workspace, &self.variant.image_variant);
        let overlays = [workspace.join(PROVISION).join(OVERLAY), home.join(OVERLAY)];
        overlays.into_iter().filter(|dir| dir.is_dir()).collect()
    }

    /// Makes it at `to`: one flat folder. `work` is room for what is packed.
    pub(crate) async fn make(
        &self,
        site: &Site<'_>,
        stage: &str,
        (work, to): (&Path, &Path),
        made: Made<'_>,
    ) -> Result<(), BuildError> {
        fs::create_dir_all(to).map_err(BuildError::io("make", to))?;
        let programs = programs::IMAGE
            .programs
            .iter()
            .map(|(_, name)| (name.to_string(), made.programs.dir.join(name)));
        let module = made
            .module
            .dir
            .join(module::shipped(self.variant.debug_module));
        let sources = made.vexctl_source.map(|entry| {
            let name = vexctl_source::ARCHIVE.to_owned();
            let path = entry.dir.join(&name);
            (name, path)
        });
        let files = self
            .files
            .iter()
            .map(|(name, from)| (name.to_string(), from.clone()));
        let module = [(module::file_name(self.config), module)];
        for (name, from) in programs.chain(module).chain(sources).chain(files) {
            let target = to.join(name);
            fs::copy(&from, &target)
                .and_then(|_| fs::set_permissions(&target, fs::Permissions::from_mode(0o644)))
                .map_err(BuildError::io("copy", from))?;
        }
        if let Some((entry, release)) = made.second_module {
            let from = entry.dir.join(module::shipped(self.variant.debug_module));
            fs::copy(&from, to.join(SECOND_MODULE)).map_err(BuildError::io("copy", from))?;
            let name = to.join(SECOND_KERNEL);
            fs::write(&name, format!("{release}\n")).map_err(BuildError::io("write", name))?;
        }
        let overlay = work.join("overlay");
        fs::create_dir_all(&overlay).map_err(BuildError::io("make", &overlay))?;
        for from in self.overlays() {
            tree::copy(&from, &overlay).map_err(BuildError::io("copy", from))?;
        }
        for program in made.test_programs {
            let from = &program.path;
            let target = overlay.join(PROGRAMS).join(&program.name);
            fs::create_dir_all(overlay.join(PROGRAMS))
                .and_then(|()| fs::copy(from, &target))
                .and_then(|_| fs::set_permissions(&target, fs::Permissions::from_mode(0o755)))
                .map_err(BuildError::io("copy", from))?;
        }
        site.step(stage, tree::archive(&overlay, &to.join("files.tar")))
            .await?;
        if self.variant.sources {
            let tree = work.join("source");
            let source = &self.request.source;
            tree::copy(source, &tree).map_err(BuildError::io("copy", source))?;
            site.step(stage, tree::archive(&tree, &to.join("vexfs-source.tar")))
                .await?;
        }
        tree_files::put(self.config, made.module, to)?;
        self.access.write(site, stage, to).await
    }
}

/// Names of the stage scripts, in order.
fn scripts(provision: &Path) -> Result<Vec<String>, BuildError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(provision).map_err(BuildError::io("list", provision))? {
        let name = entry
            .map_err(BuildError::io("list", provision))?
            .file_name();
        let name = name.to_string_lossy().into_owned();
        if name.ends_with(".sh") && name.starts_with(|c: char| c.is_ascii_digit()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
