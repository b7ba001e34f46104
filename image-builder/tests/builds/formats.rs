//! The forms of an image besides qcow2, each by a reader that is not ours.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::Format;
use image_builder::verify;

use crate::lab::{Lab, Test, must};
use crate::schema::mistakes;

pub const TRIALS: &[Test] = &[
    ("independent_readers_take_every_format", readers),
    ("formats_are_added_and_the_same_each_time", again),
    ("a_format_that_is_changed_is_noticed", changed),
];

const ALL: &str =
    r#"{"disk_size": "1G", "formats": ["qcow2", "raw", "vmdk", "vhd", "gcp", "oci"]}"#;
/// Raw is the disk's bytes and no more; its digest takes long.
const MORE: &str = r#"{"disk_size": "1G", "formats": ["vmdk", "vhd", "gcp", "oci"]}"#;
const DISK: u64 = 1 << 30;

fn built(changes: &str) -> Result<Lab, String> {
    let lab = Lab::new();
    let built = lab.build_with(changes);
    must(built.ok, || built.said.clone())?;
    Ok(lab)
}

fn file(lab: &Lab, format: Format) -> PathBuf {
    lab.image()
        .join(format!("vexfs-minimal-1.0.0{}", format.suffix()))
}

/// Runs a reader; what it prints.
fn read(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|e| format!("{program} (ci/setup installs it): {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    must(output.status.success(), || {
        format!("{program} {arguments:?}: {said}")
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn same_disk(lab: &Lab, format: &str, other: &Path) -> Result<(), String> {
    let disk = file(lab, Format::Qcow2);
    let arguments = [
        "compare",
        "-f",
        "qcow2",
        "-F",
        format,
        text(&disk),
        text(other),
    ];
    let said = read("qemu-img", &arguments)?;
    must(said.contains("Images are identical"), || said)
}

fn readers() -> Result<(), String> {
    let lab = built(ALL)?;
    let raw = file(&lab, Format::Raw);
    same_disk(&lab, "raw", &raw)?;
    let meta = fs::metadata(&raw).map_err(|e| e.to_string())?;
    must(meta.len() == DISK && meta.blocks() * 512 < DISK / 4, || {
        format!("{} bytes, {} blocks", meta.len(), meta.blocks())
    })?;
    let vmdk = file(&lab, Format::Vmdk);
    same_disk(&lab, "vmdk", &vmdk)?;
    read("qemu-img", &["check", "-f", "vmdk", text(&vmdk)])?;
    let said = read("qemu-img", &["info", "--output=json", text(&vmdk)])?;
    must(
        said.contains("\"create-type\": \"streamOptimized\""),
        || said,
    )?;
    let vhd = file(&lab, Format::Vhd);
    same_disk(&lab, "vpc", &vhd)?;
    let bytes = fs::metadata(&vhd).map_err(|e| e.to_string())?.len();
    must(bytes == DISK + 512 && DISK.is_multiple_of(1 << 20), || {
        format!("the VHD has {bytes} bytes")
    })?;
    google(&lab)?;
    containers(&lab)?;
    let manifest = fs::read(lab.image().join("manifest.json")).map_err(|e| e.to_string())?;
    let found = mistakes(&serde_json::from_slice(&manifest).map_err(|e| e.to_string())?);
    must(found.is_empty(), || found.join("\n"))?;
    let sums = Command::new("sha256sum")
        .args(["--check", "--quiet", "--strict", "SHA256SUMS"])
        .current_dir(lab.image())
        .status();
    must(sums.is_ok_and(|status| status.success()), || {
        "SHA256SUMS does not hold".into()
    })?;
    let sums = fs::read_to_string(lab.image().join("SHA256SUMS")).map_err(|e| e.to_string())?;
    for format in [
        Format::Raw,
        Format::Vmdk,
        Format::Vhd,
        Format::Gcp,
        Format::Oci,
    ] {
        must(
            sums.contains(&format!("1.0.0{}\n", format.suffix())),
            || format!("{format} is not in SHA256SUMS"),
        )?;
    }
    must(lab.in_progress().is_empty(), || {
        format!("left: {:?}", lab.in_progress())
    })
}

/// One file of that name in an archive that an old tar understands.
fn google(lab: &Lab) -> Result<(), String> {
    let archive = file(lab, Format::Gcp);
    let listed = read("tar", &["--list", "--gzip", "--file", text(&archive)])?;
    must(listed == "disk.raw\n", || format!("it holds {listed}"))?;
    let head = read(
        "sh",
        &[
            "-c",
            "gzip -dc \"$1\" | head -c 265 | tail -c 8 | od -An -c",
            "sh",
            text(&archive),
        ],
    )?;
    must(
        head.split_whitespace().collect::<String>() == "ustar\\0",
        || format!("magic {head}"),
    )?;
    let dir = lab.path("google");
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    read(
        "tar",
        &[
            "--extract",
            "--gzip",
            "--directory",
            text(&dir),
            "--file",
            text(&archive),
        ],
    )?;
    same_disk(lab, "raw", &dir.join("disk.raw"))
}

/// skopeo copies it, umoci unpacks it, and the root is what the disk has.
fn containers(lab: &Lab) -> Result<(), String> {
    let archive = file(lab, Format::Oci);
    let from = format!("oci-archive:{}", archive.display());
    let said = read("skopeo", &["inspect", &from])?;
    must(said.contains("\"Architecture\": \"amd64\""), || {
        said.clone()
    })?;
    must(
        said.contains("\"Created\": \"2023-11-14T22:13:20Z\""),
        || said.clone(),
    )?;
    let layout = lab.path("layout");
    let to = format!("oci:{}:1.0.0", layout.display());
    read(
        "skopeo",
        &["--insecure-policy", "copy", "--quiet", &from, &to],
    )?;
    let bundle = lab.path("bundle");
    let image = format!("{}:1.0.0", layout.display());
    read(
        "umoci",
        &["unpack", "--rootless", "--image", &image, text(&bundle)],
    )?;
    let etc = bundle.join("rootfs/etc");
    let made_by = fs::read_to_string(etc.join("made-by")).map_err(|e| e.to_string())?;
    must(made_by == "provisioned\n", || made_by)?;
    let meta = fs::metadata(etc.join("made-by")).map_err(|e| e.to_string())?;
    must(meta.permissions().mode() & 0o7777 == 0o640, || {
        format!("{:o}", meta.mode())
    })?;
    let link = fs::read_link(etc.join("vexfs/link")).map_err(|e| e.to_string())?;
    must(link == Path::new("../made-by"), || {
        link.display().to_string()
    })?;
    must(!etc.join("for the build").exists(), || {
        "a file of the base is there".into()
    })
}

/// Digests by format.
fn digests(lab: &Lab) -> Result<BTreeMap<Format, String>, String> {
    let formats = lab.open()?.manifest.formats;
    Ok(formats
        .into_iter()
        .map(|(format, file)| (format, file.sha256))
        .collect())
}

fn again() -> Result<(), String> {
    let one = built(r#"{"disk_size": "1G", "formats": ["vhd", "oci"]}"#)?;
    must(digests(&one)?.len() == 2, || "not two formats".into())?;
    fs::write(one.image().join("verdict.json"), "{}").map_err(|e| e.to_string())?;
    // Others are added, what was there stays, and so does the verdict on the disk.
    let more = one.build_with(MORE);
    must(more.ok && more.ran() == ["seal"], || {
        format!("{:?}: {}", more.ran(), more.said)
    })?;
    must(
        more.why("seal") == Some("the image in place lacks a format"),
        || format!("{:?}", more.why("seal")),
    )?;
    must(one.image().join("verdict.json").is_file(), || {
        "the verdict is gone".into()
    })?;
    let fewer = one.build_with(r#"{"disk_size": "1G"}"#);
    must(fewer.ran().is_empty(), || format!("{:?}", fewer.ran()))?;
    let other = built(MORE)?;
    let (one, other) = (digests(&one)?, digests(&other)?);
    must(one.len() == 4 && one == other, || {
        format!("{one:#?}\n{other:#?}")
    })
}

fn changed() -> Result<(), String> {
    let lab = built(r#"{"disk_size": "1G", "formats": ["oci"]}"#)?;
    let path = file(&lab, Format::Oci);
    let mut bytes = fs::read(&path).map_err(|e| e.to_string())?;
    bytes[600] ^= 1;
    fs::write(&path, bytes).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let findings = runtime
        .block_on(verify(&lab.image(), None))
        .map_err(|e| e.to_string())?;
    let wrong = findings
        .iter()
        .filter(|finding| !finding.wrong.is_empty())
        .count();
    must(wrong >= 2, || format!("{findings:?}"))?;
    fs::remove_file(&path).map_err(|e| e.to_string())?;
    let again = lab.build_with(r#"{"disk_size": "1G"}"#);
    must(again.ok && again.ran() == ["seal"], || {
        format!("{:?}: {}", again.ran(), again.said)
    })?;
    must(path.is_file(), || "it was not made again".into())
}
