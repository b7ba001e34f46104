//! What is said when something fails: a sentence, and the earlier image untouched.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::lab::{Ended, Lab, Test, must};

pub const TRIALS: &[Test] = &[
    ("an_unknown_variant_is_told_the_known_ones", unknown_variant),
    ("bad_values_are_refused_before_anything_runs", bad_values),
    ("a_missing_source_tree_is_named", missing_source),
    (
        "all_missing_programs_are_named_with_one_command",
        missing_tools,
    ),
    ("a_tree_that_does_not_compile_shows_its_errors", broken_tree),
    ("a_mirror_that_refuses_is_named", refusing_mirror),
    ("a_mirror_that_is_silent_is_named_in_seconds", silent_mirror),
    ("a_full_disk_is_said_to_be_full", full_disk),
    ("an_image_that_does_not_boot_shows_its_console", no_boot),
    (
        "a_boot_that_ssh_never_reached_is_tried_once_more",
        deaf_once,
    ),
    ("a_host_that_stays_deaf_is_to_blame_not_the_image", deaf),
    ("a_helper_that_was_killed_is_the_hosts_trouble", killed),
    ("a_failing_script_is_named_with_its_words", failing_script),
    ("a_key_left_in_the_image_is_found", key_left),
];

/// The build failed and said all of these.
pub fn said(ended: &Ended, words: &[&str]) -> Result<(), String> {
    must(!ended.ok, || "the build did not fail".into())?;
    for word in words {
        must(ended.said.contains(word), || {
            format!("`{word}` is not in: {}", ended.said)
        })?;
    }
    Ok(())
}

