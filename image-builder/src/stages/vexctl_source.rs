//! The control tool's sources with everything they depend on: `cargo test --offline` works where they
//! are unpacked, without this workspace and without network.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use crate::BuildError;
use crate::run::Site;
use crate::source::tree;
use crate::store::key::{self, Inputs};
use crate::store::{Entry, Stage};

/// Name of the stage.
pub(crate) const STAGE: &str = "sources";
/// The archive's file in the entry.
pub(crate) const ARCHIVE: &str = "vexctl-source.tar";
/// The package.
const PACKAGE: &str = "vexctl";
/// Tables of the workspace's manifest that its members refer to.
const INHERITED: &[&str] = &["package", "dependencies", "lints"];
/// Tells cargo where the dependencies are.
const CARGO_CONFIG: &str = "\
# Everything is in vendor/: nothing is fetched.
[source.crates-io]
replace-with = \"vendored-sources\"

[source.vendored-sources]
directory = \"vendor\"

[net]
offline = true
";
/// How its tests are compiled: with the lines of our own code for a backtrace, and nothing of other
/// people's crates for a debugger. Under emulation that is a sixth less to compile, and half to write.
const DEV_PROFILE: &str = "\
debug = \"line-tables-only\"
[package.\"*\"]
debug = false
";
/// Crates for other systems: cargo wants to know them, nobody here compiles them. Of these only the
/// manifest stays.
const FOREIGN: &[&str] = &[
    "windows",
    "winapi",
    "wasi",
    "wit-bindgen",
    "r-efi",
    "wasm-bindgen",
];

/// What it is made from.
pub(crate) fn inputs(workspace: &Path, rustc: &str) -> Result<Inputs, BuildError> {
    let mut inputs = Inputs::default()
        .with("rustc", rustc)
        .with("how", format!("{CARGO_CONFIG} {DEV_PROFILE} {FOREIGN:?}"));
    for file in ["Cargo.toml", "Cargo.lock"] {
        let path = workspace.join(file);
        let digest = key::file_digest(&path).map_err(BuildError::io("read", path))?;
        inputs = inputs.with(file, digest);
    }
    let path = workspace.join(PACKAGE);
    let digest = tree::digest(&path).map_err(BuildError::io("read", path))?;
    Ok(inputs.with(PACKAGE, digest))
}

/// Makes it; the entry has [`ARCHIVE`].
pub(crate) async fn make(
    site: &Site<'_>,
    stage: &Stage,
    workspace: &Path,
) -> Result<Entry, BuildError> {
    site.stage(stage, async |result| {
        let work = site.scratch(STAGE)?;
        let tree = work.path().join(PACKAGE);
        let from = workspace.join(PACKAGE);
        tree::copy(&from, &tree).map_err(BuildError::io("copy", from))?;
        let read = |path: &Path| fs::read_to_string(path).map_err(BuildError::io("read", path));
        let write = |path: &str, text: &str| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&tree))
                .and_then(|()| fs::write(&path, text))
                .map_err(BuildError::io("write", path))
        };
        let root = workspace.join("Cargo.toml");
        let manifest = manifest(&read(&root)?, &read(&tree.join("Cargo.toml"))?)
            .map_err(|said| BuildError::DataFile { path: root, said })?;
        write("Cargo.toml", &manifest)?;
        // The workspace's lock says more than this package needs; cargo takes out the rest.
        write("Cargo.lock", &read(&workspace.join("Cargo.lock"))?)?;
        let vendor = Site::background("cargo")
            .args(["vendor", "--versioned-dirs", "--quiet", "vendor"])
            .current_dir(&tree);
        site.output(STAGE, vendor).await?;
        write(".cargo/config.toml", CARGO_CONFIG)?;
        let vendored = tree.join("vendor");
        hollow_out(&vendored).map_err(BuildError::io("thin out", vendored))?;
        site.step(STAGE, tree::archive(&tree, &result.join(ARCHIVE)))
            .await
    })
    .await
}

/// The package's manifest as the root of a workspace of its own.
fn manifest(workspace: &str, package: &str) -> Result<String, String> {
    let parse = |text: &str| {
        text.parse::<Table>()
            .map_err(|e| format!(" {}", e.message()))
    };
    let (workspace, mut package) = (parse(workspace)?, parse(package)?);
    let mut own = Table::new();
    let inherited = workspace.get("workspace").and_then(Value::as_table);
    for name in INHERITED {
        if let Some(value) = inherited.and_then(|table| table.get(*name)) {
            own.insert((*name).to_owned(), value.clone());
        }
    }
    // Members of the workspace are not there any more.
    if let Some(dependencies) = own.get_mut("dependencies").and_then(Value::as_table_mut) {
        dependencies.retain(|_, value| value.get("path").is_none());
    }
    package.insert("workspace".into(), Value::Table(own));
    let mut profiles = Table::new();
    profiles.insert("dev".into(), Value::Table(parse(DEV_PROFILE)?));
    let release = workspace.get("profile").and_then(|all| all.get("release"));
    profiles.extend(release.map(|release| ("release".to_owned(), release.clone())));
    package.insert("profile".into(), Value::Table(profiles));
    toml::to_string(&package).map_err(|error| error.to_string())
}

/// Empties the crates of other systems. Their checksum file then lists no file, and the digest of the
/// package in it still is what Cargo.lock says.
fn hollow_out(vendor: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(vendor)? {
        let dir = entry?.path();
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        if !FOREIGN.iter().any(|foreign| name.starts_with(foreign)) {
            continue;
        }
        for file in fs::read_dir(&dir)? {
            let path = file?.path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some("Cargo.toml" | ".cargo-checksum.json") => {}
                _ if path.is_dir() => fs::remove_dir_all(path)?,
                _ => fs::remove_file(path)?,
            }
        }
        let checksum = dir.join(".cargo-checksum.json");
        let mut sums: serde_json::Value = serde_json::from_slice(&fs::read(&checksum)?)?;
        sums["files"] = serde_json::json!({});
        fs::write(&checksum, sums.to_string())?;
        // cargo looks for a target to compile before it knows that there is none for this system.
        fs::create_dir_all(dir.join("src"))?;
        fs::write(dir.join("src/lib.rs"), "")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_stands_alone() {
        let workspace = "[workspace]\nmembers = [\"a\"]\n[workspace.package]\nversion = \"1.0.0\"\n\
            [workspace.dependencies]\na = { path = \"a\" }\nclap = \"4\"\n[profile.release]\nlto = \"thin\"\n";
        let package = "[package]\nname = \"vexctl\"\nversion.workspace = true\n";
        let text = manifest(workspace, package).expect("a manifest");
        let table: Table = text.parse().expect("it is TOML");
        let workspace = table["workspace"].as_table().expect("a table");
        assert_eq!(workspace["package"]["version"].as_str(), Some("1.0.0"));
        assert!(workspace["dependencies"].get("clap").is_some());
        assert!(workspace["dependencies"].get("a").is_none());
        assert!(workspace.get("members").is_none());
        assert_eq!(table["profile"]["release"]["lto"].as_str(), Some("thin"));
        let others = &table["profile"]["dev"]["package"]["*"];
        assert_eq!(others["debug"].as_bool(), Some(false));
    }
}
