//! A build is stopped, or its disk is full, at every stage: what is said, what is left, and how it goes
//! on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::failures::said;
use crate::lab::{Lab, Test, ended, must};

pub const TRIALS: &[Test] = &[
    ("a_full_disk_in_any_stage_is_told", full_in_each_stage),
    ("a_disk_that_is_really_full_leaves_nothing", really_full),
    ("a_killed_build_goes_on_at_the_last_whole_stage", resumed),
    ("a_damaged_base_is_noticed_by_its_content", damaged_base),
    (
        "a_mistake_in_a_variant_is_shown_with_its_place",
        variant_mistake,
    ),
    ("the_cache_stays_below_its_cap", capped),
];

/// A program that is out of space, and the stage it works for.
const OUT_OF_SPACE: &[(&str, &str)] = &[
    ("apt-get", "packages"),
    ("mmdebstrap", "base"),
    ("dpkg-deb", "builder"),
    ("module", "module"),
    ("cargo", "programs"),
    ("sgdisk", "disk"),
    ("packer", "image"),
    ("zstd", "seal"),
];
const STAGES: &[&str] = &["base", "builder", "module", "programs", "disk", "image"];

/// Makes the next build do everything again, but keeps the image that is there.
fn forget(lab: &Lab) -> Result<(), String> {
    for stage in STAGES.iter().copied().chain(["apt"]) {
        let dir = lab.path(&format!("cache/{stage}"));
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn manifest(lab: &Lab) -> Result<Vec<u8>, String> {
    fs::read(lab.image().join("manifest.json")).map_err(|e| e.to_string())
}

/// The image is the one from before, whole, and nothing half-written is near it or in the cache.
fn untouched(lab: &Lab, before: &[u8]) -> Result<(), String> {
    must(manifest(lab)? == before, || {
        "the earlier image was touched".into()
    })?;
    lab.open()?;
    let images = fs::read_dir(lab.path("out/images")).map_err(|e| e.to_string())?;
    let names: Vec<_> = images.flatten().map(|e| e.file_name()).collect();
    let strange = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with(".sealing");
    must(!names.iter().any(|name| strange(&name)), || {
        format!("left: {names:?}")
    })?;
    must(lab.in_progress().is_empty(), || {
        format!("left: {:?}", lab.in_progress())
    })
}

fn full_in_each_stage() -> Result<(), String> {
    let lab = Lab::new();
    let good = lab.build();
    must(good.ok, || good.said.clone())?;
    let before = manifest(&lab)?;
    lab.write("work/provision/base/files/etc/hostname", "other");
    for (program, stage) in OUT_OF_SPACE {
        forget(&lab)?;
        let fault = format!("fakes/fail-{program}");
        lab.write(&fault, "cannot write: No space left on device");
        let stopped = lab.build();
        let words = format!("ran full while {stage} was at work");
        said(&stopped, &[&words, "VEXFS_CACHE"]).map_err(|e| format!("{program}: {e}"))?;
        untouched(&lab, &before).map_err(|e| format!("{program}: {e}"))?;
        fs::remove_file(lab.path(&fault)).map_err(|e| e.to_string())?;
    }
    let again = lab.build();
    must(again.ok, || again.said.clone())?;
    must(manifest(&lab)? != before, || "nothing was built".into())
}

/// How many files the cache's disk has room for, from next to none to enough.
const ROOM: &[u32] = &[8, 16, 24, 32, 44, 60, 80, 110, 400];

/// A file system of that many files, mounted where nobody else sees it: the builder's ENOSPC is the
/// kernel's.
fn on_a_small_disk(lab: &Lab, files: u32) -> Command {
    let plain = lab.command("{}");
    let mut command = Command::new("/usr/bin/unshare");
    command.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let mount =
        format!("mount -t tmpfs -o size=8g,nr_inodes={files} none \"$1\"; shift; exec \"$@\"");
    command
        .args(["sh", "-euc", &mount, "sh"])
        .arg(lab.path("cache"))
        .arg(plain.get_program());
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn really_full() -> Result<(), String> {
    let lab = Lab::new();
    let good = lab.build();
    must(good.ok, || good.said.clone())?;
    let before = manifest(&lab)?;
    lab.write("work/provision/base/files/etc/hostname", "other");
    for (full, files) in ROOM.iter().enumerate() {
        let since = Instant::now();
        let output = on_a_small_disk(&lab, *files)
            .output()
            .map_err(|e| e.to_string())?;
        let built = ended(
            output.status,
            &output.stdout,
            &output.stderr,
            since.elapsed(),
        );
        if built.ok {
            must(full >= 3, || format!("only {full} builds ran into it"))?;
            return must(manifest(&lab)? != before, || "nothing was built".into());
        }
        println!("{files} files: {}", built.said);
        said(&built, &["ran full", "VEXFS_CACHE"]).map_err(|e| format!("{files} files: {e}"))?;
        untouched(&lab, &before).map_err(|e| format!("{files} files: {e}"))?;
    }
    Err("even with room enough it was full".into())
}

fn resumed() -> Result<(), String> {
    let lab = Lab::new();
    for (program, rest) in [("packer", vec!["image", "seal"]), ("zstd", vec!["seal"])] {
        // So that the versions are known: that asks the slow program too.
        let good = lab.build();
        must(good.ok, || good.said.clone())?;
        lab.write(
            "work/provision/30-config.sh",
            &format!("#!/bin/sh\n# {program}\n"),
        );
        forget(&lab)?;
        lab.write(&format!("fakes/slow-{program}"), "");
        let mut builder = lab.command("{}").spawn().map_err(|e| e.to_string())?;
        lab.wait_for_slow(program);
        builder
            .kill()
            .and_then(|()| builder.wait())
            .map_err(|e| e.to_string())?;
        fs::remove_file(lab.path(&format!("fakes/slow-{program}"))).map_err(|e| e.to_string())?;
        let again = lab.build();
        must(again.ok && again.ran() == rest, || {
            format!("after {program}: ran {:?}: {}", again.ran(), again.said)
        })?;
        must(lab.in_progress().is_empty(), || {
            format!("left: {:?}", lab.in_progress())
        })?;
    }
    Ok(())
}

/// The one entry of a stage.
fn entries(lab: &Lab, stage: &str) -> Result<Vec<PathBuf>, String> {
    let home = fs::read_dir(lab.path(&format!("cache/{stage}"))).map_err(|e| e.to_string())?;
    Ok(home
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect())
}

fn damaged_base() -> Result<(), String> {
    use std::os::unix::fs::FileExt;
    let lab = Lab::new();
    let first = lab.build();
    must(first.ok, || first.said.clone())?;
    let flip = |path: &Path| {
        let file = fs::File::options().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, 1100)?;
        file.write_all_at(&[byte[0] ^ 1], 1100)
    };
    let base = entries(&lab, "base")?.remove(0);
    flip(&base.join("root.ext4")).map_err(|e| e.to_string())?;
    // Only the disk is to be made, from that base.
    let other = lab.build_with(r#"{"disk_size": "9G"}"#);
    must(
        other.ok && other.ran() == ["base", "disk", "image", "seal"],
        || format!("ran {:?}: {}", other.ran(), other.said),
    )?;
    must(
        other.notes().iter().any(|note| note.contains("is damaged")),
        || format!("{:?}", other.notes()),
    )
}

fn variant_mistake() -> Result<(), String> {
    let lab = Lab::new();
    for (text, place) in [
        (
            "image_variant = \"minimal\"\nmemory = lots\n",
            "minimal.pkrvars.hcl:2:10: ",
        ),
        (
            "image_variant = \"minimal\"\ndisk_size = \"8G\"\nmemory = 2048\nmemroy = 1\n",
            "minimal.pkrvars.hcl:4:1: ",
        ),
    ] {
        lab.write("work/packer/variants/minimal.pkrvars.hcl", text);
        said(&lab.build(), &[place])?;
    }
    Ok(())
}

fn capped() -> Result<(), String> {
    let lab = Lab::new();
    for host in ["one", "two", "three"] {
        lab.write("work/provision/base/files/etc/hostname", host);
        let built = lab.build_with(r#"{"cache_cap": 1048576}"#);
        must(built.ok, || built.said.clone())?;
        // What it used itself stays, and nothing else.
        for stage in STAGES {
            let count = entries(&lab, stage)?.len();
            must(count == 1, || format!("{host}: {count} entries of {stage}"))?;
        }
    }
    let generous = lab.build();
    must(generous.ok && generous.ran().is_empty(), || {
        format!("{:?}", generous.ran())
    })
}
