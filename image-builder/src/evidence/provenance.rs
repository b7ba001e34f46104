//! Where an image comes from: an in-toto statement with SLSA provenance (slsa.dev/spec/v1.0/provenance)
//! that names the digest of every input.

use serde_json::{Map, Value, json};

use super::{Record, cargo_url, debian_url, timestamp};

/// What this kind of build is called.
const BUILD_TYPE: &str = "urn:vexfs-images:build:v1";

/// The document.
pub(super) fn document(of: &Record<'_>) -> Value {
    let m = of.manifest;
    let subjects: Vec<Value> = [&m.disk, &m.compressed]
        .into_iter()
        .chain(m.formats.values())
        .map(|file| json!({"name": file.name, "digest": {"sha256": file.sha256}}))
        .collect();
    let mut dependencies = Vec::new();
    let mut source = json!({
        "name": "source tree",
        "digest": {"sha256": m.source.sha256},
    });
    if let Some(git) = &m.source.origin.git {
        source["uri"] = json!(git);
    }
    if let Some(commit) = &m.source.commit {
        source["digest"]["gitCommit"] = json!(commit);
    }
    dependencies.push(source);
    if let (Some(name), Some(sha256)) = (&m.source.origin.tarball, &m.source.origin.tarball_sha256)
    {
        dependencies.push(json!({"name": name, "digest": {"sha256": sha256}}));
    }
    for (role, debs) in &of.ingredients.debs {
        for deb in debs {
            dependencies.push(json!({
                "uri": debian_url(&deb.name, &deb.version, None),
                "digest": {"sha256": deb.sha256},
                "annotations": {"role": role},
            }));
        }
    }
    for of in &of.ingredients.crates {
        dependencies.push(json!({"uri": cargo_url(of), "digest": {"sha256": of.sha256}}));
    }
    let stages: Map<String, Value> = of
        .ingredients
        .stages
        .iter()
        .map(|(name, inputs)| {
            let stage = json!({"key": inputs.key(), "inputs": inputs});
            ((*name).to_owned(), stage)
        })
        .collect();
    let time = timestamp(m.source_date_epoch);
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "variant": m.variant,
                    "vexfsVersion": m.vexfs_version,
                    "kernelSeries": m.kernel.series,
                    "variables": m.variables,
                },
                "internalParameters": {"tools": m.tools, "stages": stages},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": "urn:vexfs-images:builder",
                    "version": {"vexfs-images": env!("CARGO_PKG_VERSION")},
                },
                // Not when it ran: the same inputs give the same document.
                "metadata": {"invocationId": m.key, "startedOn": time, "finishedOn": time},
            },
        },
    })
}
