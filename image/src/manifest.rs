//! `manifest.json`: what is in an image and what it was made from. The schema is
//! `image/schema/manifest.schema.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ImageError;

/// The only value of [`Manifest::schema`] this version reads and writes.
pub const SCHEMA: u32 = 1;
/// What a machine calls itself (SMBIOS, SKU of the system) to have an image's second kernel booted.
pub const SECOND_KERNEL_SKU: &str = "vexfs-second-kernel";

/// What is in an image and what it was made from. Holds no wall-clock time: two builds from the
/// same inputs differ only in [`StageRecord::seconds`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub schema: u32,
    /// Content key of the whole build: the digest of every input.
    pub key: String,
    /// The variant's name.
    pub variant: String,
    /// The version the image is labelled with.
    pub vexfs_version: String,
    /// Seconds since the epoch that stand for "now" in the image (the source's commit time, or a
    /// fixed date), so that no build differs by when it ran.
    pub source_date_epoch: u64,
    /// The image itself.
    pub disk: FileRecord,
    /// Its zstd-compressed form.
    pub compressed: FileRecord,
    /// The forms made on request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub formats: BTreeMap<crate::Format, FileRecord>,
    /// The kernel that boots.
    pub kernel: KernelRecord,
    /// A second kernel in it, which a machine has to ask for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub second_kernel: Option<KernelRecord>,
    /// Whether modules are signed, and whether the kernel insists.
    #[serde(default)]
    pub signing: SigningRecord,
    /// The VexFS module in it.
    pub module: ModuleRecord,
    /// The tree the module was built from.
    pub source: SourceRecord,
    /// Our own programs in it, by name.
    pub programs: BTreeMap<String, ProgramRecord>,
    /// Versions of the host's tools that made it.
    pub tools: BTreeMap<String, String>,
    /// The variables Packer was given, less paths of the building host.
    pub variables: BTreeMap<String, String>,
    /// Every Debian package in it.
    pub packages: Vec<Package>,
    /// How it was made.
    pub stages: Vec<StageRecord>,
}

/// A file beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// File name, without directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
    /// For a disk: the size the guest sees, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub virtual_bytes: Option<u64>,
}

impl FileRecord {
    /// Size and SHA-256 of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path) -> io::Result<FileRecord> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            bytes += n as u64;
        }
        Ok(FileRecord {
            name: path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            bytes,
            sha256: hex::encode(hasher.finalize()),
            virtual_bytes: None,
        })
    }
}

/// The kernel of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// The series asked for, `6.1`.
    pub series: String,
    /// What `uname -r` says.
    pub release: String,
    /// The Debian package.
    pub package: String,
    /// The package's version.
    pub version: String,
    /// For one compiled from source: how.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compiled: Option<CompiledRecord>,
}

impl KernelRecord {
    /// How much slower everything is on it than on the distribution's kernel; deadlines are meant for
    /// the latter.
    pub fn slowdown(&self) -> f64 {
        self.compiled.as_ref().map_or(1.0, |how| how.slowdown)
    }
}

impl Manifest {
    /// Whether a package is a kernel that was compiled for this image: no archive has it.
    pub fn is_compiled_here(&self, package: &str) -> bool {
        let kernels = std::iter::once(&self.kernel).chain(&self.second_kernel);
        kernels
            .filter(|kernel| kernel.compiled.is_some())
            .any(|kernel| kernel.package == package)
    }
}

/// How a kernel was compiled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompiledRecord {
    /// The preset's name.
    pub preset: String,
    /// How much slower everything is on it.
    pub slowdown: f64,
    /// SHA-256 of its configuration, in hex.
    pub config_sha256: String,
}

/// What is known about the signature of modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningRecord {
    /// How far it goes.
    pub state: SigningState,
    /// Why it is so, as a sentence.
    pub reason: String,
    /// SHA-256 of the certificate's file, in hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate_sha256: Option<String>,
}

/// How far the signature of modules goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigningState {
    /// Modules are not signed.
    Off,
    /// They are signed; the kernel does not know the key.
    Signed,
    /// They are signed by a key the kernel trusts; it takes others too.
    Trusted,
    /// The kernel refuses every other module, and is locked down.
    Enforced,
}

impl std::fmt::Display for SigningState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            SigningState::Off => "off",
            SigningState::Signed => "signed",
            SigningState::Trusted => "trusted",
            SigningState::Enforced => "enforced",
        })
    }
}

impl Default for SigningRecord {
    fn default() -> SigningRecord {
        SigningRecord {
            state: SigningState::Off,
            reason: "the build was given no key".into(),
            certificate_sha256: None,
        }
    }
}

/// The module of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRecord {
    /// File name, `vexfs.ko`.
    pub name: String,
    /// Its `MODULE_VERSION`, if it has one.
    pub version: Option<String>,
    /// SHA-256 in hex.
    pub sha256: String,
    /// The same module with its debug information, beside the image and not in it: for reading an
    /// oops.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub debug: Option<FileRecord>,
}

/// The VexFS tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// What the tree says about itself in `vexfs-source.toml`; checks go by it.
    #[serde(default)]
    pub config: crate::SourceConfig,
    /// Digest over every path, mode and content of the tree.
    pub sha256: String,
    /// The git commit it is at, when it is a clean checkout.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
    /// Where it came from, when that was not a folder of the building host.
    #[serde(skip_serializing_if = "SourceOrigin::is_folder", default)]
    pub origin: SourceOrigin,
}

/// Where a source tree came from. All empty: a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceOrigin {
    /// A tarball's file name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tarball: Option<String>,
    /// Its SHA-256 in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tarball_sha256: Option<String>,
    /// A git repository's address, without user name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<String>,
    /// The tag or commit that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The commit it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What `git verify-tag` said, where a signature was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl SourceOrigin {
    fn is_folder(&self) -> bool {
        *self == SourceOrigin::default()
    }
}

/// One of our programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRecord {
    /// Its version.
    pub version: String,
    /// SHA-256 in hex.
    pub sha256: String,
}

impl ProgramRecord {
    /// The record of a program's file.
    ///
    /// # Errors
    /// [`ImageError::Io`] when it cannot be read.
    pub fn of(path: &Path, version: &str) -> Result<ProgramRecord, ImageError> {
        let file = FileRecord::of(path).map_err(ImageError::io("read", path))?;
        Ok(ProgramRecord {
            version: version.to_owned(),
            sha256: file.sha256,
        })
    }
}

/// A Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture (`amd64`, `all`).
    pub architecture: String,
}

/// One stage of the build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Name.
    pub name: String,
    /// Content key.
    pub key: String,
    /// Wall time it took when it last ran.
    pub seconds: f64,
}
