//! A report as KernelCI's common reports have it: KCIDB's I/O schema, version 5.3
//! (<https://github.com/kernelci/kcidb-io>, `kcidb_io/schema/v05_03.py`).
//!
//! A source tree is a checkout, an image a build, and what became of a check on it a test. Ids are made of
//! digests, so that the same results sent twice are the same objects.

use serde_json::{Map, Value, json};

use super::model::{Cell, Image, Model};

/// Who sends it; a word of lower-case letters, digits and underscores.
const ORIGIN: &str = "vexfs_images";
/// The longest excerpt the schema has room for is 16384 characters.
const EXCERPT: usize = 16_000;

/// The objects.
pub fn render(model: &Model) -> Value {
    let mut checkouts = Map::new();
    let mut builds = Vec::new();
    for image in &model.images {
        let checkout = checkout(image);
        let id = checkout["id"].as_str().unwrap_or_default().to_owned();
        builds.push(build(image, &id));
        checkouts.insert(id, checkout);
    }
    let tests: Vec<Value> = model
        .checks
        .iter()
        .flat_map(|row| row.cells.iter().map(move |cell| (row, cell)))
        .filter_map(|(row, cell)| {
            let image = model
                .images
                .iter()
                .find(|image| image.variant == cell.variant && image.version == cell.version)?;
            Some(test(model, image, &row.tier, &row.check, cell))
        })
        .collect();
    json!({
        "version": {"major": 5, "minor": 3},
        "checkouts": checkouts.into_iter().map(|(_, checkout)| checkout).collect::<Vec<_>>(),
        "builds": builds,
        "tests": tests,
    })
}

fn checkout(image: &Image) -> Value {
    let mut checkout = json!({
        "id": format!("{ORIGIN}:{}", image.source_sha256),
        "origin": ORIGIN,
        "tree_name": "vexfs",
        "valid": true,
        "misc": {"source_tree_sha256": image.source_sha256},
    });
    let is_commit = |commit: &&String| {
        commit.len() == 40
            && commit
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if let Some(commit) = image.commit.as_ref().filter(is_commit) {
        checkout["git_commit_hash"] = json!(commit);
    }
    let repository = image.made_of.iter().find(|fact| fact.name == "repository");
    if let Some(fact) = repository.filter(|fact| fact.value.starts_with("https://")) {
        checkout["git_repository_url"] = json!(plain(&fact.value));
    }
    checkout
}

fn build(image: &Image, checkout: &str) -> Value {
    let seconds: f64 = image.stages.iter().map(|stage| stage.seconds).sum();
    let facts: Map<String, Value> = image
        .made_of
        .iter()
        .map(|fact| (fact.name.clone(), json!(plain(&fact.value))))
        .collect();
    json!({
        "id": build_id(image),
        "checkout_id": checkout,
        "origin": ORIGIN,
        "comment": plain(&format!("vexfs-{} {}", image.variant, image.version)),
        "architecture": "x86_64",
        "config_name": plain(&image.variant),
        "command": plain(&format!("vexfs-images build --variants {}", image.variant)),
        "duration": seconds,
        "status": "PASS",
        "misc": {
            "made_of": facts,
            "disk_bytes": image.disk_bytes,
            "download_bytes": image.download_bytes,
        },
    })
}

fn build_id(image: &Image) -> String {
    format!("{ORIGIN}:{}", image.sha256)
}

fn test(model: &Model, image: &Image, tier: &str, check: &str, cell: &Cell) -> Value {
    let host: Map<String, Value> = model
        .host
        .iter()
        .map(|fact| (fact.name.clone(), json!(plain(&fact.value))))
        .collect();
    let mut test = json!({
        "id": format!("{ORIGIN}:{}:{}:{}", &image.sha256[..image.sha256.len().min(16)], plain(&cell.case), cell.at),
        "build_id": build_id(image),
        "origin": ORIGIN,
        "path": format!("vexfs.{}.{}", path(tier), path(check)),
        "status": status(&cell.outcome),
        "duration": cell.seconds,
        "environment": {"comment": "a virtual machine", "misc": host},
        // When each test began is not kept, only when its verdict was.
        "misc": {"verdict_kept": cell.at, "flaky": cell.flaky},
    });
    if !cell.title.is_empty() {
        test["comment"] = json!(plain(&cell.title));
    }
    let failure = model
        .failures
        .iter()
        .find(|failure| failure.from == "verdict" && failure.case == cell.case);
    if let Some(failure) = failure.filter(|failure| !failure.detail.is_empty()) {
        let skip = failure.detail.chars().count().saturating_sub(EXCERPT);
        let end: String = failure.detail.chars().skip(skip).collect();
        test["log_excerpt"] = json!(plain(&end));
    }
    test
}

fn status(outcome: &str) -> &'static str {
    match outcome {
        "pass" => "PASS",
        "fail" => "FAIL",
        "skip" => "SKIP",
        _ => "ERROR",
    }
}

/// A component of a test's path.
fn path(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.chars()
        .map(|c| if fits(c) { c } else { '_' })
        .collect()
}

/// The schema has no room for NUL.
fn plain(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}
