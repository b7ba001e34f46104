//! The tools disk: programs for checks with the libraries they need, on a read-only file system that
//! any image can mount, whatever libraries it has itself.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::archive::{Archive, PackageSet};
use crate::request::data::{self, ToolPrograms};
use crate::run::Site;
use crate::stages::{base, builder, programs, suites, test_programs};
use crate::store::Stage;
use crate::store::key::{self, Inputs};
use crate::{BuildError, BuildEvent, Progress, ToolsRequest, host, store};

/// Name of the stage.
const STAGE: &str = "tools";
/// How many results are kept: they are large, and one is enough for each tier, and the last one.
const KEPT: usize = 3;
/// The disk's file in the entry.
const DISK: &str = "tools.ext4";
/// Label of the file system.
const LABEL: &str = "vexfs-tools";
/// Where Debian's libraries are, below a root; Ceph's (fio has an engine for it) are found by run
/// paths that only hold on a running system.
const LIBRARY_DIRS: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/ceph",
];
/// The dynamic loader, below a root.
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
/// Room for files besides what is there: the file system is read-only.
const SLACK: u64 = 2 << 20;
/// Free space asked for, in MiB.
const CACHE_MIB: u64 = 512;
/// `/bin/NAME` on the disk, wherever it is mounted: the bundled loader runs the bundled program with
/// the bundled libraries. Programs see themselves as `libexec/NAME`.
const WRAPPER: &str = "#!/bin/sh\n\
    here=$(dirname \"$(readlink -f \"$0\")\")/..\n\
    exec \"$here/lib/ld-linux-x86-64.so.2\" --library-path \"$here/lib\" \\\n    \
    \"$here/libexec/$(basename \"$0\")\" \"$@\"\n";

/// Makes the tools disk, or finds it in the cache, and returns the path of its raw ext4 image
/// (label `vexfs-tools`; attach it read-only).
///
/// On it, `/bin/fio` and the like are small shell scripts that run the program with the disk's own
/// loader and libraries; static programs given in the request are in `/bin` as they are.
///
/// # Errors
/// As [`crate::build`].
pub async fn tools_disk(
    request: &ToolsRequest,
    progress: &dyn Progress,
) -> Result<PathBuf, BuildError> {
    let recipe = data::recipe(&request.workspace)?.tools;
    host::require_tools()?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(BuildError::io("find", path));
    let (cache, out) = (absolute(&request.cache_dir)?, absolute(&request.out_dir)?);
    let site = Site::new(cache, &out, STAGE, progress);
    for dir in [&site.cache, &site.logs] {
        fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
    }
    site.sweep().await;
    let archive = Archive::open(&site, request.mirror.as_deref()).await?;
    let set = archive.resolve(&site, &recipe.packages).await?;
    let mut programs = request.programs.clone();
    if request.full {
        programs.extend(for_full_tier(&site, &recipe, &request.workspace).await?);
    }
    let stage = Stage {
        name: STAGE,
        inputs: inputs(&recipe, &set, &programs)?,
        kept: KEPT,
    };
    progress.event(&BuildEvent::Planned {
        stages: vec![STAGE.into()],
    });
    let entry = site
        .stage(&stage, async |result| {
            host::require_space(&site.cache, STAGE, CACHE_MIB)?;
            let work = site.scratch(STAGE)?;
            let debs = work.path().join("debs");
            archive
                .fetch(&site, STAGE, &recipe.packages, &set, &debs)
                .await?;
            let root = work.path().join("root");
            builder::unpack(&site, STAGE, &debs, &set, &root).await?;
            let tree = work.path().join("tree");
            bundle(&site, &root, &recipe.programs, &tree).await?;
            for program in &programs {
                let name = program.file_name().unwrap_or_default();
                install(program, &tree.join("bin").join(name))?;
            }
            file_system(&site, &stage, &tree, &result.join(DISK)).await
        })
        .await?;
    Ok(entry.dir.join(DISK))
}

/// Builds what only checks of the full tier use, and returns the programs.
async fn for_full_tier(
    site: &Site<'_>,
    recipe: &ToolPrograms,
    workspace: &Path,
) -> Result<Vec<PathBuf>, BuildError> {
    let rustc = programs::rustc(site, suites::STAGE, workspace).await?;
    let suites = Stage {
        name: suites::STAGE,
        inputs: suites::inputs(&recipe.crates, &rustc),
        kept: store::KEPT,
    };
    let own = Stage {
        name: programs::PROOF.stage,
        inputs: programs::inputs(&programs::PROOF, workspace, &rustc)?,
        kept: store::KEPT,
    };
    site.progress.event(&BuildEvent::Planned {
        stages: [&suites, &own].map(|stage| stage.name.to_owned()).into(),
    });
    let suites = suites::make(site, &suites, &recipe.crates, workspace).await?;
    let own = programs::make(site, &programs::PROOF, &own, workspace).await?;
    let made = test_programs::list(&recipe.crates, (&suites, &own));
    Ok(made.into_iter().map(|program| program.path).collect())
}

