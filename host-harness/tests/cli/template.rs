//! The Packer template by itself: valid from any working directory, with the distribution's Packer,
//! and strict about every variable.

use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::Failed;

use super::{Row, workspace};

pub const TESTS: &[Row] = &[
    ("valid_from_any_directory", valid_from_any_directory),
    ("every_variable_is_validated", every_variable_is_validated),
];

/// `packer validate` in `dir` with further variables.
fn validate(dir: &Path, variables: &[&str]) -> Result<Output, Failed> {
    let packer = workspace().join("packer");
    let mut command = Command::new("packer");
    command
        .current_dir(dir)
        .arg("validate")
        .env("CHECKPOINT_DISABLE", "1");
    command.arg(format!(
        "-var-file={}",
        packer.join("variants/minimal.pkrvars.hcl").display()
    ));
    for variable in variables {
        command.arg("-var").arg(variable);
    }
    let output = command.arg(packer.join("vexfs.pkr.hcl")).output()?;
    println!("{}", said(&output));
    Ok(output)
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn valid_from_any_directory() -> Result<(), Failed> {
    let elsewhere = tempfile::tempdir()?;
    for dir in [
        elsewhere.path(),
        Path::new("/"),
        workspace(),
        &workspace().join("provision"),
    ] {
        let output = validate(dir, &[])?;
        if !output.status.success() {
            return Err(format!("not valid from {}: {}", dir.display(), said(&output)).into());
        }
    }
    Ok(())
}

fn every_variable_is_validated() -> Result<(), Failed> {
    for wrong in [
        "image_variant=../etc",
        "kernel_version=5.4",
        "vexfs_version=one",
        "disk_size=8 gigabytes",
        "memory=1",
        "enable_testing=maybe",
        "enable_validation=maybe",
    ] {
        let output = validate(workspace(), &[wrong])?;
        let name = wrong.split('=').next().unwrap_or_default();
        if output.status.success() || !said(&output).contains(name) {
            return Err(format!("`{wrong}` is not refused by name: {}", said(&output)).into());
        }
    }
    Ok(())
}
