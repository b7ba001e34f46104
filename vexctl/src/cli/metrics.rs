//! `vexctl metrics [--output FILE]`: the numbers of `vexctl status` for Prometheus.

use super::{module_version, status};
use anyhow::Context;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::PathBuf;
use vexctl::mounts;

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file for the node exporter's textfile collector, replaced as a whole; stdout if not given.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Metric, its type, what it says, and the key of `vexctl status --format json`.
const METRICS: [(&str, &str, &str, &str); 10] = [
    (
        "vexfs_size_bytes",
        "gauge",
        "Size of the file system.",
        "size_bytes",
    ),
    ("vexfs_free_bytes", "gauge", "Free space.", "free_bytes"),
    (
        "vexfs_available_bytes",
        "gauge",
        "Free space for users.",
        "available_bytes",
    ),
    ("vexfs_inodes", "gauge", "Inodes.", "inodes"),
    ("vexfs_free_inodes", "gauge", "Free inodes.", "free_inodes"),
    ("vexfs_vectors", "gauge", "Vectors stored.", "vectors"),
    (
        "vexfs_vector_cache_bytes",
        "gauge",
        "Memory of the vector cache.",
        "vector_cache_bytes",
    ),
    (
        "vexfs_vector_cache_hits_total",
        "counter",
        "Searches answered from the cache.",
        "vector_cache_hits",
    ),
    (
        "vexfs_vector_cache_misses_total",
        "counter",
        "Searches that read the disk.",
        "vector_cache_misses",
    ),
    (
        "vexfs_errors_total",
        "counter",
        "Errors found in the file system.",
        "errors",
    ),
];

/// A label's value in the text format.
fn label(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Prometheus' text exposition format, version 0.0.4.
fn render(version: Option<&str>, mounted: &[Value]) -> String {
    let mut text = String::new();
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    };
    head(
        &mut text,
        "vexfs_module_info",
        "gauge",
        "1 for the version of the loaded module.",
    );
    if let Some(version) = version {
        let _ = writeln!(text, "vexfs_module_info{{version=\"{version}\"}} 1");
    }
    head(
        &mut text,
        "vexfs_mounts",
        "gauge",
        "Mounted VexFS file systems.",
    );
    let _ = writeln!(text, "vexfs_mounts {}", mounted.len());
    for (name, kind, help, key) in METRICS {
        head(&mut text, name, kind, help);
        for one in mounted {
            if let Some(number) = one[key].as_u64() {
                let (device, mount) = (label(&one["device"]), label(&one["mount"]));
                let _ = writeln!(
                    text,
                    "{name}{{device=\"{device}\",mountpoint=\"{mount}\"}} {number}"
                );
            }
        }
    }
    text
}

/// Writes the metrics.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mounted = mounts::mounted().context("cannot read /proc/self/mounts")?;
    let mounted: Vec<Value> = mounted
        .iter()
        .map(status::describe)
        .collect::<anyhow::Result<_>>()?;
    let text = render(module_version().as_deref(), &mounted);
    let Some(output) = &args.output else {
        print!("{text}");
        return Ok(());
    };
    // The exporter may read at any moment.
    let partial = output.with_extension("prom.new");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, output))
        .with_context(|| format!("cannot write {}", output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_text_has_a_line_for_each_number() {
        let mounted =
            [json!({"device": "/dev/vdb", "mount": "/srv/\"a\"", "size_bytes": 7, "errors": null})];
        let text = render(Some("1.0.0"), &mounted);
        let lines = [
            "# TYPE vexfs_size_bytes gauge",
            "vexfs_size_bytes{device=\"/dev/vdb\",mountpoint=\"/srv/\\\"a\\\"\"} 7",
            "vexfs_module_info{version=\"1.0.0\"} 1",
            "vexfs_mounts 1",
        ];
        for line in lines {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
        assert!(!text.contains("vexfs_errors_total{"));
        assert!(render(None, &[]).contains("\nvexfs_mounts 0\n"));
    }
}
