//! Where the tree comes from: a folder, a tarball, a git repository; and what is said when it is not
//! what it should be. git and tar are the host's own here.

use std::fs;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::lab::{Ended, Lab, Test, must};
use crate::schema::mistakes;

pub const TRIALS: &[Test] = &[
    ("a_tarball_is_a_source", tarball),
    ("a_digest_is_checked_before_anything_is_built", digests),
    ("a_tag_and_a_commit_are_sources", revisions),
    ("a_branch_and_a_stranger_are_none", no_revisions),
    ("a_signed_tag_is_verified", signed),
    ("a_config_beside_the_tree_wins", config),
    ("a_link_in_the_tree_brings_in_no_file_of_the_host", links),
];

/// A lab in which git is git.
fn lab() -> Lab {
    let lab = Lab::new();
    fs::remove_file(lab.path("bin/git")).expect("the fake");
    lab.write("tree/tiny/super.c", "int tiny;");
    lab
}

/// Builds with this source and these checks.
fn build(lab: &Lab, source: &str, checks: &str) -> Ended {
    lab.build_with(&format!(
        r#"{{"source": "{source}", "source_checks": {checks}}}"#
    ))
}

/// Runs a program in a folder of the lab; its standard output.
fn run(lab: &Lab, dir: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(lab.path(dir))
        .env("HOME", lab.path("home"))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "a")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "a@b")))
        .output()
        .map_err(|error| format!("{}: {error}", words[0]))?;
    must(output.status.success(), || {
        format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn sha256(lab: &Lab, file: &str) -> String {
    let bytes = fs::read(lab.path(file)).expect("a file");
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn refused(built: &Ended, words: &[&str]) -> Result<(), String> {
    must(!built.ok && built.ran().is_empty(), || {
        format!("ran {:?}", built.ran())
    })?;
    match words.iter().find(|word| !built.said.contains(**word)) {
        Some(word) => Err(format!("it does not say `{word}`: {}", built.said)),
        None => Ok(()),
    }
}

fn tarball() -> Result<(), String> {
    let lab = lab();
    run(&lab, "tree", &["tar", "-czf", "../tiny-1.0.tar.gz", "tiny"])?;
    let source = lab.path("tiny-1.0.tar.gz").display().to_string();
    let digest = sha256(&lab, "tiny-1.0.tar.gz");
    let built = build(&lab, &source, &format!(r#"{{"digest": "{digest}"}}"#));
    must(built.ok, || built.said.clone())?;
    let origin = lab.open()?.manifest.source.origin;
    must(origin.tarball.as_deref() == Some("tiny-1.0.tar.gz"), || {
        format!("{origin:?}")
    })?;
    must(
        origin.tarball_sha256.as_deref() == digest.strip_prefix("sha256:"),
        || format!("{origin:?}"),
    )?;
    let text = fs::read(lab.image().join("manifest.json")).map_err(|e| e.to_string())?;
    let found = mistakes(&serde_json::from_slice(&text).map_err(|e| e.to_string())?);
    must(found.is_empty(), || found.join("\n"))?;
    // The same again is nothing to do, and the folder it was made from is the same source.
    must(build(&lab, &source, "{}").ran().is_empty(), || {
        "it was built again".into()
    })?;
    // What lies unpacked in the cache is not trusted blindly.
    let cached = fs::read_dir(lab.path("cache/sources")).map_err(|e| e.to_string())?;
    let cached = cached.flatten().map(|e| e.path()).find(|p| p.is_dir());
    let cached = cached.ok_or("nothing was unpacked")?.join("tree/super.c");
    fs::write(&cached, "int hacked;").map_err(|e| e.to_string())?;
    must(build(&lab, &source, "{}").ran().is_empty(), || {
        "a changed tree in the cache was built".into()
    })?;
    fs::write(lab.path("tiny-1.0.tar.gz"), "no tarball").map_err(|e| e.to_string())?;
    refused(
        &build(&lab, &source, "{}"),
        &["tiny-1.0.tar.gz", "not used"],
    )
}

fn digests() -> Result<(), String> {
    let lab = lab();
    run(&lab, "tree", &["tar", "-czf", "../t.tar.gz", "tiny"])?;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let wrong = format!(r#"{{"digest": "{wrong}"}}"#);
    let file = lab.path("t.tar.gz").display().to_string();
    let said = sha256(&lab, "t.tar.gz");
    refused(&build(&lab, &file, &wrong), &["the file has", &said])?;
    let folder = lab.path("tree/tiny").display().to_string();
    refused(&build(&lab, &folder, &wrong), &["the tree has sha256:"])?;
    let short = r#"{"digest": "sha256:12"}"#;
    refused(&build(&lab, &folder, short), &["--source-digest", "64"])?;
    // The digest that is named is the one that does.
    let error = build(&lab, &folder, &wrong).said;
    let right = error.split([' ', ',']).find(|word| word.len() == 71);
    let right = right.ok_or_else(|| format!("no digest in: {error}"))?;
    let built = build(&lab, &folder, &format!(r#"{{"digest": "{right}"}}"#));
    must(built.ok, || built.said)?;
    must(lab.calls("apt-get") > 0, || "nothing was built".into())
}

/// A repository with a tag `v1`, a branch `main` a commit later; the tagged commit.
fn repository(lab: &Lab) -> Result<String, String> {
    let git = |words: &[&str]| run(lab, "tree/tiny", &[&["git"], words].concat());
    git(&["init", "--quiet", "--initial-branch=main"])?;
    git(&["add", "."])?;
    git(&["commit", "--quiet", "--message=one"])?;
    git(&["tag", "v1"])?;
    let commit = git(&["rev-parse", "HEAD"])?;
    lab.write("tree/tiny/super.c", "int later;");
    git(&["commit", "--quiet", "--all", "--message=two"])?;
    Ok(commit)
}

fn revisions() -> Result<(), String> {
    let lab = lab();
    let commit = repository(&lab)?;
    let url = lab.path("tree/tiny").display().to_string();
    let built = build(&lab, &format!("{url}@v1"), "{}");
    must(built.ok, || built.said.clone())?;
    let source = lab.open()?.manifest.source;
    must(source.commit.as_ref() == Some(&commit), || {
        format!("{source:?}")
    })?;
    must(source.origin.revision.as_deref() == Some("v1"), || {
        format!("{source:?}")
    })?;
    let log = lab.path("out/logs/build-minimal-module.log");
    let log = fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    must(log.contains("int tiny;"), || log.clone())?;
    // The same tree by its commit, whole and shortened: nothing to do.
    for revision in [commit.as_str(), &commit[..10]] {
        let built = build(&lab, &format!("{url}@{revision}"), "{}");
        must(built.ok && built.ran().is_empty(), || {
            format!("{revision}: ran {:?} {}", built.ran(), built.said)
        })?;
    }
    let in_address = build(&lab, &format!("file://{url}@{commit}"), "{}");
    must(in_address.ok, || in_address.said.clone())
}

fn no_revisions() -> Result<(), String> {
    let lab = lab();
    repository(&lab)?;
    let url = lab.path("tree/tiny").display().to_string();
    let built = |source: &str, checks: &str| build(&lab, source, checks);
    refused(&built(&format!("{url}@main"), "{}"), &["main is a branch"])?;
    refused(&built(&format!("{url}@v2"), "{}"), &["no tag v2"])?;
    refused(
        &built(&format!("{url}@{}", "e".repeat(40)), "{}"),
        &["no commit eee"],
    )?;
    refused(
        &built(&format!("{url}/not@v1"), "{}"),
        &["cannot fetch from", "not"],
    )?;
    refused(&built("/no/such/tree", "{}"), &["/no/such/tree"])?;
    let wrong = format!(r#"{{"digest": "sha256:{}"}}"#, "0".repeat(64));
    refused(&built(&format!("{url}@v1"), &wrong), &["the tree has"])?;
    let signed = r#"{"signed_tag": true}"#;
    refused(&built(&format!("{url}@v1"), signed), &["signature of v1"])?;
    refused(&built(&url, signed), &["only a tag"])
}

fn signed() -> Result<(), String> {
    let lab = lab();
    // The fake ssh-keygen is in git's way too.
    fs::remove_file(lab.path("bin/ssh-keygen")).map_err(|e| e.to_string())?;
    repository(&lab)?;
    for name in ["key", "other"] {
        let key = lab.path(name).display().to_string();
        run(
            &lab,
            "tree",
            &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key],
        )?;
        let public = fs::read_to_string(lab.path(&format!("{name}.pub")));
        let public = public.map_err(|e| e.to_string())?;
        lab.write(&format!("signers-{name}"), &format!("a@b {public}"));
    }
    let key = format!("user.signingKey={}", lab.path("key").display());
    let tag = ["git", "-c", "gpg.format=ssh", "-c", &key];
    run(
        &lab,
        "tree/tiny",
        &[&tag[..], &["tag", "-s", "v2", "-m", "two"]].concat(),
    )?;
    let source = format!("{}@v2", lab.path("tree/tiny").display());
    let checks = |name: &str| {
        let file = lab.path(name);
        format!(
            r#"{{"signed_tag": true, "allowed_signers": "{}"}}"#,
            file.display()
        )
    };
    refused(
        &build(&lab, &source, &checks("signers-other")),
        &["signature of v2"],
    )?;
    refused(&build(&lab, &source, &checks("nobody")), &["no such file"])?;
    let built = build(&lab, &source, &checks("signers-key"));
    must(built.ok, || built.said.clone())?;
    let origin = lab.open()?.manifest.source.origin;
    let said = origin.signature.unwrap_or_default();
    must(said.contains("Good") && said.contains("a@b"), || {
        said.clone()
    })
}

fn config() -> Result<(), String> {
    let lab = lab();
    lab.write("beside.toml", "module = \"tiny\"\nfstype = \"tinyfs\"\n");
    let source = lab.path("tree/tiny").display().to_string();
    let beside = lab.path("beside.toml").display().to_string();
    let checks = format!(r#"{{"config": "{beside}"}}"#);
    let built = build(&lab, &source, &checks);
    must(built.ok, || built.said.clone())?;
    let manifest = lab.open()?.manifest;
    must(manifest.module.name == "tiny.ko", || {
        manifest.module.name.clone()
    })?;
    must(manifest.source.config.fstype == "tinyfs", || {
        manifest.source.config.fstype.clone()
    })?;
    lab.write("beside.toml", "module = \"tiny\"\nmodul = 1\n");
    refused(
        &build(&lab, &source, &checks),
        &["beside.toml:2:1", "modul"],
    )?;
    fs::remove_file(lab.path("beside.toml")).map_err(|e| e.to_string())?;
    refused(
        &build(&lab, &source, &checks),
        &["beside.toml", "--source-config"],
    )
}

fn links() -> Result<(), String> {
    let lab = lab();
    lab.write("secret", "of the host");
    let link = lab.path("tree/tiny/vexfs.conf");
    std::os::unix::fs::symlink(lab.path("secret"), link).map_err(|e| e.to_string())?;
    let built = build(&lab, &lab.path("tree/tiny").display().to_string(), "{}");
    must(built.ok, || built.said.clone())?;
    let file = lab.image().join("vexfs-minimal-1.0.0.provenance.json");
    let text = fs::read(file).map_err(|e| e.to_string())?;
    let text: serde_json::Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let stages = &text["predicate"]["buildDefinition"]["internalParameters"]["stages"];
    let used = stages["image"]["inputs"]["vexfs.conf"].as_str();
    let ours = sha256(&lab, "work/vexfs/vexfs.conf");
    must(used == ours.strip_prefix("sha256:"), || format!("{used:?}"))
}
