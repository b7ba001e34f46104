//! What to build, and from what.

pub(crate) mod access;
pub(crate) mod check;
pub(crate) mod data;
pub(crate) mod kernel;
pub(crate) mod kernel_config;
pub(crate) mod signing;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::Format;
use serde::{Deserialize, Serialize};

use crate::{DEFAULT_CACHE_CAP, SourceChecks};

pub use data::variants;
pub use kernel::KernelChoice;

/// One image to build. Start from [`BuildRequest::new`] and set what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// The repository's root: `packer/`, `provision/` and the guest programs' sources are below it.
    pub workspace: PathBuf,
    /// Name of a file `packer/variants/<variant>.pkrvars.hcl`.
    pub variant: String,
    /// Version the image is labelled with, e.g. `1.0.0`.
    pub vexfs_version: String,
    /// Kernel series, `6.1` or `6.12`.
    pub kernel_version: String,
    /// Which kernels: the distribution's, one compiled from its source, or both.
    #[serde(default)]
    pub kernel: KernelChoice,
    /// What modules are signed with; `None`: they are not signed.
    #[serde(default)]
    pub module_signing: Option<ModuleSigning>,
    /// The VexFS source: a folder, a tarball, or `URL@REVISION` of a git repository. It is copied,
    /// never written to.
    pub source: PathBuf,
    /// What must be true of it.
    pub source_checks: SourceChecks,
    /// Where `images/` and `logs/` are made.
    pub out_dir: PathBuf,
    /// Where finished stages and downloaded packages are kept.
    pub cache_dir: PathBuf,
    /// What they may take, in bytes; the least recently used go, but none that a build uses.
    pub cache_cap: u64,
    /// Debian mirror to build from (`http://host/debian`; the security suite is looked for beside
    /// it). `None`: whatever the host's own apt uses.
    pub mirror: Option<String>,
    /// Build from the archive's state of this date (`2024-01-31`, `20240131T120000Z`) instead.
    #[serde(default)]
    pub snapshot_date: Option<String>,
    /// Address of an archive of past states, with `{date}` and perhaps `{archive}` (`debian` and
    /// `debian-security`) in it. `None`: Debian's own.
    #[serde(default)]
    pub snapshot_mirror: Option<String>,
    /// Keyring that `mirror` or `snapshot_mirror` is signed with. `None`: Debian's.
    #[serde(default)]
    pub keyring: Option<PathBuf>,
    /// Debian mirror the image itself is set to use. The build mirror never ends up in an image.
    pub image_mirror: String,
    /// Debian security mirror the image itself is set to use.
    pub image_security_mirror: String,
    /// QEMU accelerator for Packer's machine: `kvm` or `tcg`. Probed by the caller.
    pub accelerator: String,
    /// Memory of Packer's machine in MiB; `None`: what the variant says.
    pub memory_mib: Option<u32>,
    /// Virtual size of the disk (`8G`); `None`: what the variant says.
    pub disk_size: Option<String>,
    /// A file whose first line is root's password, or its crypt(5) hash. `None`: root has none.
    pub root_password_file: Option<PathBuf>,
    /// Public SSH keys that let root in, as in sshd(8)'s authorized_keys. `None`: nobody's.
    pub authorized_keys: Option<PathBuf>,
    /// Forms of the image besides qcow2.
    #[serde(default)]
    pub formats: BTreeSet<Format>,
    /// Run the test stage inside the guest during the build.
    pub enable_testing: bool,
    /// Whether the caller validates the image after the build; recorded in the manifest.
    pub enable_validation: bool,
    /// How long Packer waits for the guest's SSH.
    pub ssh_timeout: Duration,
    /// Pass every line the stages print to [`crate::Progress`]; otherwise only telling ones.
    pub verbose: bool,
}

