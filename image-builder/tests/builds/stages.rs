//! What runs when, and what it leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Test, ended, must};
use crate::schema::mistakes;

pub const TRIALS: &[Test] = &[
    ("a_cold_build_runs_every_stage_and_seals", cold),
    ("the_manifest_fits_its_schema", manifest),
    ("nothing_changed_is_nothing_done", unchanged),
    ("a_change_runs_its_stage_and_later_ones", changes),
    ("the_mirror_is_asked_again_only_after_a_while", mirror_state),
    ("a_damaged_cache_entry_is_made_again", damaged_entry),
    ("a_damaged_image_is_sealed_again", damaged_image),
    ("two_builds_at_once_do_the_work_once", two_at_once),
    (
        "variants_side_by_side_share_what_they_have_in_common",
        side_by_side,
    ),
    ("a_build_does_not_call_itself_another", own_lock),
    ("another_build_is_told_of_when_it_takes_long", anothers_lock),
    ("cancelled_leaves_nothing", cancelled),
    (
        "killed_leaves_nothing_that_the_next_build_does_not_remove",
        killed,
    ),
];

const ALL: [&str; 7] = [
    "programs", "base", "builder", "module", "disk", "image", "seal",
];

fn cold() -> Result<(), String> {
    let lab = Lab::new();
    let built = lab.build();
    must(built.ok, || built.said.clone())?;
    let mut ran = built.ran();
    ran.sort();
    let mut all = ALL.map(str::to_owned).to_vec();
    all.sort();
    must(ran == all, || format!("ran {ran:?}"))?;
    let image = lab.open()?;
    let manifest = &image.manifest;
    must(manifest.kernel.release == "6.1.0-1-cloud-amd64", || {
        format!("{:?}", manifest.kernel)
    })?;
    must(manifest.module.version.as_deref() == Some("1.0.0"), || {
        format!("{:?}", manifest.module)
    })?;
    must(manifest.packages.len() == 1, || {
        format!("{:?}", manifest.packages)
    })?;
    must(manifest.source_date_epoch == 1_700_000_000, || {
        manifest.source_date_epoch.to_string()
    })?;
    let sums = Command::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(lab.image())
        .status();
    must(sums.is_ok_and(|status| status.success()), || {
        "SHA256SUMS does not hold".into()
    })?;
    must(
        lab.path("cache/kernel/vmlinuz-6.1.0-1-cloud-amd64")
            .is_file(),
        || "no kernel".into(),
    )?;
    must(lab.in_progress().is_empty(), || {
        format!("left: {:?}", lab.in_progress())
    })
}

fn manifest() -> Result<(), String> {
    let lab = Lab::new();
    let built = lab.build();
    must(built.ok, || built.said.clone())?;
    let text = fs::read(lab.image().join("manifest.json")).map_err(|e| e.to_string())?;
    let manifest: serde_json::Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let found = mistakes(&manifest);
    must(found.is_empty(), || found.join("\n"))?;
    // And it can be seen when it does not.
    let mut changed = manifest;
    changed["kernel"]["flavour"] = "cloud".into();
    changed["disk"]["sha256"] = "0123".into();
    changed["stages"][0]["seconds"] = (-1).into();
    changed.as_object_mut().ok_or("no object")?.remove("module");
    let found = mistakes(&changed);
    must(found.len() == 4, || format!("{found:?}"))
}

fn unchanged() -> Result<(), String> {
    let lab = Lab::new();
    let first = lab.build();
    must(first.ok, || first.said.clone())?;
    let before = fs::metadata(lab.image().join("manifest.json")).and_then(|m| m.modified());
    let calls = lab.calls("mmdebstrap") + lab.calls("packer") + lab.calls("apt-get");
    let second = lab.build();
    must(second.ok, || second.said.clone())?;
    must(second.ran().is_empty(), || {
        format!("ran {:?}", second.ran())
    })?;
    let after = fs::metadata(lab.image().join("manifest.json")).and_then(|m| m.modified());
    must(before.ok() == after.ok(), || {
        "the image was written again".into()
    })?;
    let now = lab.calls("mmdebstrap") + lab.calls("packer") + lab.calls("apt-get");
    must(now == calls, || format!("{} calls more", now - calls))?;
    must(second.took < Duration::from_secs(1), || {
        format!("took {:?}", second.took)
    })
}

