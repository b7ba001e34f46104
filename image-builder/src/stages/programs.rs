//! Our programs that run inside the guest, linked statically so that they suit any base.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use image::ProgramRecord;

use crate::evidence::Crate;
use crate::run::Site;
use crate::source::tree;
use crate::store::key::{self, Inputs};
use crate::store::{Entry, Stage};
use crate::{BuildError, host};

/// Programs that are built together.
pub(crate) struct Set {
    /// Name of the stage.
    pub(crate) stage: &'static str,
    /// Cargo packages and the programs they make.
    pub(crate) programs: &'static [(&'static str, &'static str)],
    /// Folders and files of the workspace they are made from.
    sources: &'static [&'static str],
}

/// Name of the stage of [`IMAGE`].
pub(crate) const STAGE: &str = IMAGE.stage;
/// Those that are in every image.
pub(crate) const IMAGE: Set = Set {
    stage: "programs",
    programs: &[
        ("guest-agent", "vexfs-agent"),
        ("guest-seed", "vexfs-seed"),
        ("vexctl", "vexctl"),
    ],
    sources: &["agent-protocol", "guest-agent", "guest-seed", "vexctl"],
};
/// Those of the tools disk, for the checks of the full tier.
pub(crate) const PROOF: Set = Set {
    stage: "proof",
    programs: &[("guest-proof", "vexfs-proof")],
    sources: &["guest-proof", "vexctl"],
};
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
pub(crate) const RUSTFLAGS: &str = "-C target-feature=+crt-static";

/// What the compiler says of itself.
pub(crate) async fn rustc(
    site: &Site<'_>,
    stage: &str,
    workspace: &Path,
) -> Result<String, BuildError> {
    let command = Site::program("rustc").arg("-vV").current_dir(workspace);
    site.output(stage, command).await
}

/// What the programs are made from.
pub(crate) fn inputs(set: &Set, workspace: &Path, rustc: &str) -> Result<Inputs, BuildError> {
    let mut inputs = Inputs::default()
        .with("rustc", rustc)
        .with("RUSTFLAGS", RUSTFLAGS)
        .with("target", TARGET);
    for source in set.sources {
        let path = workspace.join(source);
        let digest = if path.is_dir() {
            tree::digest(&path)
        } else {
            key::file_digest(&path)
        };
        inputs = inputs.with(*source, digest.map_err(BuildError::io("read", path))?);
    }
    let read = |name: &str| {
        let path = workspace.join(name);
        fs::read_to_string(&path).map_err(BuildError::io("read", path))
    };
    let (lock, manifest) = (read("Cargo.lock")?, read("Cargo.toml")?);
    // Of a file that is not what we take it for, everything counts.
    let crates = crates(set, &lock, &manifest).unwrap_or(lock + &manifest);
    Ok(inputs.with("crates", key::digest(crates)))
}

/// What the workspace's `Cargo.lock` and `Cargo.toml` say about the programs and the crates they are
/// made of. The other members have crates of their own, which are nothing to an image.
fn crates(set: &Set, lock: &str, manifest: &str) -> Option<String> {
    let lock: toml::Table = toml::from_str(lock).ok()?;
    let manifest: toml::Table = toml::from_str(manifest).ok()?;
    let names = set.programs.iter().map(|(name, _)| *name);
    let (wanted, packages) = reached(names, &lock)?;
    let mut said: Vec<String> = packages.iter().map(|package| package.to_string()).collect();
    said.sort();
    let workspace = manifest.get("workspace")?;
    let versions = workspace.get("dependencies")?.as_table()?;
    let versions = versions.iter().filter(|(name, _)| wanted.contains(name));
    said.extend(versions.map(|(name, version)| format!("{name} = {version}")));
    let release = manifest.get("profile").and_then(|p| p.get("release"));
    let rest = [workspace.get("package"), release];
    said.extend(rest.into_iter().flatten().map(ToString::to_string));
    (wanted.len() > set.programs.len()).then(|| said.join("\n"))
}

/// Names and entries of the packages of a lock file that these depend on, themselves with them.
fn reached<'a, 'n>(
    names: impl Iterator<Item = &'n str>,
    lock: &'a toml::Table,
) -> Option<(Vec<String>, Vec<&'a toml::Value>)> {
    let packages = lock.get("package")?.as_array()?;
    let mut wanted: Vec<String> = names.map(str::to_owned).collect();
    let mut found = Vec::new();
    let mut n = 0;
    while let Some(next) = wanted.get(n).cloned() {
        n += 1;
        // A name alone in a list of dependencies is one of several versions when there are several:
        // then all of them count.
        let named = |package: &&toml::Value| {
            let name = package.get("name").and_then(|name| name.as_str());
            name == Some(&next)
        };
        for package in packages.iter().filter(named) {
            found.push(package);
            let dependencies = package.get("dependencies").and_then(|d| d.as_array());
            for dependency in dependencies.into_iter().flatten() {
                let first = dependency.as_str()?.split(' ').next()?.to_owned();
                if !wanted.contains(&first) {
                    wanted.push(first);
                }
            }
        }
    }
    Some((wanted, found))
}