impl BuildRequest {
    /// The minimal image of the in-tree VexFS, for the workspace at `workspace`.
    ///
    /// `out/` is below the workspace and the cache is `$VEXFS_CACHE`, or `out/cache`.
    pub fn new(workspace: impl Into<PathBuf>) -> BuildRequest {
        let workspace = workspace.into();
        let out_dir = workspace.join("out");
        BuildRequest {
            variant: "minimal".into(),
            vexfs_version: "1.0.0".into(),
            kernel_version: "6.1".into(),
            kernel: KernelChoice::default(),
            module_signing: None,
            source: workspace.join("vexfs"),
            source_checks: SourceChecks::default(),
            cache_dir: default_cache(&out_dir),
            cache_cap: DEFAULT_CACHE_CAP,
            out_dir,
            mirror: None,
            snapshot_date: None,
            snapshot_mirror: None,
            keyring: None,
            image_mirror: "http://deb.debian.org/debian".into(),
            image_security_mirror: "http://deb.debian.org/debian-security".into(),
            accelerator: "tcg".into(),
            memory_mib: None,
            disk_size: None,
            root_password_file: None,
            authorized_keys: None,
            formats: BTreeSet::new(),
            enable_testing: true,
            enable_validation: true,
            // By the wall, and Packer keeps it: far above what a busy host makes of the 20 s it takes.
            ssh_timeout: Duration::from_secs(900),
            verbose: false,
            workspace,
        }
    }
}

/// What modules are signed with. The key is read while modules are signed, through an open file, and is
/// copied nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleSigning {
    /// Private key, PEM, not encrypted.
    pub key: PathBuf,
    /// Its X.509 certificate, PEM. A kernel compiled from source trusts it.
    pub certificate: PathBuf,
}

/// The tools disk: fio, stress-ng and their libraries for checks, attached read-only to any image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolsRequest {
    /// The repository's root.
    pub workspace: PathBuf,
    /// Where `logs/` is made.
    pub out_dir: PathBuf,
    /// Where the finished disk and downloaded packages are kept.
    pub cache_dir: PathBuf,
    /// As [`BuildRequest::mirror`].
    pub mirror: Option<String>,
    /// Further programs to put into the disk's `/bin`: host files, which must be static or need
    /// only libraries the disk has.
    pub programs: Vec<PathBuf>,
    /// With what only checks of the full tier use: pjdfstest and fsx from the Rust crate registry, and
    /// `vexfs-proof`. Compiling them takes two minutes, once.
    pub full: bool,
    /// As [`BuildRequest::verbose`].
    pub verbose: bool,
}

impl ToolsRequest {
    /// The disk for the workspace at `workspace`, with the same defaults as [`BuildRequest::new`].
    pub fn new(workspace: impl Into<PathBuf>) -> ToolsRequest {
        let workspace = workspace.into();
        let out_dir = workspace.join("out");
        ToolsRequest {
            cache_dir: default_cache(&out_dir),
            out_dir,
            mirror: None,
            programs: Vec::new(),
            full: false,
            verbose: false,
            workspace,
        }
    }
}

/// The fault gallery's modules and programs, for tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultsRequest {
    /// The repository's root; the sources are in `faults/src`.
    pub workspace: PathBuf,
    /// Where `logs/` is made.
    pub out_dir: PathBuf,
    /// Where the builder root and what it made are kept.
    pub cache_dir: PathBuf,
    /// As [`BuildRequest::mirror`].
    pub mirror: Option<String>,
}

impl FaultsRequest {
    /// The gallery of the workspace at `workspace`, with the same defaults as [`BuildRequest::new`].
    pub fn new(workspace: impl Into<PathBuf>) -> FaultsRequest {
        let workspace = workspace.into();
        let out_dir = workspace.join("out");
        FaultsRequest {
            cache_dir: default_cache(&out_dir),
            out_dir,
            mirror: None,
            workspace,
        }
    }
}

fn default_cache(out_dir: &Path) -> PathBuf {
    std::env::var_os("VEXFS_CACHE").map_or_else(|| out_dir.join("cache"), PathBuf::from)
}
