//! What vexctl says in JSON, in a real guest, fits the schemas it gives out; and they do refuse.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use host_harness::dossier::Policy;
use host_harness::lab::{BOOT_DEADLINE, Guest};
use libtest_mimic::Failed;
use serde_json::{Value, json};

/// Of which command, and how it is asked. `D` is the disk, `M` where it is mounted.
const DOCUMENTS: &[(&str, &str)] = &[
    ("mkfs", "mkfs D --label schema"),
    ("fsck", "fsck D"),
    ("info", "info D"),
    ("dump", "dump D"),
    ("dump", "dump D --block 1"),
    ("dump", "dump D --block 2"),
    ("config", "config"),
    ("status", "status"),
    ("status", "status M"),
    ("vector-get", "vector get M/one"),
    ("vector-search", "vector search M 1,2,3"),
    ("vector-search", "vector search M 1,2,3 --reference"),
    ("vector-search", "vector search /run/rows.jsonl 1,2,3"),
    ("dump", "dump D --path /one"),
];

/// Reads [[schema, document], ...] from stdin; prints what is wrong with each document. The package
/// comes with the Python tools of `ci/setup test`.
const VALIDATOR: &str = "
import json, sys
from jsonschema import Draft202012Validator as V
for schema, document in json.load(sys.stdin):
    V.check_schema(schema)
    print('; '.join(e.message for e in V(schema).iter_errors(document)))
";

pub fn what_vexctl_says_fits() -> Result<(), Failed> {
    let said = super::block_on(documents())?;
    let mut pairs: Vec<[&Value; 2]> = said
        .iter()
        .map(|(_, schema, said)| [schema, said])
        .collect();
    // Each once more with its first field taken away: every field is promised.
    let broken: Vec<Value> = said
        .iter()
        .map(|(.., said)| without_a_field(said))
        .collect();
    pairs.extend(
        said.iter()
            .zip(&broken)
            .map(|((_, schema, _), broken)| [schema, broken]),
    );
    let flaws = validate(&json!(pairs))?;
    let (of_real, of_broken) = flaws.split_at(said.len());
    let mut of_real = said.iter().zip(of_real);
    if let Some(((how, ..), flaw)) = of_real.find(|(_, flaw)| !flaw.is_empty()) {
        return Err(format!("`vexctl {how}` does not fit its schema: {flaw}").into());
    }
    let passed = said.iter().zip(of_broken).find(|(_, flaw)| flaw.is_empty());
    match (passed, of_broken.len() == said.len()) {
        (None, true) => Ok(()),
        (Some(((how, ..), _)), _) => Err(format!("`vexctl {how}` fits without a field").into()),
        (None, false) => Err("the validator did not look at every document".into()),
    }
}

/// How it was asked, the schema the guest's own vexctl gives out, and what it said.
async fn documents() -> Result<Vec<(&'static str, Value, Value)>, Failed> {
    let setup = super::setup(super::DEFAULT, Vec::new(), Policy::none()).await?;
    let snapshot = setup.snapshot().await?;
    let logs = tempfile::tempdir()?;
    let fork = snapshot.fork("schema", logs.path()).await?;
    let guest = Guest::adopt(Arc::new(fork.machine), fork.agent, BOOT_DEADLINE).await?;
    let disk = host_harness::lab::SCRATCH;
    guest
        .sh("echo '[1, 2, 3]' > /run/rows.jsonl; mkdir -p /run/m")
        .await?;
    let mut said = Vec::new();
    for (of, how) in DOCUMENTS {
        if *of == "status" {
            guest.sh(&format!("mountpoint -q /run/m || mount -t vexfs {disk} /run/m; touch /run/m/one; vexctl vector put /run/m/one 3,2,1; sync /run/m/one")).await?;
        }
        let command = how.replace('D', disk).replace('M', "/run/m");
        let schema = guest.sh(&format!("vexctl schema {of}")).await?;
        let document = guest.sh(&format!("vexctl --format json {command}")).await?;
        said.push((
            *how,
            serde_json::from_str(&schema)?,
            serde_json::from_str(&document)?,
        ));
    }
    guest.sh("umount /run/m").await?;
    Ok(said)
}

fn without_a_field(document: &Value) -> Value {
    let mut broken = document.clone();
    if let Some(fields) = broken.as_object_mut() {
        let first = fields.keys().next().cloned().unwrap_or_default();
        fields.remove(&first);
    }
    broken
}

/// One line for each pair: what is wrong, or nothing.
fn validate(pairs: &Value) -> Result<Vec<String>, Failed> {
    let tools = std::env::var_os("VEXFS_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/tools"),
        Into::into,
    );
    let python = tools.join("python/bin/python");
    let mut validator = Command::new(&python)
        .args(["-c", VALIDATOR])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}: run `ci/setup test`", python.display()))?;
    if let Some(mut stdin) = validator.stdin.take() {
        stdin.write_all(pairs.to_string().as_bytes())?;
    }
    let output = validator.wait_with_output()?;
    if !output.status.success() {
        return Err("the validator failed: what it says stands above".into());
    }
    let flaws = String::from_utf8(output.stdout)?;
    Ok(flaws.lines().map(str::to_owned).collect())
}
