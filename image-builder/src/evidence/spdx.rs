//! The bill of materials as SPDX 2.3 (spdx.github.io/spdx-spec/v2.3).

use serde_json::{Value, json};

use super::{Record, cargo_url, debian_url, timestamp};
use crate::store::key;

const NONE: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-image";

/// The document.
pub(super) fn document(of: &Record<'_>) -> Value {
    let m = of.manifest;
    let sha256 = |digest: &str| json!([{"algorithm": "SHA256", "checksumValue": digest}]);
    let package = |id: &str, name: &str, version: &str| {
        json!({
            "SPDXID": id,
            "name": name,
            "versionInfo": version,
            "downloadLocation": NONE,
            "filesAnalyzed": false,
            "licenseConcluded": NONE,
            "licenseDeclared": NONE,
            "copyrightText": NONE,
            "supplier": NONE,
        })
    };
    let purl = |url: String| {
        json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": url,
        }])
    };
    let mut image = package(IMAGE, of.name, &m.vexfs_version);
    image["checksums"] = sha256(&m.disk.sha256);
    image["packageFileName"] = json!(m.disk.name);
    image["primaryPackagePurpose"] = json!("OPERATING-SYSTEM");
    let mut packages = vec![image];
    let mut relations = vec![relation(DOCUMENT, "DESCRIBES", IMAGE)];
    let mut contain = |id: &str, package: Value, packages: &mut Vec<Value>| {
        relations.push(relation(IMAGE, "CONTAINS", id));
        packages.push(package);
    };
    for deb in &m.packages {
        let id = id("deb", &deb.name, &deb.architecture);
        let mut entry = package(&id, &deb.name, &deb.version);
        if !m.is_compiled_here(&deb.name) {
            entry["externalRefs"] =
                purl(debian_url(&deb.name, &deb.version, Some(&deb.architecture)));
        }
        contain(&id, entry, &mut packages);
    }
    let version = m.module.version.as_deref().unwrap_or(&m.vexfs_version);
    let mut module = package("SPDXRef-module", &m.module.name, version);
    module["checksums"] = sha256(&m.module.sha256);
    contain("SPDXRef-module", module, &mut packages);
    for (name, program) in &m.programs {
        let id = id("program", name, "");
        let mut entry = package(&id, name, &program.version);
        entry["checksums"] = sha256(&program.sha256);
        contain(&id, entry, &mut packages);
    }
    for of in &of.ingredients.crates {
        let id = id("crate", &of.name, &of.version);
        let mut entry = package(&id, &of.name, &of.version);
        entry["externalRefs"] = purl(cargo_url(of));
        entry["checksums"] = sha256(&of.sha256);
        contain(&id, entry, &mut packages);
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": of.name,
        // A namespace has to be unique and need not be an address that answers.
        "documentNamespace": format!(
            "urn:vexfs-images:spdx:{}",
            key::digest(format!("{} {}", m.key, m.disk.sha256))
        ),
        "creationInfo": {
            "created": timestamp(m.source_date_epoch),
            "creators": [format!("Tool: vexfs-images-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relations,
    })
}

fn relation(a: &str, kind: &str, b: &str) -> Value {
    json!({"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b})
}

/// An identifier of letters, digits, dots and dashes, unlike that of any other name.
fn id(kind: &str, name: &str, more: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let text: String = format!("{name}-{more}")
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .collect();
    let digest = key::digest(format!("{kind} {name} {more}"));
    format!(
        "SPDXRef-{kind}-{}-{}",
        text.trim_end_matches('-'),
        &digest[..8]
    )
}
