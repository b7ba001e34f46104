//! The Packer template, judged by Packer itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::lab::{Test, must};

pub const TRIALS: &[Test] = &[
    (
        "the_template_is_valid_from_any_directory_with_every_variant",
        valid,
    ),
    ("the_template_refuses_values_that_cannot_be", refuses),
];

/// Values of variables that must not pass, one each.
const BAD: &[&str] = &[
    "image_variant=Not/A/Name",
    "image_variant=",
    "kernel_version=5.10",
    "vexfs_version=one",
    "disk_size=8",
    "memory=100",
    "enable_testing=maybe",
    "enable_validation=maybe",
    "accelerator=xen",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn validate(directory: &Path, arguments: &[String]) -> Result<Output, String> {
    let output = Command::new("packer")
        .arg("validate")
        .args(arguments)
        .arg(repository().join("packer/vexfs.pkr.hcl"))
        .env("CHECKPOINT_DISABLE", "1")
        .current_dir(directory)
        .output();
    output.map_err(|error| format!("packer (ci/setup installs it): {error}"))
}

fn valid() -> Result<(), String> {
    let variants = image_builder::variants(&repository()).map_err(|e| e.to_string())?;
    must(!variants.is_empty(), || "there are no variants".into())?;
    let files = variants.iter().map(|variant| {
        let file = repository().join(format!("packer/variants/{variant}.pkrvars.hcl"));
        vec![format!("-var-file={}", file.display())]
    });
    for arguments in files.chain([vec![]]) {
        for directory in [Path::new("/"), &repository(), &repository().join("packer")] {
            let output = validate(directory, &arguments)?;
            must(output.status.success(), || {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                format!("{arguments:?} in {}: {said}", directory.display())
            })?;
        }
    }
    Ok(())
}

fn refuses() -> Result<(), String> {
    for bad in BAD {
        let output = validate(Path::new("/"), &["-var".into(), (*bad).into()])?;
        must(!output.status.success(), || format!("{bad} was accepted"))?;
    }
    Ok(())
}
