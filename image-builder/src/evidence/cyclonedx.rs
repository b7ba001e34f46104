//! The bill of materials as CycloneDX 1.5 (cyclonedx.org/docs/1.5/json).

use serde_json::{Value, json};

use super::{Record, cargo_url, debian_url, timestamp};
use crate::stages::base;

/// The document.
pub(super) fn document(of: &Record<'_>) -> Value {
    let m = of.manifest;
    let sha256 = |digest: &str| json!([{"alg": "SHA-256", "content": digest}]);
    let mut components = Vec::new();
    for deb in &m.packages {
        let url = debian_url(&deb.name, &deb.version, Some(&deb.architecture));
        let mut component = json!({
            "type": "library",
            "bom-ref": url,
            "name": deb.name,
            "version": deb.version,
        });
        if !m.is_compiled_here(&deb.name) {
            component["purl"] = json!(url);
        }
        components.push(component);
    }
    let version = m.module.version.as_deref().unwrap_or(&m.vexfs_version);
    components.push(json!({
        "type": "device-driver",
        "bom-ref": "module",
        "name": m.module.name,
        "version": version,
        "hashes": sha256(&m.module.sha256),
    }));
    for (name, program) in &m.programs {
        components.push(json!({
            "type": "application",
            "bom-ref": format!("program:{name}"),
            "name": name,
            "version": program.version,
            "hashes": sha256(&program.sha256),
        }));
    }
    for of in &of.ingredients.crates {
        let url = cargo_url(of);
        components.push(json!({
            "type": "library",
            "bom-ref": url,
            "name": of.name,
            "version": of.version,
            "purl": url,
            "hashes": sha256(&of.sha256),
        }));
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": format!("urn:uuid:{}", base::uuid(&m.key, &m.disk.sha256)),
        "version": 1,
        "metadata": {
            "timestamp": timestamp(m.source_date_epoch),
            "tools": {
                "components": [{
                    "type": "application",
                    "name": "vexfs-images",
                    "version": env!("CARGO_PKG_VERSION"),
                }],
            },
            "component": {
                "type": "operating-system",
                "bom-ref": "image",
                "name": of.name,
                "version": m.vexfs_version,
                "hashes": sha256(&m.disk.sha256),
            },
        },
        "components": components,
    })
}