fn changes() -> Result<(), String> {
    let lab = Lab::new();
    let first = lab.build();
    must(first.ok, || first.said.clone())?;
    let from = |changed: &str, text: &str, want: &[&str], why: (&str, &str)| {
        lab.write(changed, text);
        let built = lab.build();
        must(built.ok, || built.said.clone())?;
        must(built.ran() == want, || {
            format!("{changed}: ran {:?}", built.ran())
        })?;
        let (stage, reason) = why;
        must(built.why(stage) == Some(reason), || {
            format!("{changed}: {stage} ran because {:?}", built.why(stage))
        })
    };
    from(
        "work/vexfs/super.c",
        "int changed;",
        &["module", "image", "seal"],
        ("module", "changed: VexFS source tree"),
    )?;
    from(
        "work/provision/30-config.sh",
        "#!/usr/bin/env bash",
        &["image", "seal"],
        ("image", "changed: provision/30-config.sh"),
    )?;
    from(
        "work/vexctl/main.rs",
        "fn main() {}",
        &["programs", "image", "seal"],
        ("programs", "changed: vexctl"),
    )?;
    from(
        "work/provision/base/files/etc/hostname",
        "other",
        &["base", "disk", "image", "seal"],
        ("base", "changed: provision/base/files"),
    )?;
    let built = lab.build_with(r#"{"disk_size": "9G"}"#);
    must(built.ran() == ["disk", "image", "seal"], || {
        format!("size: ran {:?}", built.ran())
    })?;
    let why = built.why("disk").unwrap_or_default();
    must(why.contains("disk size: 8589934592 -> 9663676416"), || {
        why.into()
    })?;
    // Back to what was built before: the stages are remembered, only the image in place differs.
    let built = lab.build();
    must(built.ran() == ["seal"], || {
        format!("back: ran {:?}", built.ran())
    })
}

fn mirror_state() -> Result<(), String> {
    let lab = Lab::new();
    let first = lab.build();
    must(first.ok, || first.said.clone())?;
    lab.write("fakes/state", "1.1");
    let soon = lab.build();
    must(soon.ran().is_empty(), || {
        format!("soon: ran {:?}", soon.ran())
    })?;
    // Later: as if the last question had been long ago.
    let apt = fs::read_dir(lab.path("cache/apt")).map_err(|e| e.to_string())?;
    for checked in apt.flatten().map(|dir| dir.path().join("checked")) {
        if let Ok(file) = fs::File::open(&checked) {
            let old = std::time::SystemTime::now() - Duration::from_secs(3600);
            file.set_times(fs::FileTimes::new().set_modified(old))
                .map_err(|e| e.to_string())?;
        }
    }
    let later = lab.build();
    must(later.ok, || later.said.clone())?;
    must(later.ran().contains(&"base".into()), || {
        format!("later: ran {:?}", later.ran())
    })?;
    let why = later.why("base").unwrap_or_default();
    must(why.contains("1.0 dae45e9c4c56 -> 1.1 dae45e9c4c56"), || {
        why.into()
    })
}

fn damaged_entry() -> Result<(), String> {
    let lab = Lab::new();
    let first = lab.build();
    must(first.ok, || first.said.clone())?;
    let base = fs::read_dir(lab.path("cache/base")).map_err(|e| e.to_string())?;
    let entry = base
        .flatten()
        .map(|e| e.path())
        .find(|p| p.is_dir())
        .ok_or("no entry")?;
    fs::write(entry.join("root.ext4"), "cut").map_err(|e| e.to_string())?;
    lab.write("work/vexfs/super.c", "int changed;");
    fs::remove_dir_all(lab.path("cache/disk")).map_err(|e| e.to_string())?;
    let again = lab.build();
    must(again.ok, || again.said.clone())?;
    must(again.ran().contains(&"base".into()), || {
        format!("ran {:?}", again.ran())
    })?;
    let size = fs::metadata(entry.join("root.ext4"))
        .map_err(|e| e.to_string())?
        .len();
    must(size == 6 << 30, || format!("root.ext4 has {size} bytes"))
}

fn damaged_image() -> Result<(), String> {
    let lab = Lab::new();
    let first = lab.build();
    must(first.ok, || first.said.clone())?;
    let disk = lab.image().join("vexfs-minimal-1.0.0.qcow2");
    fs::write(&disk, "dusk\n").map_err(|e| e.to_string())?;
    let error = lab.open().err().unwrap_or_default();
    must(error.contains("its manifest says"), || {
        format!("opened: {error}")
    })?;
    let again = lab.build();
    must(again.ran() == ["seal"], || format!("ran {:?}", again.ran()))?;
    must(
        again.why("seal") == Some("the image in place is damaged"),
        || format!("{:?}", again.why("seal")),
    )?;
    lab.open().map(drop)
}

fn two_at_once() -> Result<(), String> {
    let lab = Lab::new();
    let since = Instant::now();
    let builders = [lab.command("{}"), lab.command("{}")].map(|mut command| command.spawn());
    for builder in builders {
        let output = builder
            .and_then(|b| b.wait_with_output())
            .map_err(|e| e.to_string())?;
        let built = ended(
            output.status,
            &output.stdout,
            &output.stderr,
            since.elapsed(),
        );
        must(built.ok, || built.said.clone())?;
    }
    // Once for its version, at most twice, and once for the base.
    let bases = fs::read_to_string(lab.path("fakes/calls")).map_err(|e| e.to_string())?;
    let bases = bases
        .lines()
        .filter(|l| l.starts_with("mmdebstrap --verbose"))
        .count();
    must(bases == 1, || format!("{bases} bases were made"))?;
    lab.open().map(drop)
}

fn side_by_side() -> Result<(), String> {
    let lab = Lab::new();
    let since = Instant::now();
    let variants = ["minimal", "testing", "production"];
    let builders: Vec<_> = variants
        .iter()
        .map(|variant| {
            lab.command(&format!(r#"{{"variant": "{variant}"}}"#))
                .spawn()
        })
        .collect();
    let mut ran = Vec::new();
    for builder in builders {
        let output = builder
            .and_then(|b| b.wait_with_output())
            .map_err(|e| e.to_string())?;
        let built = ended(
            output.status,
            &output.stdout,
            &output.stderr,
            since.elapsed(),
        );
        must(built.ok, || built.said.clone())?;
        ran.extend(built.ran());
    }
    for (stage, times) in [("programs", 1), ("builder", 1), ("module", 1), ("base", 3)] {
        let count = ran.iter().filter(|ran| *ran == stage).count();
        must(count == times, || {
            format!("{stage} was made {count} times: {ran:?}")
        })?;
    }
    Ok(())
}

/// What is told when somebody waits for somebody.
const ANOTHER: &str = "another build holds";

/// The base downloads so long that the builder root, which waits for it, would tell of it.
fn own_lock() -> Result<(), String> {
    let lab = Lab::new();
    let real = lab.path("more/apt-get");
    fs::create_dir_all(lab.path("more"))
        .and_then(|()| fs::rename(lab.path("bin/apt-get"), &real))
        .map_err(|e| e.to_string())?;
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' --download-only '*) sleep 5 ;; esac\nexec {} \"$@\"\n",
        real.display()
    );
    lab.write("bin/apt-get", &script);
    fs::set_permissions(lab.path("bin/apt-get"), fs::Permissions::from_mode(0o755))
        .map_err(|e| e.to_string())?;
    let built = lab.build();
    must(built.ok, || built.said.clone())?;
    must(built.took > Duration::from_secs(10), || {
        format!("nobody waited: {:?}", built.took)
    })?;
    must(built.notes().iter().all(|n| !n.contains(ANOTHER)), || {
        format!("{:?}", built.notes())
    })
}

fn anothers_lock() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("cache/apt/lock", "");
    let lock = lab.path("cache/apt/lock");
    let mut other = Command::new("flock")
        .arg(&lock)
        .args(["sleep", "5"])
        .spawn()
        .map_err(|e| e.to_string())?;
    // Until it has it.
    while Command::new("flock")
        .arg("--nonblock")
        .arg(&lock)
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    let built = lab.build();
    other.wait().map_err(|e| e.to_string())?;
    must(built.ok, || built.said.clone())?;
    let told = built.notes();
    let about = format!("{ANOTHER} {}", lock.display());
    must(told.iter().any(|note| note.contains(&about)), || {
        format!("{told:?}")
    })
}

