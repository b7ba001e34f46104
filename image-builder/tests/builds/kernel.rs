//! Kernels: the distribution's, one compiled from source, both; and modules that are signed.

use std::fs;
use std::path::Path;

use image::{Image, Manifest, SigningState};
use image_builder::BuildEvent;

use crate::lab::{Lab, Test, must};
use crate::schema::mistakes;

pub const TRIALS: &[Test] = &[
    (
        "a_kernel_is_compiled_once_for_all_changes_of_c",
        compiled_once,
    ),
    (
        "a_second_kernel_brings_its_own_module_and_menu_entry",
        second_kernel,
    ),
    ("a_kernel_without_what_is_asked_for_is_refused", refused),
    ("what_cannot_be_is_said_before_anything_runs", bad_requests),
    (
        "a_trusted_key_locks_production_down_and_stays_where_it_is",
        locked_down,
    ),
    ("a_key_the_kernel_does_not_know_is_no_lock", not_trusted),
];

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nTHESECRETOFTHETEST\n-----END PRIVATE KEY-----\n";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";
const MARK: &[u8] = b"~Module signature appended~\n";

fn manifest(lab: &Lab, variant: &str) -> Result<Manifest, String> {
    let dir = lab.path(&format!("out/images/vexfs-{variant}-1.0.0"));
    let text = fs::read(dir.join("manifest.json")).map_err(|e| e.to_string())?;
    let value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let found = mistakes(&value);
    must(found.is_empty(), || found.join("\n"))?;
    Image::open(dir)
        .map(|image| image.manifest)
        .map_err(|e| e.to_string())
}

fn grub(lab: &Lab) -> String {
    fs::read_to_string(lab.path("fakes/grub.cfg")).unwrap_or_default()
}

fn compiled_once() -> Result<(), String> {
    let lab = Lab::new();
    let plain = r#"{"kernel": "source:plain"}"#;
    lab.write("work/vexfs/Kconfig", "config VEXFS\n\ttristate \"VexFS\"\n");
    let built = lab.build_with(plain);
    must(built.ok, || built.said.clone())?;
    must(built.ran().contains(&"linux".into()), || {
        format!("ran {:?}", built.ran())
    })?;
    let told = built.events.iter().any(|event| {
        matches!(event, BuildEvent::StageDetail { stage, text }
            if stage == "linux" && text == "1 of 2 objects from the compiler cache")
    });
    must(told, || "the compiler cache is not spoken of".into())?;
    let kernel = manifest(&lab, "minimal")?.kernel;
    must(kernel.release == "1.0-vexfs-plain", || {
        format!("{kernel:?}")
    })?;
    let how = kernel.compiled.as_ref().map(|how| how.preset.clone());
    must(how.as_deref() == Some("plain"), || format!("{kernel:?}"))?;
    // The configuration: the distribution's, the preset's, the tree's.
    let linux = fs::read_dir(lab.path("cache/linux")).map_err(|e| e.to_string())?;
    let entry = linux
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir());
    let config = entry.ok_or("no kernel in the cache")?.join("tree/.config");
    let config = fs::read_to_string(config).map_err(|e| e.to_string())?;
    for line in [
        "CONFIG_BLOCK=y",
        "# CONFIG_XEN is not set",
        "CONFIG_VEXFS=m",
        "CONFIG_LOCALVERSION=\"-vexfs-plain\"",
    ] {
        must(config.lines().any(|one| one == line), || {
            format!("no {line} in\n{config}")
        })?;
    }
    let again = |changed: &str, text: &str, want: &[&str]| {
        lab.write(changed, text);
        let built = lab.build_with(plain);
        must(built.ok, || built.said.clone())?;
        let mut ran = built.ran();
        ran.sort();
        must(ran == want, || format!("{changed}: ran {ran:?}"))
    };
    again(
        "work/vexfs/super.c",
        "int changed;",
        &["image", "module", "seal"],
    )?;
    again(
        "work/provision/kernel/debug.config",
        "CONFIG_KASAN=y\n",
        &[],
    )?;
    again(
        "work/provision/kernel/machine.config",
        "CONFIG_NR_CPUS=8\n",
        &["base", "disk", "image", "linux", "module", "seal"],
    )
}

