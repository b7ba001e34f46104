//! A variant with the harness's test programs: they are in the image, in its manifest and in its bills of
//! materials, and the stages that make them say so.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::lab::{Lab, Test, must};

pub const TRIALS: &[Test] = &[
    ("test_programs_are_in_image_and_documents", documented),
    ("a_suite_without_its_lock_file_is_told", no_lock),
];

const TESTING: &str = r#"{"variant": "testing"}"#;
const PROGRAMS: [&str; 3] = ["fsx", "pjdfstest", "vexfs-proof"];

fn documented() -> Result<(), String> {
    let lab = Lab::new();
    let built = lab.build_with(TESTING);
    must(built.ok, || built.said.clone())?;
    for stage in ["suites", "proof"] {
        must(built.ran().contains(&stage.to_owned()), || {
            format!("{stage} is not among {:?}", built.ran())
        })?;
    }
    let dir = lab.path("out/images/vexfs-testing-1.0.0");
    let read = |name: &str| -> Result<Value, String> {
        let text = fs::read(dir.join(name)).map_err(|e| e.to_string())?;
        serde_json::from_slice(&text).map_err(|e| e.to_string())
    };
    let manifest = read("manifest.json")?;
    for program in PROGRAMS {
        must(manifest["programs"][program].is_object(), || {
            format!("{program} is not in {}", manifest["programs"])
        })?;
    }
    let bill = read("vexfs-testing-1.0.0.cdx.json")?;
    let components = bill["components"].as_array().ok_or("no components")?;
    let count = |name: &str| {
        let named = components.iter().filter(|c| c["name"] == name);
        named.filter(|c| c["type"] == "library").count()
    };
    // The suites themselves, and once what both use.
    for (name, times) in [("pjdfstest", 1), ("fsx", 1), ("shared", 1), ("unused", 0)] {
        must(count(name) == times, || {
            format!("{name}: {} times", count(name))
        })?;
    }
    let carried = Command::new("tar")
        .args(["--list", "--file"])
        .arg(lab.path("fakes/files.tar"))
        .output()
        .map_err(|e| e.to_string())?;
    let carried = String::from_utf8_lossy(&carried.stdout).into_owned();
    for program in PROGRAMS {
        must(
            carried.contains(&format!("./usr/local/bin/{program}\n")),
            || carried.clone(),
        )?;
    }
    // Other variants have none.
    let built = lab.build();
    must(built.ok, || built.said.clone())?;
    must(!built.ran().contains(&"suites".to_owned()), || {
        format!("{:?}", built.ran())
    })
}

/// A bill of materials that leaves out what is linked in would look whole.
fn no_lock() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("fakes/suite.lock", "not a lock file [");
    let built = lab.build_with(TESTING);
    must(
        !built.ok && built.said.contains("Cargo.lock") && built.said.contains("pjdfstest"),
        || built.said.clone(),
    )
}
