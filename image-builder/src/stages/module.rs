//! The module: `make vm-build` of the source tree in the builder root.

use std::fs;
use std::path::{Path, PathBuf};

use image::{ModuleRecord, SourceConfig};
use keeper::Failure;

use crate::BuildError;
use crate::request::kernel_config;
use crate::request::signing::Signer;
use crate::run::Site;
use crate::source::tree;
use crate::stages::{builder, tree_files};
use crate::store::key::{self, Inputs};
use crate::store::{Entry, Stage};

/// Name of the stage.
pub(crate) const STAGE: &str = "module";
/// Name of the stage that makes it for a second kernel.
pub(crate) const SECOND: &str = "second-module";
/// The module's file in the entry, whatever the tree calls it.
pub(crate) const MODULE: &str = "module.ko";
/// Same with its debug information: for reading an oops, not for the image.
pub(crate) const MODULE_DEBUG: &str = "module.debug.ko";
/// Runs in the builder root: the build, then the module without debug information beside it. On a kernel
/// with KCOV the module's coverage is recorded; on others the variable says nothing to kbuild.
pub(crate) const BUILD: &str = "cd /build/src; export KCOV_INSTRUMENT=y; MAKEFLAGS=-j$(nproc) \"$@\"; \
    [ -f \"$PRODUCED\" ] || { echo \"error: $* left no $PRODUCED in the tree\"; exit 1; }; \
    rm -rf /build/install; mkdir /build/install; n=0; for file in $INSTALL; do \
    [ -f \"$file\" ] || { echo \"error: $* left no $file in the tree\"; exit 1; }; \
    cp \"$file\" \"/build/install/$n\"; n=$((n + 1)); done; \
    cp \"$PRODUCED\" /build/debug.ko; strip --strip-debug -o /build/module.ko \"$PRODUCED\"";

/// What it is made from besides the builder root and a kernel that is compiled.
pub(crate) fn inputs(
    (source_digest, config): (&str, &SourceConfig),
    release: &str,
    signer: Option<&Signer>,
) -> Inputs {
    let inputs = Inputs::default()
        .with("VexFS source tree", source_digest)
        .with("kernel", release)
        .with("command", config.build.join(" "))
        .with("produced file", &*config.produced)
        .with("installed files", tree_files::words(config))
        .with("how", format!("{} {BUILD}", builder::ENTER));
    match signer {
        Some(signer) => inputs.with("signed for", signer.digest()),
        None => inputs,
    }
}

/// Makes it; the entry has [`MODULE`] and [`MODULE_DEBUG`].
pub(crate) async fn make(
    site: &Site<'_>,
    stage: &Stage,
    (source, config): (&Path, &SourceConfig),
    room: builder::Room<'_>,
    signer: Option<&Signer>,
) -> Result<Entry, BuildError> {
    site.stage(stage, async |result| {
        let release = room.release;
        kernel_config::check(source, &room.headers().join(".config"), release)?;
        let work = site.scratch(stage.name)?;
        let build = work.path().join("build");
        tree::copy(source, &build.join("src")).map_err(BuildError::io("copy", source))?;
        let command = room
            .enter(site, &build)?
            .arg(format!("PRODUCED={}", config.produced))
            .arg(format!("INSTALL={}", tree_files::words(config)))
            .args(["sh", "-euc", BUILD, "sh"])
            .args(&config.build);
        let log = site.log(stage.name);
        site.step(stage.name, command)
            .await
            .map_err(|error| source_error(error, source, config, &log))?;
        builder::tell_cache(site, stage.name, &build);
        let sign = build.join("sign");
        fs::create_dir(&sign).map_err(BuildError::io("make", &sign))?;
        let files = [("module.ko", MODULE), ("debug.ko", MODULE_DEBUG)];
        for (from, to) in files {
            let from = build.join(from);
            fs::copy(&from, sign.join(to)).map_err(BuildError::io("copy", from))?;
        }
        if let Some(signer) = signer {
            room.sign(site, stage.name, &build, signer).await?;
        }
        for (_, name) in files {
            let from = sign.join(name);
            fs::copy(&from, result.join(name)).map_err(BuildError::io("copy", from))?;
        }
        tree_files::take(&build.join("install"), config, &result)?;
        let module = result.join(MODULE);
        let bytes = fs::read(&module).map_err(BuildError::io("read", module))?;
        check_release(&bytes, release).map_err(|error| BuildError::SourceBuild {
            command: config.build.join(" "),
            source_tree: source.to_owned(),
            errors: vec![error],
            log,
        })?;
        match signer {
            Some(_) if !is_signed(&bytes) => Err(BuildError::BadRequest {
                field: "--module-key",
                value: file_name(config),
                remedy: "the kernel's sign-file left no signature on the module".into(),
            }),
            _ => Ok(()),
        }
    })
    .await
}

/// Whether a module has a signature at its end (`MODULE_SIG_STRING` of include/linux/module_signature.h).
fn is_signed(module: &[u8]) -> bool {
    module.ends_with(b"~Module signature appended~\n")
}

/// A failed build of the tree, by the compiler's errors.
pub(crate) fn source_error(
    error: BuildError,
    source: &Path,
    config: &SourceConfig,
    log: &Path,
) -> BuildError {
    let BuildError::Step {
        source: Failure::Ended { tail, .. },
        ..
    } = &error
    else {
        return error;
    };
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|_| tail.clone());
    let errors = errors(&text);
    if errors.is_empty() {
        return error;
    }
    BuildError::SourceBuild {
        command: config.build.join(" "),
        source_tree: source.to_owned(),
        errors,
        log: log.to_owned(),
    }
}