fn inputs(
    recipe: &ToolPrograms,
    set: &PackageSet,
    programs: &[PathBuf],
) -> Result<Inputs, BuildError> {
    let mut inputs = Inputs::default()
        .with_all(set.inputs())
        .with("programs", format!("{:?}", recipe.programs))
        .with("how", format!("{WRAPPER} {LABEL}"));
    for program in programs {
        let digest = key::file_digest(program).map_err(BuildError::io("read", program))?;
        let name = program.file_name().unwrap_or_default();
        inputs = inputs.with(name.to_string_lossy(), digest);
    }
    Ok(inputs)
}

/// Puts the programs of an unpacked root, with the libraries they are linked to, into `tree`.
async fn bundle(
    site: &Site<'_>,
    root: &Path,
    programs: &[PathBuf],
    tree: &Path,
) -> Result<(), BuildError> {
    for dir in ["bin", "lib", "libexec"] {
        fs::create_dir_all(tree.join(dir)).map_err(BuildError::io("make", tree.join(dir)))?;
    }
    let loader = root.join(LOADER);
    install(&loader, &tree.join("lib/ld-linux-x86-64.so.2"))?;
    let library_path: Vec<_> = LIBRARY_DIRS
        .iter()
        .map(|dir| root.join(dir).display().to_string())
        .collect();
    let wrapper = tree.join("libexec/.wrapper");
    fs::write(&wrapper, WRAPPER)
        .and_then(|()| fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)))
        .map_err(BuildError::io("write", &wrapper))?;
    for program in programs {
        let file = root.join(program.strip_prefix("/").unwrap_or(program));
        let name = program.file_name().unwrap_or_default();
        install(&file, &tree.join("libexec").join(name))?;
        let link = tree.join("bin").join(name);
        fs::copy(&wrapper, &link).map_err(BuildError::io("write", &link))?;
        let list = Site::program(&loader)
            .arg("--library-path")
            .arg(library_path.join(":"))
            .arg("--list")
            .arg(&file);
        for library in libraries(&site.output(STAGE, list).await?) {
            let name = library.file_name().unwrap_or_default();
            install(&library, &tree.join("lib").join(name))?;
        }
    }
    fs::remove_file(&wrapper).map_err(BuildError::io("remove", wrapper))
}

/// The files `ld.so --list` names: `libaio.so.1 => /root/lib/libaio.so.1 (0x…)`.
fn libraries(list: &str) -> Vec<PathBuf> {
    let lines = list.lines().filter_map(|line| {
        let (_, found) = line.split_once(" => ")?;
        let (path, _) = found.rsplit_once(" (0x")?;
        Some(PathBuf::from(path.trim()))
    });
    lines.collect()
}

/// Copies a file, following links, readable and executable for all.
fn install(from: &Path, to: &Path) -> Result<(), BuildError> {
    fs::copy(from, to)
        .and_then(|_| fs::set_permissions(to, fs::Permissions::from_mode(0o755)))
        .map_err(BuildError::io("copy", from))
}

/// Makes an ext4 file system of `tree`, just large enough.
async fn file_system(
    site: &Site<'_>,
    stage: &Stage,
    tree: &Path,
    disk: &Path,
) -> Result<(), BuildError> {
    let mut bytes = SLACK;
    for dir in ["bin", "lib", "libexec"] {
        let dir = tree.join(dir);
        for entry in fs::read_dir(&dir).map_err(BuildError::io("list", &dir))? {
            let meta = entry.and_then(|entry| entry.metadata());
            bytes += meta
                .map_err(BuildError::io("list", &dir))?
                .len()
                .next_multiple_of(4096);
        }
    }
    let bytes = (bytes + bytes / 32).next_multiple_of(1 << 20);
    File::create(disk)
        .and_then(|file| file.set_len(bytes))
        .map_err(BuildError::io("make", disk))?;
    let uuid = base::uuid(&stage.inputs.key(), STAGE);
    let command = Site::program("mke2fs")
        // No journal and no reserve: nothing is ever written.
        .args([
            "-q",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-m",
            "0",
            "-N",
            "512",
            "-L",
            LABEL,
        ])
        .args([
            "-U",
            &uuid,
            "-E",
            &format!("hash_seed={uuid},root_owner=0:0"),
        ])
        .arg("-d")
        .args([tree, disk]);
    site.step(STAGE, command).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_loaders_list() {
        let list = "\
\tlinux-vdso.so.1 (0x00007ffd2b5f2000)
\tlibaio.so.1 => /c/root/lib/x86_64-linux-gnu/libaio.so.1 (0x00007f1e)
\tlibm.so.6 => /c/root/lib/x86_64-linux-gnu/libm.so.6 (0x00007f1d)
\t/lib64/ld-linux-x86-64.so.2 => /c/root/lib/ld.so (0x00007f1f)
";
        let names: Vec<_> = libraries(list)
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "/c/root/lib/x86_64-linux-gnu/libaio.so.1",
                "/c/root/lib/x86_64-linux-gnu/libm.so.6",
                "/c/root/lib/ld.so",
            ]
        );
    }
}
