//! What lies beside an image: documents that public validators accept, and a `verify` that notices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::inspect::{Tree, diff};
use image_builder::{sign, verify};
use serde_json::Value;

use crate::lab::{Lab, Test, must};

pub const TRIALS: &[Test] = &[
    ("public_validators_accept_the_documents", validators),
    ("the_provenance_names_every_input", provenance),
    ("verify_notices_what_does_not_fit", tampered),
    ("a_signature_is_made_and_checked", signature),
    ("two_machines_give_the_same_disk", same_disk),
];

/// CycloneDX's own validator, from the package that `ci/setup test` installs.
const CYCLONEDX: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read()) and 1)
";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(future)
}

fn built() -> Result<Lab, String> {
    let lab = Lab::new();
    let built = lab.build();
    must(built.ok, || built.said.clone())?;
    Ok(lab)
}

fn document(lab: &Lab, suffix: &str) -> PathBuf {
    lab.image().join(format!("vexfs-minimal-1.0.0.{suffix}"))
}

fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

/// A program of the Python tools.
fn python(program: &str) -> Result<Command, String> {
    let tools = std::env::var_os("VEXFS_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/tools"),
        PathBuf::from,
    );
    let file = tools.join("python/bin").join(program);
    must(file.is_file(), || {
        format!("no {}: run `ci/setup test`", file.display())
    })?;
    Ok(Command::new(file))
}

fn validators() -> Result<(), String> {
    let lab = built()?;
    let accepts = |spdx: &Path, cyclonedx: &Path| -> Result<[bool; 2], String> {
        let mut one = python("pyspdxtools")?;
        let mut other = python("python")?;
        let commands = [
            one.arg("--infile").arg(spdx),
            other.args(["-c", CYCLONEDX]).arg(cyclonedx),
        ];
        let mut accepted = [false; 2];
        for (command, accepted) in commands.into_iter().zip(&mut accepted) {
            let output = command.output().map_err(|e| e.to_string())?;
            println!("{}", String::from_utf8_lossy(&output.stderr));
            *accepted = output.status.success();
        }
        Ok(accepted)
    };
    let (spdx, cyclonedx) = (document(&lab, "spdx.json"), document(&lab, "cdx.json"));
    let said = accepts(&spdx, &cyclonedx)?;
    must(said == [true, true], || format!("accepted: {said:?}"))?;
    // They have something to look at, and they do look.
    let crates = read(&spdx)?["packages"].to_string();
    must(crates.contains("pkg:cargo/libc@"), || {
        "no crates in it".into()
    })?;
    let broken = [lab.path("broken.spdx.json"), lab.path("broken.cdx.json")];
    let mut one = read(&spdx)?;
    one["packages"][1]["SPDXID"] = "not an identifier".into();
    let mut other = read(&cyclonedx)?;
    other["components"][0]["type"] = "packet".into();
    for (path, value) in broken.iter().zip([one, other]) {
        fs::write(path, value.to_string()).map_err(|e| e.to_string())?;
    }
    let said = accepts(&broken[0], &broken[1])?;
    must(said == [false, false], || {
        format!("broken ones accepted: {said:?}")
    })
}

fn provenance() -> Result<(), String> {
    let lab = built()?;
    let statement = read(&document(&lab, "provenance.json"))?;
    let image = lab.open()?;
    let manifest = &image.manifest;
    must(
        statement["predicateType"] == "https://slsa.dev/provenance/v1",
        || statement["predicateType"].to_string(),
    )?;
    let subject = &statement["subject"][0];
    must(
        subject["digest"]["sha256"] == manifest.disk.sha256.as_str(),
        || subject.to_string(),
    )?;
    let build = &statement["predicate"]["buildDefinition"];
    let text = build["resolvedDependencies"].to_string();
    for digest in [
        &manifest.source.sha256,
        "dae45e9c4c5641b0e8a58b6c3f0de0dd946b9ac47502cc45ef451f3119ebacd7",
    ] {
        must(text.contains(digest), || format!("no {digest} in it"))?;
    }
    // Every stage with all its inputs, so every script and file of the repository.
    let stages = &build["internalParameters"]["stages"];
    for stage in &manifest.stages {
        let said = &stages[&stage.name];
        must(said["key"] == stage.key.as_str(), || {
            format!("{}: {said}", stage.name)
        })?;
    }
    let script = &stages["image"]["inputs"]["provision/30-config.sh"];
    must(script.as_str().is_some_and(|d| d.len() == 64), || {
        script.to_string()
    })
}