fn unknown_variant() -> Result<(), String> {
    let lab = Lab::new();
    let ended = lab.build_with(r#"{"variant": "maximal"}"#);
    said(&ended, &["no variant `maximal`", "minimal"])
}

fn bad_values() -> Result<(), String> {
    let lab = Lab::new();
    for (changes, word) in [
        (r#"{"kernel_version": "5.10"}"#, "--kernel-version `5.10`"),
        (r#"{"vexfs_version": "one"}"#, "--vexfs-version `one`"),
        (r#"{"vexfs_version": "1.0.0/../x"}"#, "--vexfs-version"),
        (r#"{"disk_size": "8"}"#, "--disk-size `8`"),
        (r#"{"accelerator": "xen"}"#, "--accel `xen`"),
        (
            r#"{"mirror": "not an address"}"#,
            "--mirror `not an address`",
        ),
    ] {
        said(&lab.build_with(changes), &[word])?;
    }
    must(lab.calls("mmdebstrap") == 0, || "a base was made".into())
}

fn missing_source() -> Result<(), String> {
    let lab = Lab::new();
    let ended = lab.build_with(r#"{"source": "/nonexistent/tree"}"#);
    said(
        &ended,
        &[
            "no VexFS source tree at /nonexistent/tree",
            "--vexfs-source",
        ],
    )
}

fn missing_tools() -> Result<(), String> {
    let lab = Lab::new();
    // sbin stays in the path of every build; these are elsewhere.
    let output = lab
        .command("{}")
        .env("PATH", "/nonexistent")
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    must(!output.status.success(), || "it built".into())?;
    for word in [
        "mmdebstrap",
        "packer",
        "qemu-system-x86_64",
        "apt-get install -y ",
        " qemu-system-x86 ",
    ] {
        must(text.contains(word), || {
            format!("`{word}` is not in: {text}")
        })?;
    }
    Ok(())
}

fn broken_tree() -> Result<(), String> {
    let lab = Lab::new();
    let good = lab.build();
    must(good.ok, || good.said.clone())?;
    let before = fs::read(lab.image().join("manifest.json")).map_err(|e| e.to_string())?;
    lab.write("work/vexfs/super.c", "BROKEN x;\n");
    let ended = lab.build();
    said(
        &ended,
        &[
            "`make vm-build` failed in ",
            "super.c:1:1: error: unknown type name 'BROKEN'",
        ],
    )?;
    let errors = "super.c:1:1: error: unknown type name 'BROKEN'\n  \
                  super.c:1:9: error: expected ';' before 'x'\n  \
                  inode.c:7:2: error: 'y' undeclared\nwhole log: ";
    said(&ended, &[errors])?;
    must(!ended.said.contains("/build/src"), || ended.said.clone())?;
    let after = fs::read(lab.image().join("manifest.json")).map_err(|e| e.to_string())?;
    must(before == after, || "the earlier image was touched".into())?;
    lab.open().map(drop)
}

/// A lab whose apt is the host's own.
pub fn real_apt() -> Lab {
    let lab = Lab::new();
    for tool in ["apt-get", "apt-cache"] {
        fs::remove_file(lab.path("bin").join(tool)).expect("a fake less");
    }
    // Whatever this host's apt is told: here the time of an archive counts.
    lab.write(
        "bin/apt-get",
        "#!/bin/sh\nexec /usr/bin/apt-get -o Acquire::Check-Valid-Until=true -o Acquire::Check-Date=true \"$@\"\n",
    );
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(lab.path("bin/apt-get"), executable).expect("a mode");
    lab
}

fn refusing_mirror() -> Result<(), String> {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let port = port.map_err(|e| e.to_string())?.port();
    let ended = real_apt().build_with(&format!(
        r#"{{"mirror": "http://127.0.0.1:{port}/debian"}}"#
    ));
    let url = format!("the mirror http://127.0.0.1:{port}/debian");
    said(&ended, &[&url, "Connection refused", "--mirror URL"])?;
    must(ended.code == Some(75), || {
        format!("a silent mirror ended with {:?}", ended.code)
    })
}

fn silent_mirror() -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    let since = Instant::now();
    let ended = real_apt().build_with(&format!(
        r#"{{"mirror": "http://127.0.0.1:{port}/debian"}}"#
    ));
    said(
        &ended,
        &[
            &format!("the mirror http://127.0.0.1:{port}/debian"),
            "--mirror URL",
        ],
    )?;
    let took = since.elapsed();
    must(took < Duration::from_secs(25), || {
        format!("it took {took:?} to find out")
    })
}

fn full_disk() -> Result<(), String> {
    let lab = Lab::new();
    let good = lab.build();
    must(good.ok, || good.said.clone())?;
    lab.write("work/provision/base/files/etc/hostname", "other");
    lab.write(
        "fakes/fail-mmdebstrap",
        "dpkg: error: failed to write: No space left on device\nE: mmdebstrap failed to run",
    );
    let ended = lab.build();
    said(&ended, &["ran full while base was at work", "VEXFS_CACHE"])?;
    must(ended.code == Some(75), || {
        format!("a full disk ended with {:?}", ended.code)
    })?;
    must(lab.in_progress().is_empty(), || {
        format!("left: {:?}", lab.in_progress())
    })?;
    lab.open().map(drop)
}

fn no_boot() -> Result<(), String> {
    let lab = Lab::new();
    lab.write(
        "fakes/console",
        "GRUB\r\n\x1b[0mKernel panic - not syncing: no init\r\n",
    );
    let ended = lab.build();
    said(
        &ended,
        &[
            "the base did not come up in 900 s",
            "Kernel panic - not syncing: no init",
            "console.log",
        ],
    )?;
    must(ended.code == Some(1), || {
        format!("the guest's panic ended with {:?}", ended.code)
    })?;
    must(lab.provisioned() == 1, || "a panic was tried again".into())?;
    must(!lab.image().exists(), || "there is an image".into())
}

/// A base that is up: what its console shows then.
const HEALTHY: &str = "GRUB\r\n[    0.000000] Linux version 6.1.0\r\n\
    [\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m.\r\n\
    \r\nDebian GNU/Linux 12 vexfs ttyS0\r\n\r\nvexfs login: ";

fn deaf_once() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("fakes/console", HEALTHY);
    lab.write("fakes/console-once", "");
    let ended = lab.build();
    must(ended.ok, || ended.said.clone())?;
    must(lab.provisioned() == 2, || "it was not tried again".into())?;
    must(
        ended.notes().contains(
            &"the base came up, but this host did not get through to its SSH within 900 s: \
              trying once more from the start",
        ),
        || format!("the second try was not said: {:?}", ended.notes()),
    )?;
    let log = lab.path("out/logs/build-minimal-image.log");
    let log = fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    must(log.contains("Timeout waiting for SSH"), || {
        "the first try is not in the log".into()
    })
}

fn deaf() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("fakes/console", HEALTHY);
    let ended = lab.build();
    said(
        &ended,
        &[
            "this host did not get through to the SSH of a base that had come up, 2 times within 900 s",
            "vexfs login:",
            "console.log",
        ],
    )?;
    must(ended.code == Some(75), || {
        format!("the host's trouble ended with {:?}", ended.code)
    })?;
    must(lab.provisioned() == 2, || "tried more than twice".into())?;
    must(!lab.image().exists(), || "there is an image".into())
}

fn killed() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("fakes/killed-packer", "");
    let ended = lab.build();
    said(&ended, &["SIGKILL"])?;
    must(ended.code == Some(75), || {
        format!("a killed helper ended with {:?}", ended.code)
    })
}

fn failing_script() -> Result<(), String> {
    let lab = Lab::new();
    lab.write(
        "fakes/script-fails",
        "test: vexfs is still loaded after modprobe --remove\n",
    );
    let ended = lab.build();
    said(
        &ended,
        &[
            "provision/80-test.sh failed in the guest",
            "test: vexfs is still loaded",
        ],
    )?;
    must(ended.code == Some(1), || {
        format!("the guest's failure ended with {:?}", ended.code)
    })
}

fn key_left() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("fakes/forgets-key", "");
    let ended = lab.build();
    said(&ended, &["the SSH key of the build is still in the image"])?;
    must(!lab.image().exists(), || "there is an image".into())
}