/// By what an error of the compiler is known, and one of modpost, the linker or a shell.
const COMPILER: &[&str] = &[": error: ", ": fatal error: "];
const OTHERS: &[&str] = &["ERROR: ", "error: ", "undefined reference", ": not found"];
/// By what make says that something ended; it repeats that for each folder on its way out.
const MAKE: &str = "*** ";

/// Whether the line says what is wrong with a tree.
pub(crate) fn is_error(line: &str) -> bool {
    [COMPILER, OTHERS]
        .concat()
        .iter()
        .any(|mark| line.contains(mark))
}

/// The lines that say what is wrong, in the order in which they were said: the compiler's, else modpost's,
/// else make's first. A header's mistake is shown once, however many files have it.
fn errors(text: &str) -> Vec<String> {
    let with = |marks: &[&str]| {
        let mut found: Vec<String> = Vec::new();
        for line in text.lines() {
            if marks.iter().any(|mark| line.contains(mark)) {
                let line = line.trim().replace("/build/src/", "");
                if !found.contains(&line) {
                    found.push(line);
                }
            }
        }
        found
    };
    let of_make = || with(&[MAKE]).into_iter().take(1).collect();
    let lists = [with(COMPILER), with(OTHERS)];
    let said = lists.into_iter().find(|list| !list.is_empty());
    said.unwrap_or_else(of_make)
}

/// A value of the module's `.modinfo` section: NUL-terminated `name=value` strings.
pub(crate) fn modinfo(module: &[u8], name: &str) -> Option<String> {
    let field = format!("{name}=");
    module.split(|byte| *byte == 0).find_map(|string| {
        let value = string.strip_prefix(field.as_bytes())?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    })
}

/// What depmod(8) writes down of a module: aliases, and what has to be loaded before it.
pub(crate) fn dependencies(module: &[u8]) -> std::collections::BTreeSet<&[u8]> {
    let fields: [&[u8]; 3] = [b"alias=", b"depends=", b"softdep="];
    module
        .split(|byte| *byte == 0)
        .filter(|string| fields.iter().any(|field| string.starts_with(field)))
        .collect()
}

/// A module for another kernel would only be found out by the guest.
pub(crate) fn check_release(module: &[u8], release: &str) -> Result<(), String> {
    let vermagic = modinfo(module, "vermagic").unwrap_or_else(|| "none".into());
    if vermagic.split(' ').next() == Some(release) {
        Ok(())
    } else {
        Err(format!(
            "the module is for kernel {vermagic}, the image has {release}"
        ))
    }
}

/// What the module is called in the image.
pub(crate) fn file_name(config: &SourceConfig) -> String {
    format!("{}.ko", config.module)
}

/// What the module with debug information is called beside the image.
pub(crate) fn debug_name(record: &ModuleRecord) -> String {
    format!("{}.debug.ko", record.name.trim_end_matches(".ko"))
}

/// The module's file that goes into an image.
pub(crate) fn shipped(debug: bool) -> &'static str {
    if debug { MODULE_DEBUG } else { MODULE }
}

/// What the manifest says about a built module.
pub(crate) fn record(
    entry: &Entry,
    config: &SourceConfig,
    debug: bool,
) -> Result<ModuleRecord, BuildError> {
    let path: PathBuf = entry.dir.join(shipped(debug));
    let bytes = fs::read(&path).map_err(BuildError::io("read", path))?;
    Ok(ModuleRecord {
        name: file_name(config),
        version: modinfo(&bytes, "version"),
        sha256: key::digest(&bytes),
        debug: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_errors_are_shown_in_its_order() {
        let log = "\
make[1]: Entering directory '/usr/src/linux-headers-6.1.0-56-cloud-amd64'
  CC [M]  /build/src/super.o
/build/src/super.c:12:9: warning: unused variable 'x' [-Wunused-variable]
/build/src/super.c:14:5: error: implicit declaration of function 'foo'
/build/src/super.c:15:5: error: expected ';'
/build/src/inode.c:3:10: fatal error: none.h: No such file or directory
/build/src/super.c:14:5: error: implicit declaration of function 'foo'
make[2]: *** [scripts/Makefile.build:250: /build/src/super.o] Error 1
";
        assert_eq!(
            errors(log),
            [
                "super.c:14:5: error: implicit declaration of function 'foo'",
                "super.c:15:5: error: expected ';'",
                "inode.c:3:10: fatal error: none.h: No such file or directory",
            ]
        );
        let modpost =
            "ERROR: modpost: \"foo\" [/build/src/vexfs.ko] undefined!\nmake: *** [x] Error 1\n";
        assert_eq!(
            errors(modpost),
            ["ERROR: modpost: \"foo\" [vexfs.ko] undefined!"]
        );
        assert_eq!(
            errors("make[1]: *** No rule to make target 'x'.  Stop.\nmake: *** [all] Error 2\n"),
            ["make[1]: *** No rule to make target 'x'.  Stop."]
        );
        assert!(errors("all is well").is_empty());
    }

    #[test]
    fn a_module_for_another_kernel_is_refused() {
        let module = b"\x7fELF..\0version=1.2\0vermagic=6.1.0-56-cloud-amd64 SMP mod_unload \0";
        assert_eq!(modinfo(module, "version").as_deref(), Some("1.2"));
        assert_eq!(check_release(module, "6.1.0-56-cloud-amd64"), Ok(()));
        let error = check_release(module, "6.1.0-57-cloud-amd64").expect_err("another kernel");
        assert!(error.contains("6.1.0-56-cloud-amd64 SMP"), "{error}");
        assert!(check_release(b"nothing", "6.1").is_err());
    }
}