/// What `verify` finds wrong, as one text.
fn wrong(lab: &Lab, signers: Option<&Path>) -> Result<String, String> {
    let findings = run(verify(&lab.image(), signers)).map_err(|e| e.to_string())?;
    let wrong: Vec<String> = findings.into_iter().flat_map(|f| f.wrong).collect();
    Ok(wrong.join("\n"))
}

fn tampered() -> Result<(), String> {
    let lab = built()?;
    let said = wrong(&lab, None)?;
    must(said.is_empty(), || said.clone())?;
    let with = |file: &str, change: &dyn Fn(String) -> String, word: &str| {
        let path = lab.image().join(file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, change(text.clone())).map_err(|e| e.to_string())?;
        let said = wrong(&lab, None)?;
        must(said.contains(word), || format!("{file}: {said}"))?;
        match text.is_empty() {
            true => fs::remove_file(&path),
            false => fs::write(&path, text),
        }
        .map_err(|e| e.to_string())
    };
    let spdx = "vexfs-minimal-1.0.0.spdx.json";
    with("stranger", &|_| "x".into(), "stranger is in no line of")?;
    with(
        spdx,
        &|text| text.replace("2.36", "2.37"),
        "lacks libc6 2.36",
    )?;
    with(
        spdx,
        &|text| text + " ",
        "vexfs-minimal-1.0.0.spdx.json has ",
    )?;
    with(
        "vexfs-minimal-1.0.0.provenance.json",
        &|text| text.replace("\"sha256\": \"", "\"sha256\": \"0"),
        "does not have the digest of vexfs-minimal-1.0.0.qcow2",
    )?;
    with(
        "manifest.json",
        &|text| text.replace("2.36", "2.37"),
        "libc6:amd64: the manifest says 2.37, the disk has 2.36",
    )?;
    with("SHA256SUMS", &|text| text.replacen('a', "b", 1), "not ")?;
    let said = wrong(&lab, None)?;
    must(said.is_empty(), || said.clone())
}

fn signature() -> Result<(), String> {
    let lab = built()?;
    for name in ["key", "other"] {
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(lab.path(name))
            .status();
        must(status.is_ok_and(|s| s.success()), || "no key".into())?;
        let public = fs::read_to_string(lab.path(&format!("{name}.pub")));
        let public = public.map_err(|e| e.to_string())?;
        lab.write(&format!("signers-{name}"), &format!("me@example {public}"));
    }
    let (right, other) = (lab.path("signers-key"), lab.path("signers-other"));
    let said = wrong(&lab, Some(&right))?;
    must(said.contains("there is no SHA256SUMS.sig"), || said.clone())?;
    run(sign(&lab.image(), &lab.path("key"))).map_err(|e| e.to_string())?;
    // Again is no question.
    run(sign(&lab.image(), &lab.path("key"))).map_err(|e| e.to_string())?;
    for (signers, fine) in [(None, true), (Some(&*right), true), (Some(&*other), false)] {
        let said = wrong(&lab, signers)?;
        must(said.is_empty() == fine, || format!("{signers:?}: {said}"))?;
    }
    let missing = run(sign(&lab.image(), &lab.path("nothing"))).err();
    let said = missing.map(|e| e.to_string()).unwrap_or_default();
    must(said.contains("--sign") && said.contains("nothing"), || said)
}

/// The machines did the same, at other times, in other blocks, with other leftovers.
fn same_disk() -> Result<(), String> {
    let (one, other) = (built()?, built()?);
    let trees = run(async {
        let (one, other) = (one.open()?, other.open()?);
        let tree = async |disk: &Path| Tree::of_disk(disk).await.map_err(|e| e.to_string());
        Ok::<_, String>((tree(&one.disk).await?, tree(&other.disk).await?))
    })?;
    let differences = diff(&trees.0, &trees.1);
    must(differences.is_empty(), || format!("{differences:?}"))?;
    let made = trees.0.nodes.get("/etc/made-by").ok_or("not provisioned")?;
    must(
        made.mode == 0o640 && made.modified == (1_700_000_000, 0),
        || format!("{made:?}"),
    )?;
    must(!trees.0.nodes.contains_key("/etc/for the build"), || {
        "what provisioning removed is there".into()
    })?;
    let digests = [one.open()?, other.open()?].map(|image| image.manifest.disk.sha256);
    must(digests[0] == digests[1], || {
        "the trees are the same, the disks are not".into()
    })
}
