//! Wrong input and broken hosts, each with what must be said about it.

use std::fs;
use std::path::Path;

use libtest_mimic::Failed;

use super::{Row, copy, expect, out, vexfs_images, workspace};

pub const TESTS: &[Row] = &[
    ("unknown_variant", unknown_variant),
    ("bad_version", bad_version),
    ("missing_source_tree", missing_source_tree),
    ("source_that_does_not_compile", source_that_does_not_compile),
    ("mistake_in_the_source_config", mistake_in_the_source_config),
    ("mirror_that_does_not_answer", mirror_that_does_not_answer),
    ("no_qemu", no_qemu),
    ("no_room_for_guest_memory", no_room_for_guest_memory),
    ("no_packer", no_packer),
    ("kvm_that_is_not_there", kvm_that_is_not_there),
    ("no_image", no_image),
    ("unknown_check", unknown_check),
    ("check_of_a_dearer_tier", check_of_a_dearer_tier),
    ("mistake_in_a_filter", mistake_in_a_filter),
    ("nothing_asked", nothing_asked),
    ("image_that_does_not_boot", image_that_does_not_boot),
    ("damaged_image", damaged_image),
    ("exit_code_of_the_guest", exit_code_of_the_guest),
];

fn unknown_variant() -> Result<(), Failed> {
    let command = vexfs_images(&["build", "--variants", "maximal", "--no-validation"]);
    expect(command, 2, &["maximal", "minimal"]).map(drop)
}

fn bad_version() -> Result<(), Failed> {
    let command = vexfs_images(&["build", "--vexfs-version", "../../etc"]);
    expect(command, 2, &["../../etc", "1.0.0"]).map(drop)
}

fn missing_source_tree() -> Result<(), Failed> {
    let command = vexfs_images(&[
        "build",
        "--vexfs-source",
        "/no/such/tree",
        "--no-validation",
    ]);
    expect(command, 2, &["/no/such/tree"]).map(drop)
}

/// A copy of the in-tree module with one statement too many. The base and the builder come from
/// the cache, the image goes elsewhere: the good one stays as it is.
fn source_that_does_not_compile() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let tree = dir.path().join("vexfs");
    copy(&workspace().join("vexfs"), &tree)?;
    let broken = tree.join("super.c");
    let mut text = fs::read_to_string(&broken)?;
    text.push_str("\nint vexfs_broken(void) { return not_declared_anywhere; }\n");
    fs::write(&broken, text)?;
    let elsewhere = dir.path().join("out");
    let mut command = vexfs_images(&["build", "--no-validation"]);
    command
        .arg("--vexfs-source")
        .arg(&tree)
        .arg("--output-dir")
        .arg(&elsewhere);
    command.env("VEXFS_CACHE", out().join("cache"));
    expect(command, 2, &["super.c", "not_declared_anywhere", "log"])?;
    assert!(
        !elsewhere
            .join("images")
            .join("vexfs-minimal-1.0.0")
            .exists(),
        "half an image is left"
    );
    Ok(())
}

fn mistake_in_the_source_config() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let tree = dir.path().join("vexfs");
    copy(&workspace().join("vexfs"), &tree)?;
    fs::write(
        tree.join("vexfs-source.toml"),
        "module = \"vexfs\"\nmodul = \"x\"\n",
    )?;
    let mut command = vexfs_images(&["build", "--no-validation"]);
    command.arg("--vexfs-source").arg(&tree);
    expect(command, 2, &["vexfs-source.toml:2:1", "modul"]).map(drop)
}

fn mirror_that_does_not_answer() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    // Port 9 (discard) on loopback: nobody listens, so the refusal comes at once.
    let url = "http://127.0.0.1:9/debian";
    let mut command = vexfs_images(&["build", "--no-validation", "--mirror", url]);
    command.arg("--output-dir").arg(dir.path());
    command.env("VEXFS_CACHE", dir.path().join("cache"));
    expect(command, 75, &["127.0.0.1:9", "--mirror"]).map(drop)
}

fn no_qemu() -> Result<(), Failed> {
    let mut command = vexfs_images(&["validate", "minimal"]);
    command.env("VEXFS_QEMU", "/no/such/qemu");
    expect(command, 75, &["/no/such/qemu", "apt-get install"]).map(drop)
}

/// proc(5) is a file system without room.
fn no_room_for_guest_memory() -> Result<(), Failed> {
    let mut command = vexfs_images(&["doctor"]);
    command.env("VEXFS_RAM_DIR", "/proc");
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let sentence = "wrong: guest memory of machine `one` needs 1,024 MiB in /proc, which has 0 MiB left: \
                    name another folder with VEXFS_RAM_DIR";
    let wanted = [
        sentence,
        "0 MiB free of 0 MiB in /proc (NOT A TMPFS: machines are slower there)",
        "1 at once",
    ];
    match wanted.iter().find(|words| !text.contains(**words)) {
        Some(words) => Err(format!("`{words}` is not in:\n{text}").into()),
        None if output.status.code() != Some(1) => Err(format!("{}", output.status).into()),
        None => Ok(()),
    }
}