fn second_kernel() -> Result<(), String> {
    let lab = Lab::new();
    let built = lab.build_with(r#"{"kernel": "both:debug", "variant": "testing"}"#);
    must(built.ok, || built.said.clone())?;
    must(built.ran().contains(&"second-module".into()), || {
        format!("ran {:?}", built.ran())
    })?;
    let manifest = manifest(&lab, "testing")?;
    must(manifest.kernel.release == "6.1.0-1-cloud-amd64", || {
        format!("{:?}", manifest.kernel)
    })?;
    let second = manifest.second_kernel.ok_or("no second kernel")?;
    must(
        second.release == "1.0-vexfs-debug" && second.slowdown() > 1.0,
        || format!("{second:?}"),
    )?;
    let grub = grub(&lab);
    must(
        grub.contains("/boot/vmlinuz-1.0-vexfs-debug root=UUID="),
        || grub.clone(),
    )?;
    must(!grub.contains('@') && !grub.contains("lockdown"), || {
        grub.clone()
    })
}

fn refused() -> Result<(), String> {
    let lab = Lab::new();
    lab.write("fakes/kernel-lacks", "CONFIG_KASAN=");
    let built = lab.build_with(r#"{"kernel": "source:debug"}"#);
    must(
        !built.ok
            && built
                .said
                .contains("CONFIG_KASAN=y is wanted, the kernel has n"),
        || built.said.clone(),
    )?;
    must(!built.ran().contains(&"base".into()), || {
        format!("ran {:?}", built.ran())
    })?;
    // What the tree needs counts as well, for whichever kernel.
    let lab = Lab::new();
    lab.write(
        "work/vexfs/vexfs.config",
        "CONFIG_BLOCK=y\nCONFIG_FS_IOMAP=y\n",
    );
    let built = lab.build();
    must(
        !built.ok && built.said.contains("CONFIG_FS_IOMAP=y is wanted"),
        || built.said.clone(),
    )
}

fn bad_requests() -> Result<(), String> {
    let lab = Lab::new();
    for (request, said) in [
        (
            r#"{"kernel": "source:fast"}"#,
            "provision/kernel/presets.toml has debug and plain",
        ),
        (
            r#"{"kernel": "source:plain", "variant": "development"}"#,
            "wants linux-headers-@KERNEL@, which only the distribution's kernel has: use both:PRESET",
        ),
        (
            r#"{"module_signing": {"key": "/nonexistent", "certificate": "/nonexistent"}}"#,
            "cannot read /nonexistent",
        ),
    ] {
        let built = lab.build_with(request);
        must(!built.ok && built.said.contains(said), || {
            format!("{request}: {}", built.said)
        })?;
        must(built.ran().is_empty(), || {
            format!("{request}: ran {:?}", built.ran())
        })?;
    }
    Ok(())
}

/// A request for production with `kernel`, and with a key.
fn signed(lab: &Lab, kernel: &str) -> String {
    lab.write("keys/key.pem", KEY);
    lab.write("keys/cert.pem", CERTIFICATE);
    serde_json::json!({
        "variant": "production",
        "kernel": kernel,
        "module_signing": {"key": lab.path("keys/key.pem"), "certificate": lab.path("keys/cert.pem")},
    })
    .to_string()
}

fn locked_down() -> Result<(), String> {
    let lab = Lab::new();
    let request = signed(&lab, "source:plain");
    let built = lab.build_with(&request);
    must(built.ok, || built.said.clone())?;
    let manifest = manifest(&lab, "production")?;
    must(manifest.signing.state == SigningState::Enforced, || {
        format!("{:?}", manifest.signing)
    })?;
    let grub = grub(&lab);
    must(
        grub.contains("module.sig_enforce=1 lockdown=integrity"),
        || grub.clone(),
    )?;
    let modules = fs::read_dir(lab.path("cache/module")).map_err(|e| e.to_string())?;
    let entry = modules
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir());
    let module = entry.ok_or("no module")?.join("module.ko");
    let module = fs::read(module).map_err(|e| e.to_string())?;
    must(module.ends_with(MARK), || "the module is not signed".into())?;
    for place in ["cache", "out", "fakes"] {
        holds_no_key(&lab.path(place))?;
    }
    must(holds_no_key(&lab.path("keys")).is_err(), || {
        "the search does not find the key where it is".into()
    })?;
    // Another certificate is another kernel; the key's own file is nobody's input.
    lab.write("keys/cert.pem", &CERTIFICATE.replace("TUlJ", "TUlK"));
    let built = lab.build_with(&request);
    must(built.ok && built.ran().contains(&"linux".into()), || {
        format!("{} ran {:?}", built.said, built.ran())
    })
}

fn not_trusted() -> Result<(), String> {
    let lab = Lab::new();
    let built = lab.build_with(&signed(&lab, "distribution"));
    must(built.ok, || built.said.clone())?;
    let manifest = manifest(&lab, "production")?;
    must(manifest.signing.state == SigningState::Signed, || {
        format!("{:?}", manifest.signing)
    })?;
    must(manifest.signing.reason.contains("--kernel source"), || {
        manifest.signing.reason.clone()
    })?;
    must(!grub(&lab).contains("lockdown"), || grub(&lab))?;
    holds_no_key(&lab.path("cache"))
}

/// No file below has anything of the key. tar(1) leaves out the holes of sparse disks, which grep would read.
fn holds_no_key(dir: &Path) -> Result<(), String> {
    let search = "tar --sparse --create --file=- \"$1\" | grep --text --quiet THESECRETOFTHETEST";
    let found = std::process::Command::new("sh")
        .args(["-c", search, "sh"])
        .arg(dir)
        .stderr(std::process::Stdio::null())
        .status()
        .map_err(|e| e.to_string())?;
    must(found.code() == Some(1), || {
        format!("the key is below {}", dir.display())
    })
}
