//! `vexctl status [MOUNT]`.

use super::{Format, human_size, module_version, print_json, table};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vexctl::mounts::{self, Entry};

/// Which file system.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Mount point; all VexFS mounts if not given.
    mount: Option<PathBuf>,
}

/// What the module says of itself, and where (`/sys/fs/vexfs/<device>/`).
const SYSFS: [(&str, &str); 5] = [
    ("vectors", "vectors"),
    ("vector_cache_bytes", "vector_cache_bytes"),
    ("vector_cache_hits", "vector_cache_hits"),
    ("vector_cache_misses", "vector_cache_misses"),
    ("errors", "errors"),
];

/// One mount, with what the module says of itself.
pub(super) fn describe(entry: &Entry) -> anyhow::Result<Value> {
    let st = nix::sys::statvfs::statvfs(&entry.target)
        .with_context(|| format!("statvfs of {}", entry.target.display()))?;
    let unit = st.fragment_size();
    let mut value = json!({
        "device": entry.source,
        "mount": entry.target,
        "options": entry.options,
        "read_only": entry.has_option("ro"),
        "size_bytes": st.blocks() * unit,
        "free_bytes": st.blocks_free() * unit,
        "available_bytes": st.blocks_available() * unit,
        "inodes": st.files(),
        "free_inodes": st.files_free(),
    });
    let name = Path::new(&entry.source).file_name().unwrap_or_default();
    for (key, file) in SYSFS {
        let path = Path::new("/sys/fs/vexfs").join(name).join(file);
        let number = std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        value[key] = number.into();
    }
    Ok(value)
}

fn row(mount: &Value) -> Vec<String> {
    let size = |key: &str| human_size(mount[key].as_u64().unwrap_or(0));
    let text = |key: &str| match &mount[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    vec![
        text("device"),
        text("mount"),
        size("size_bytes"),
        size("free_bytes"),
        text("free_inodes"),
        text("vectors"),
        text("errors"),
    ]
}

fn print(mount: &Value) {
    let text = |key: &str| mount[key].as_str().unwrap_or("?").to_owned();
    let number = |key: &str| mount[key].as_u64().unwrap_or(0);
    println!(
        "{} on {} ({})",
        text("device"),
        text("mount"),
        text("options")
    );
    println!(
        "  {} of {} free, {} of {} inodes free",
        human_size(number("free_bytes")),
        human_size(number("size_bytes")),
        number("free_inodes"),
        number("inodes"),
    );
    println!(
        "  {} vectors, cache {} with {} hits and {} misses; {} errors",
        number("vectors"),
        human_size(number("vector_cache_bytes")),
        number("vector_cache_hits"),
        number("vector_cache_misses"),
        number("errors"),
    );
}

/// Prints the module's version and the mounts.
pub fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let mut entries = mounts::mounted().context("cannot read /proc/self/mounts")?;
    if let Some(wanted) = &args.mount {
        let path = wanted.canonicalize().unwrap_or_else(|_| wanted.clone());
        entries.retain(|entry| entry.target == path);
        if entries.is_empty() {
            bail!(
                "no VexFS is mounted on {0}: `mount -t vexfs DEVICE {0}`",
                wanted.display()
            );
        }
    }
    let version = module_version();
    let described: Vec<Value> = entries
        .iter()
        .map(describe)
        .collect::<anyhow::Result<_>>()?;
    match format {
        Format::Json => print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "module": { "loaded": version.is_some(), "version": version },
            "mounts": described,
        })),
        Format::Table | Format::Compact => {
            let heading = [
                "device",
                "mount",
                "size",
                "free",
                "free inodes",
                "vectors",
                "errors",
            ];
            table::print(
                format,
                &heading,
                &described.iter().map(row).collect::<Vec<_>>(),
            );
        }
        Format::Human => {
            match &version {
                Some(version) => println!("vexfs module {version} loaded"),
                None => println!("vexfs module not loaded"),
            }
            if described.is_empty() {
                println!("no VexFS file system is mounted");
            }
            described.iter().for_each(print);
        }
    }
    Ok(())
}