/// A PATH with everything but Packer and mmdebstrap: both must be named in one error.
fn no_packer() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let bin = dir.path().join("bin");
    fs::create_dir(&bin)?;
    for place in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let hidden = name == "packer" || name == "mmdebstrap";
            if !hidden && !bin.join(&name).exists() {
                std::os::unix::fs::symlink(entry.path(), bin.join(&name))?;
            }
        }
    }
    let mut command = vexfs_images(&["build", "--no-validation"]);
    command
        .env("PATH", &bin)
        .arg("--output-dir")
        .arg(dir.path().join("out"));
    expect(command, 75, &["packer", "mmdebstrap", "apt-get install"]).map(drop)
}

/// On a host where KVM works there is nothing to refuse.
fn kvm_that_is_not_there() -> Result<(), Failed> {
    let doctor = vexfs_images(&["doctor"]).output()?;
    if String::from_utf8_lossy(&doctor.stdout).contains("kvm (") {
        println!("kvm works here: asking for it is no mistake");
        return Ok(());
    }
    let command = vexfs_images(&["boot", "minimal", "--accel", "kvm"]);
    expect(command, 75, &["kvm was asked for", "--accel"]).map(drop)
}

fn no_image() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let mut command = vexfs_images(&["validate", "minimal"]);
    command.arg("--output-dir").arg(dir.path());
    expect(
        command,
        2,
        &[
            "no image for variant `minimal`",
            "cargo images build --variants minimal",
        ],
    )
    .map(drop)
}

fn unknown_check() -> Result<(), Failed> {
    let command = vexfs_images(&["validate", "minimal", "--check", "no_such_check"]);
    expect(command, 2, &["no_such_check", "module_load"]).map(drop)
}

fn check_of_a_dearer_tier() -> Result<(), Failed> {
    for command in ["validate", "ci"] {
        let command = vexfs_images(&[command, "--check", "fio_modes"]);
        expect(command, 2, &["fio_modes", "add --test-type full"])?;
    }
    Ok(())
}

/// Several filters are taken, and the one with a mistake is shown with the mistake's place.
fn mistake_in_a_filter() -> Result<(), Failed> {
    let filters = [
        "--check",
        "mount",
        "--check",
        "test(/mount/) + tset(=service)",
    ];
    for words in [
        &["validate"][..],
        &["ci"],
        &["try"],
        &["bisect", "--good", "a", "--bad", "b"],
    ] {
        let command = vexfs_images(&[words, &filters].concat());
        expect(command, 2, &["at character 17, before `tset(", "test(…)"])?;
    }
    Ok(())
}

/// A check about images of another variant: that nothing was asked is no pass.
fn nothing_asked() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let elsewhere = dir.path().join("out");
    let image = disguise(&elsewhere, &[0; 1 << 20])?;
    let mut command = vexfs_images(&["validate", "--check", "module_signing"]);
    command.arg(&image).arg("--output-dir").arg(&elsewhere);
    command.env("VEXFS_CACHE", out().join("cache"));
    expect(command, 3, &["0 passed, 0 failed, 0 skipped"]).map(drop)
}

/// The image with an empty disk: the firmware finds nothing to boot and says so on the console.
fn image_that_does_not_boot() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let elsewhere = dir.path().join("out");
    let image = disguise(&elsewhere, &[0; 1 << 20])?;
    let mut command = vexfs_images(&[
        "validate",
        "--test-type",
        "boot-only",
        "--boot-timeout",
        "15",
    ]);
    command.arg(&image).arg("--output-dir").arg(&elsewhere);
    command.env("VEXFS_CACHE", out().join("cache"));
    expect(
        command,
        1,
        &[
            "does not boot",
            "the console ends with",
            "No bootable device",
        ],
    )
    .map(drop)
}

/// A disk that is not the one its manifest describes.
fn damaged_image() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let image = disguise(dir.path(), &[0; 1 << 20])?;
    let disk = image.join("vexfs-minimal-1.0.0.qcow2");
    let mut bytes = fs::read(&disk)?;
    bytes[1 << 16] ^= 1;
    fs::write(&disk, bytes)?;
    let mut command = vexfs_images(&["validate"]);
    command.arg(&image);
    expect(command, 75, &["SHA-256", "vexfs-minimal-1.0.0"]).map(drop)
}

fn exit_code_of_the_guest() -> Result<(), Failed> {
    let command = vexfs_images(&[
        "exec",
        "minimal",
        "--",
        "sh",
        "-c",
        "echo to-stderr >&2; exit 42",
    ]);
    expect(command, 42, &["to-stderr"]).map(drop)
}

/// An image folder below `out` that has the real one's manifest, but this raw disk.
fn disguise(out_dir: &Path, disk: &[u8]) -> Result<std::path::PathBuf, Failed> {
    use sha2::{Digest, Sha256};
    let name = "vexfs-minimal-1.0.0";
    let real = out().join("images").join(name).join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(real)?)?;
    let dir = out_dir.join("images").join(name);
    fs::create_dir_all(&dir)?;
    let raw = dir.join("disk.raw");
    fs::write(&raw, disk)?;
    let file = dir.join(format!("{name}.qcow2"));
    let converted = std::process::Command::new("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .arg(&raw)
        .arg(&file)
        .status()?;
    assert!(converted.success());
    let bytes = fs::read(&file)?;
    manifest["disk"]["bytes"] = bytes.len().into();
    manifest["disk"]["sha256"] = hex::encode(Sha256::digest(&bytes)).into();
    fs::write(dir.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    Ok(dir)
}
