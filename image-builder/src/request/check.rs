//! What of a request can be checked, and settled, without doing anything.

use std::path::PathBuf;

use crate::request::data::{Recipe, Variant};
use crate::request::kernel::Compiled;
use crate::store::parse_size;
use crate::{BuildError, BuildRequest};

/// The request with absolute paths: steps run in other directories.
pub(crate) fn absolute(request: &BuildRequest) -> Result<BuildRequest, BuildError> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(BuildError::io("find", path));
    Ok(BuildRequest {
        workspace: absolute(&request.workspace)?,
        out_dir: absolute(&request.out_dir)?,
        cache_dir: absolute(&request.cache_dir)?,
        ..request.clone()
    })
}

/// Checks what can be checked without doing anything; returns the disk's size in bytes.
pub(crate) fn check(
    request: &BuildRequest,
    recipe: &Recipe,
    variant: &Variant,
) -> Result<u64, BuildError> {
    let bad = |field, value: &str, remedy: String| BuildError::BadRequest {
        field,
        value: value.into(),
        remedy,
    };
    let kernel = &request.kernel_version;
    if !recipe.kernels.contains_key(kernel) {
        let known: Vec<_> = recipe.kernels.keys().map(String::as_str).collect();
        let remedy = format!("the recipe has {}", known.join(" and "));
        return Err(bad("--kernel-version", kernel, remedy));
    }
    let version = &request.vexfs_version;
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let dotted = numbers
        .split('.')
        .filter(|part| part.parse::<u32>().is_ok())
        .count()
        == 3;
    let plain = version
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || ".+-".contains(c));
    if !dotted || !plain {
        let remedy = "a version looks like 1.0.0 or 1.0.0-rc.1".into();
        return Err(bad("--vexfs-version", version, remedy));
    }
    if !["kvm", "tcg"].contains(&request.accelerator.as_str()) {
        let remedy = "QEMU's accelerators here are kvm and tcg".into();
        return Err(bad("--accel", &request.accelerator, remedy));
    }
    let size = request.disk_size.as_ref().unwrap_or(&variant.disk_size);
    disk_bytes(size).ok_or_else(|| {
        bad(
            "--disk-size",
            size,
            "a size looks like 8G, from 1G to 64T".into(),
        )
    })
}

/// `8G` in bytes.
fn disk_bytes(size: &str) -> Option<u64> {
    let bytes = parse_size(size)?;
    ((1 << 30)..=(64 << 40)).contains(&bytes).then_some(bytes)
}

/// The request with as much patience as the kernel needs that Packer boots.
pub(crate) fn slowed(request: &BuildRequest, compiled: Option<&Compiled>) -> BuildRequest {
    let boots = compiled.filter(|_| !request.kernel.has_package());
    BuildRequest {
        ssh_timeout: request
            .ssh_timeout
            .mul_f64(boots.map_or(1.0, |kernel| kernel.preset.slowdown.max(1.0))),
        ..request.clone()
    }
}