/// Builds them; the entry has one file for each program.
pub(crate) async fn make(
    site: &Site<'_>,
    set: &Set,
    stage: &Stage,
    workspace: &Path,
) -> Result<Entry, BuildError> {
    site.stage(stage, async |result| {
        let target_dir = host::cargo_target(workspace).join("guest");
        let mut command = Site::background("cargo")
            .args([
                "build",
                "--release",
                "--locked",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(&target_dir)
            .env("RUSTFLAGS", RUSTFLAGS)
            .current_dir(workspace);
        for (package, _) in set.programs {
            command = command.args(["--package", package]);
        }
        site.step(set.stage, command).await?;
        for (_, program) in set.programs {
            let from = target_dir.join(TARGET).join("release").join(program);
            fs::copy(&from, result.join(program)).map_err(BuildError::io("copy", from))?;
        }
        Ok(())
    })
    .await
}

/// Digests of [`IMAGE`]; their version is the workspace's.
pub(crate) fn records(entry: &Entry) -> Result<BTreeMap<String, ProgramRecord>, BuildError> {
    let records = IMAGE.programs.iter().map(|(_, program)| {
        let path = entry.dir.join(program);
        let record = ProgramRecord::of(&path, env!("CARGO_PKG_VERSION"));
        Ok((program.to_string(), record?))
    });
    records.collect()
}

/// The crates programs are made of, by the workspace's `Cargo.lock`, without our own.
pub(crate) fn third_party(sets: &[&Set], workspace: &Path) -> Result<Vec<Crate>, BuildError> {
    let path = workspace.join("Cargo.lock");
    let text = fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
    let programs = sets.iter().flat_map(|set| set.programs);
    let crates = locked(&text, programs.map(|(package, _)| *package));
    crates.map_err(|said| BuildError::DataFile { path, said })
}

/// The crates from a registry that these packages of a lock file are made of, in order.
pub(crate) fn locked<'n>(
    lock: &str,
    packages: impl Iterator<Item = &'n str>,
) -> Result<Vec<Crate>, String> {
    let lock: toml::Table = toml::from_str(lock).map_err(|e| format!(" {}", e.message()))?;
    let (_, found) = reached(packages, &lock).ok_or(" it lists no packages")?;
    let field = |package: &toml::Value, name: &str| Some(package.get(name)?.as_str()?.to_owned());
    let crates = found.into_iter().filter_map(|package| {
        Some(Crate {
            name: field(package, "name")?,
            version: field(package, "version")?,
            sha256: field(package, "checksum")?,
        })
    });
    let mut crates: Vec<Crate> = crates.collect();
    crates.sort();
    Ok(crates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4
[[package]]
name = "guest-agent"
version = "1.0.0"
dependencies = ["nix"]
[[package]]
name = "nix"
version = "0.31.0"
dependencies = ["libc 0.2.1"]
[[package]]
name = "libc"
version = "0.2.1"
[[package]]
name = "harness"
version = "1.0.0"
dependencies = ["clap"]
[[package]]
name = "clap"
version = "4.0.0"
"#;
    const MANIFEST: &str = r#"
[workspace.package]
version = "1.0.0"
[workspace.dependencies]
nix = "0.31"
clap = "4"
[profile.release]
lto = "thin"
"#;

    #[test]
    fn only_crates_of_the_programs_count() {
        let whole = crates(&IMAGE, LOCK, MANIFEST).expect("readable");
        for (file, from, to, counts) in [
            (
                0,
                "0.2.1\"\n[[package]]\nname = \"harness",
                "0.2.2\"\n[[package]]\nname = \"harness",
                true,
            ),
            (0, "4.0.0", "4.0.1", false),
            (1, "clap = \"4\"", "clap = \"5\"", false),
            (
                1,
                "nix = \"0.31\"",
                "nix = { version = \"0.31\", features = [\"fs\"] }",
                true,
            ),
            (1, "thin", "fat", true),
        ] {
            let (mut lock, mut manifest) = (LOCK.to_owned(), MANIFEST.to_owned());
            let text = if file == 0 { &mut lock } else { &mut manifest };
            let changed = text.replace(from, to);
            assert_ne!(*text, changed);
            *text = changed;
            let said = crates(&IMAGE, &lock, &manifest).expect("readable");
            assert_eq!(said != whole, counts, "{from} -> {to}");
        }
        assert_eq!(crates(&IMAGE, "Cargo.lock", MANIFEST), None);
        assert_eq!(
            crates(&IMAGE, &LOCK.replace("nix", "nux"), "[workspace]"),
            None
        );
    }

    #[test]
    fn this_workspace_can_be_read() {
        let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let read = |name| fs::read_to_string(workspace.join(name)).expect("a file");
        let said = crates(&IMAGE, &read("Cargo.lock"), &read("Cargo.toml")).expect("readable");
        assert!(said.contains("\"libc\"") && !said.contains("ext4-view"));
    }
}
