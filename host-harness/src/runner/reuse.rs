//! What the verdict on an image rests on, so that one of an unchanged image can stand for a run that is not
//! done again; what is stored of it is [`results::stored`]'s.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use results::stored::Basis;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checks;
use crate::checks::counts::Scale;
use crate::lab::Setup;

/// Remembers the digest of this program in the cache folder.
const HARNESS: &str = "harness.json";

/// What a verdict with this setup will rest on. `harness` is the digest of the program that runs
/// the checks.
pub fn basis(setup: &Setup, harness: &str) -> Basis {
    let host = &setup.host;
    let facts = [
        ("image", setup.image.manifest.disk.sha256.clone()),
        ("harness", harness.to_owned()),
        ("check set", check_set()),
        ("tools disk", setup.tools.display().to_string()),
        ("accelerator", host.accel.chosen.to_string()),
        ("vsock backend", host.vsock.chosen.to_string()),
        ("QEMU", host.qemu.version.to_string()),
        (
            "boot deadline",
            format!("{} s", setup.boot_deadline.as_secs()),
        ),
        (
            "agent deadline",
            format!("{} s", setup.agent_deadline.as_secs()),
        ),
        ("second kernel", setup.second_kernel.to_string()),
        ("counts", format!("{:?}", Scale::of_environment())),
    ];
    Basis::new(facts.map(|(name, value)| (name.to_owned(), value)))
}

/// Digest of the rows of all checks.
fn check_set() -> String {
    let mut hasher = Sha256::new();
    for check in checks::REGISTRY {
        let row = format!(
            "{}\n{}\n{} {:?} {:?}\n",
            check.name, check.about, check.tier, check.start, check.deadline
        );
        hasher.update(row);
    }
    hex::encode(hasher.finalize())
}

/// The digest of this program: another harness may judge otherwise.
///
/// Hashing tens of megabytes would cost more than a run with nothing to do, so the digest is
/// remembered in `cache` with the file's identity as stat(2) tells it.
///
/// # Errors
/// When the program's file cannot be read.
pub fn harness_digest(cache: &Path) -> io::Result<String> {
    #[derive(PartialEq, Serialize, Deserialize)]
    struct Known {
        identity: String,
        sha256: String,
    }
    let program = std::env::current_exe()?;
    let meta = fs::metadata(&program)?;
    let identity = format!(
        "{} {} {} {}.{}",
        program.display(),
        meta.ino(),
        meta.len(),
        meta.ctime(),
        meta.ctime_nsec()
    );
    let file = cache.join(HARNESS);
    let known: Option<Known> = fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(known) = known.filter(|known| known.identity == identity) {
        return Ok(known.sha256);
    }
    let mut hasher = Sha256::new();
    let mut source = fs::File::open(&program)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut source, &mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let known = Known {
        identity,
        sha256: hex::encode(hasher.finalize()),
    };
    // Without it the next run takes a moment longer.
    let _slow_next_time = serde_json::to_vec(&known).map(|text| fs::write(&file, text));
    Ok(known.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_hashed_once() {
        let cache = tempfile::tempdir().expect("a directory");
        let first = harness_digest(cache.path()).expect("a digest");
        assert_eq!(first.len(), 64);
        let file = cache.path().join(HARNESS);
        let marked = fs::read_to_string(&file)
            .expect("remembered")
            .replace(&first, "remembered");
        fs::write(&file, marked).expect("the file");
        assert_eq!(
            harness_digest(cache.path()).expect("a digest"),
            "remembered"
        );
    }
}