fn cancelled() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("fakes/slow-packer", "");
    // Not before the versions are known: that asks the slow program too.
    lab.write("cache/tools.json", &known_versions(&lab));
    let ended = lab.build_with(r#"{"cancel_after_ms": 4000}"#);
    must(!ended.ok && ended.said == "cancelled", || {
        ended.said.clone()
    })?;
    let pid = lab.wait_for_slow("packer");
    must(!is_alive(&pid), || format!("packer {pid} lives"))?;
    must(lab.in_progress().is_empty(), || {
        format!("left: {:?}", lab.in_progress())
    })?;
    must(!lab.image().exists(), || "half an image is in place".into())
}

fn killed() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("fakes/slow-unshare", "");
    let mut builder = lab.command("{}").spawn().map_err(|e| e.to_string())?;
    let pid = lab.wait_for_slow("unshare");
    builder
        .kill()
        .and_then(|()| builder.wait())
        .map_err(|e| e.to_string())?;
    let since = Instant::now();
    while is_alive(&pid) {
        must(since.elapsed() < Duration::from_secs(5), || {
            format!("unshare {pid} lives")
        })?;
        std::thread::sleep(Duration::from_millis(10));
    }
    must(!lab.in_progress().is_empty(), || {
        "nothing was in progress".into()
    })?;
    fs::remove_file(lab.path("fakes/slow-unshare")).map_err(|e| e.to_string())?;
    let again = lab.build();
    must(again.ok, || again.said.clone())?;
    must(lab.in_progress().is_empty(), || {
        format!("left: {:?}", lab.in_progress())
    })
}

/// A `tools.json` by which no tool is asked for its version.
fn known_versions(lab: &Lab) -> String {
    let probe = Lab::new();
    let built = probe.build();
    assert!(built.ok, "{}", built.said);
    let text = fs::read_to_string(probe.path("cache/tools.json")).expect("versions");
    // The fakes are links to one file; only the links' folder differs.
    text.replace(
        &probe.path("bin").display().to_string(),
        &lab.path("bin").display().to_string(),
    )
}

/// Whether a process runs (a zombie does not).
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
