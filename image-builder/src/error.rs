//! Why there is no image: sentences that say what, where, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use image::ImageError;

/// A program of the host that a build needs and does not find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTool {
    /// The program.
    pub program: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// Why a build ended without an image. Nothing half-written is left, and an earlier good image is
/// untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No such variant file.
    #[error("no variant `{variant}`: packer/variants has {}", list(known))]
    UnknownVariant {
        /// What was asked for.
        variant: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The variant file (or another data file) has a mistake.
    #[error("{}:{said}", path.display())]
    DataFile {
        /// The file.
        path: PathBuf,
        /// Line and column, and what is wrong there: `3:7: expected a value`.
        said: String,
    },
    /// A value of the request cannot be used.
    #[error("{field} `{value}` cannot be used: {remedy}")]
    BadRequest {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would do.
        remedy: String,
    },
    /// All programs that are missing, at once.
    #[error(
        "missing on this host: {}. Install with: apt-get install -y {}",
        programs(missing),
        packages(missing)
    )]
    MissingTools {
        /// The programs and their packages.
        missing: Vec<MissingTool>,
    },
    /// The VexFS tree is not there, or is not one.
    #[error("no VexFS source tree at {}: {said}", path.display())]
    MissingSource {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it and what to give instead.
        said: String,
    },
    /// The source is not what was said about it.
    #[error("the source {source_tree} is not used: {said}")]
    SourceRefused {
        /// What was named.
        source_tree: String,
        /// What does not hold.
        said: String,
    },
    /// A repository does not answer.
    #[error("cannot fetch from {url}: {said}. Check the address and the network")]
    SourceFetch {
        /// The repository's address.
        url: String,
        /// git's own words.
        said: String,
    },
    /// The VexFS tree does not compile.
    #[error("`{command}` failed in {}:{}\nwhole log: {}", source_tree.display(), one_or_each(errors), log.display())]
    SourceBuild {
        /// What was run.
        command: String,
        /// The user's tree (what was compiled is a copy of it).
        source_tree: PathBuf,
        /// The compiler's error lines, in its order; at least one.
        errors: Vec<String>,
        /// All the output.
        log: PathBuf,
    },
    /// The kernel lacks what the tree says its module needs.
    #[error(
        "kernel {release} does not fit {}: {missing}. Choose another --kernel-version, or change \
         what the tree asks for", needs.display()
    )]
    KernelConfig {
        /// The kernel.
        release: String,
        /// The tree's file.
        needs: PathBuf,
        /// Options wanted, and what the kernel has instead.
        missing: String,
    },
    /// The host has no usable Debian mirror configured.
    #[error(
        "this host's apt has no bookworm suite configured ({looked_at}): \
         give one with --mirror http://deb.debian.org/debian"
    )]
    NoMirror {
        /// Which files were read.
        looked_at: String,
    },
    /// A mirror does not answer, or not with what is needed.
    #[error(
        "the mirror {url} does not serve what the build needs: {said}. \
         Check the network, or name another with --mirror URL"
    )]
    Mirror {
        /// The address.
        url: String,
        /// apt's own words.
        said: String,
    },
    /// A package the variant needs is not in the mirror's suites.
    #[error("the mirror's suites have no package set for this build: {said}")]
    Packages {
        /// apt's own words.
        said: String,
    },
    /// The disk is full, or will be.
    #[error(
        "not enough space in {}: {stage} needs about {needed_mib} MiB, {free_mib} MiB are free. \
         Free some, or point --output-dir and VEXFS_CACHE elsewhere", path.display()
    )]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Which stage.
        stage: String,
        /// MiB wanted.
        needed_mib: u64,
        /// MiB there.
        free_mib: u64,
    },
    /// Packer's machine would not fit into what memory there is.
    #[error(
        "Packer's machine needs {needed_mib} MiB of memory, of which {place} has {free_mib} MiB left: end what \
         else runs there, or give the machine less with --memory"
    )]
    NoMemory {
        /// `this host`, or what limits it.
        place: String,
        /// MiB wanted.
        needed_mib: u64,
        /// MiB there.
        free_mib: u64,
    },
    /// The disk ran full on the way, although there was room to begin with.
    #[error(
        "the disk with {} ran full while {stage} was at work; what it had written is removed. \
         Free some space, or point --output-dir and VEXFS_CACHE elsewhere", path.display()
    )]
    DiskFull {
        /// The directory.
        path: PathBuf,
        /// Which stage.
        stage: String,
    },
    /// Without root, and without what stands for it.
    #[error(
        "an ordinary user builds in a user namespace, and this host gives none: {said}. \
         Allow them (sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 \
         where there is one), have lines for the user in /etc/subuid and /etc/subgid (package uidmap), \
         or build as root"
    )]
    NoNamespaces {
        /// unshare(1)'s own words.
        said: String,
    },
    /// The archive has nothing of that date.
    #[error(
        "{url} has no state of {date}: {said}. Give another --snapshot-date, or an archive \
         that has it with --snapshot-mirror URL, in which {{date}} stands for the date"
    )]
    NoSnapshot {
        /// The archive's address.
        url: String,
        /// The date in it.
        date: String,
        /// apt's own words.
        said: String,
    },
    /// Somebody still works with the cache.
    #[error("{} is in use: {what} is locked. Let the build or check that holds it end, and try again", cache.display())]
    CacheBusy {
        /// The cache.
        cache: PathBuf,
        /// What is held.
        what: String,
    },
    /// The cache cannot be emptied.
    #[error("{} is not empty: {}. Remove what is left by hand", cache.display(), left.join("; "))]
    CacheLeft {
        /// The cache.
        cache: PathBuf,
        /// What stayed, and why.
        left: Vec<String>,
    },
    /// Packer's machine came up without SSH: its console says why.
    #[error("the base did not come up in {seconds} s; its console ends with:\n{console}\nwhole log: {}", log.display())]
    NoBoot {
        /// How long was waited.
        seconds: u64,
        /// The last lines of the serial console.
        console: String,
        /// The console's log.
        log: PathBuf,
    },
    /// Packer's machine came up, and this host did not get through to its SSH in time.
    #[error(
        "this host did not get through to the SSH of a base that had come up, {attempts} times within \
         {seconds} s: build again when less runs here. Its console ends with:\n{console}\nwhole log: {}",
        log.display()
    )]
    NoSsh {
        /// How long was waited, each time.
        seconds: u64,
        /// How often it was tried.
        attempts: u32,
        /// The last lines of the serial console.
        console: String,
        /// The console's log.
        log: PathBuf,
    },
    /// A provisioning script failed inside the guest.
    #[error("{script} failed in the guest:\n{tail}\nwhole log: {}", log.display())]
    Provision {
        /// The script below `provision/`.
        script: String,
        /// Its last lines.
        tail: String,
        /// Packer's log.
        log: PathBuf,
    },
    /// The disk that was made again from the provisioned tree does not have that tree.
    #[error("the disk made from the provisioned tree differs from it in {differences} things:\n{first}\nwhole log: {}", log.display())]
    Replay {
        /// How many.
        differences: usize,
        /// The first of them, a line each.
        first: String,
        /// What debugfs said.
        log: PathBuf,
    },
    /// Any other step that did not end well.
    #[error("{stage}: {source}")]
    Step {
        /// The stage.
        stage: String,
        /// What happened.
        source: keeper::Failure,
    },
    /// An image that does not hold what its manifest says.
    #[error(transparent)]
    BadImage(ImageError),
    /// Reading or writing a file of ours failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl BuildError {
    /// For `map_err`: an [`BuildError::Io`] with its verb and path.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => BuildError::DiskFull {
                path,
                stage: "the build".into(),
            },
            _ => BuildError::Io {
                doing,
                path,
                source,
            },
        }
    }
}

impl From<ImageError> for BuildError {
    fn from(error: ImageError) -> BuildError {
        match error {
            ImageError::DataFile { path, said } => BuildError::DataFile { path, said },
            ImageError::Io {
                doing,
                path,
                source,
            } => BuildError::io(doing, path)(source),
            error => BuildError::BadImage(error),
        }
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names.join(", "),
    }
}

/// One beside what is said of it, several below.
fn one_or_each(lines: &[String]) -> String {
    match lines {
        [line] => format!(" {line}"),
        lines => lines.iter().map(|line| format!("\n  {line}")).collect(),
    }
}

fn programs(missing: &[MissingTool]) -> impl fmt::Display {
    let names: Vec<_> = missing.iter().map(|tool| tool.program).collect();
    names.join(", ")
}

fn packages(missing: &[MissingTool]) -> impl fmt::Display {
    let mut names: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}
