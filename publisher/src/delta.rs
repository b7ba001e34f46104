//! From the image that was latest to the new one: a zstd patch, tried before it is offered.

use std::fs::{self, File};
use std::path::Path;

use keeper::Kept;
use serde::{Deserialize, Serialize};

use crate::index::sha256;
use crate::{FileEntry, ImageEntry, PublishError, run};

/// The window must span the old disk; zstd has none beyond 2 GiB.
const LARGEST: u64 = 1 << 31;
/// Images that share most of their content differ little more under a slower search.
const LEVEL: &str = "-6";

/// How to come from one image to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The patch: `zstd -d --long=31 --patch-from=OLD.qcow2 PATCH -o NEW.qcow2`.
    pub file: FileEntry,
    /// The release it starts from.
    pub from_release: String,
    /// SHA-256 of that release's disk, which is what `OLD.qcow2` must be.
    pub from_sha256: String,
}

/// Makes the patch from `old`, the disk of release `from`, to the image's disk at `new`, and shows
/// that it leads there. `work` is room for both.
///
/// # Errors
/// When there is none, the sentence why, in `Ok(Err(_))`; else what broke.
pub(crate) async fn make(
    (old, from): (&Path, &ImageEntry),
    (new, image): (&Path, &ImageEntry),
    work: &Path,
    log: &Path,
) -> Result<Result<Delta, String>, PublishError> {
    let release = from.release();
    if from.disk.bytes.max(image.disk.bytes) >= LARGEST {
        return Ok(Err(
            "the disks are larger than zstd's window of 2 GiB".into()
        ));
    }
    let name = format!("{}.qcow2.from-{release}.zst-patch", image.folder());
    let patch = work.join("patch");
    let reference = || {
        let mut word = std::ffi::OsString::from("--patch-from=");
        word.push(old);
        word
    };
    let zstd = || Kept::new("zstd").args(["-q", "-f", "--long=31"]);
    let make = zstd()
        .arg(LEVEL)
        .arg(reference())
        .arg(new)
        .arg("-o")
        .arg(&patch);
    run::output(make, &format!("make the delta from {release}"), log).await?;
    let back = work.join("rebuilt");
    let rebuild = zstd()
        .arg("-d")
        .arg(reference())
        .arg(&patch)
        .arg("-o")
        .arg(&back);
    run::output(rebuild, &format!("apply the delta from {release}"), log).await?;
    let is = digest(&back)?;
    fs::remove_file(&back).map_err(PublishError::io("remove", &back))?;
    if is != image.disk.sha256 {
        return Err(PublishError::Digest {
            name: format!("what the delta from {release} makes"),
            place: work.display().to_string(),
            wanted: image.disk.sha256.clone(),
            is,
        });
    }
    let file = FileEntry::of(&patch, &name).map_err(PublishError::io("read", &patch))?;
    if file.bytes >= image.compressed.bytes {
        return Ok(Err(format!(
            "it would be of {} bytes, and the whole download is of {}",
            file.bytes, image.compressed.bytes
        )));
    }
    Ok(Ok(Delta {
        file,
        from_release: release,
        from_sha256: from.disk.sha256.clone(),
    }))
}

/// Makes the disk of an earlier release at `to` out of its download.
pub(crate) async fn unpack(
    download: &Path,
    image: &ImageEntry,
    to: &Path,
    log: &Path,
) -> Result<(), PublishError> {
    let command = Kept::new("zstd")
        .args(["-q", "-f", "-d", "--long=27"])
        .arg(download)
        .arg("-o")
        .arg(to);
    let doing = format!("unpack {}", image.compressed.name);
    run::output(command, &doing, log).await?;
    let is = digest(to)?;
    match is == image.disk.sha256 {
        true => Ok(()),
        false => Err(PublishError::Unreadable {
            what: image.compressed.name.clone(),
            place: image.release(),
            said: format!("its disk has SHA-256 {is}, not {}", image.disk.sha256),
        }),
    }
}

fn digest(path: &Path) -> Result<String, PublishError> {
    let mut file = File::open(path).map_err(PublishError::io("open", path))?;
    sha256(&mut file, u64::MAX).map_err(PublishError::io("read", path))
}
