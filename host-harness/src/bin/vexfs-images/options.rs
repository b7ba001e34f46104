//! Options that several subcommands share, and what errors mean for the exit code.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use clock::{Tries, Whose};
use host_harness::checks::filter::{self, Filter};
use host_harness::dossier::{DossierError, Keep};
use host_harness::lab::{BOOT_DEADLINE, Failure, Guest};
use host_harness::tryout::TryoutError;
use image::{Image, ImageError};
use image_builder::{BuildError, Fault};
use machine::snapshot::SnapshotError;
use machine::{
    Firmware, Host, HostRequest, Machine, MachineError, MachineSpec, VsockBackend, accel,
};
use results::Layout;

/// The most a single request of an interactive command may take.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(60);

/// Where to work.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Folder for images, logs and reports [default: out/ in the checkout]; caches are in $VEXFS_CACHE,
    /// else in out/cache of the checkout, wherever this is
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
}

impl Place {
    /// The folders.
    pub fn layout(&self) -> anyhow::Result<Layout> {
        Layout::find(self.output_dir.as_deref()).map_err(anyhow::Error::msg)
    }
}

/// How machines run on this host.
#[derive(Debug, Clone, Args)]
pub struct Machines {
    /// What executes the guest: auto (KVM when a probe shows that it works), kvm or tcg
    #[arg(long, value_name = "auto|kvm|tcg", default_value = "auto")]
    pub accel: accel::Request,
    /// What carries vsock: kernel or user [default: kernel when /dev/vhost-vsock works]
    #[arg(long, value_name = "kernel|user", value_parser = backend)]
    pub vsock: Option<VsockBackend>,
}

impl Machines {
    /// Probes the host.
    pub async fn host(&self, layout: &Layout) -> anyhow::Result<Host> {
        Ok(Host::probe(
            &layout.cache,
            HostRequest {
                accel: self.accel,
                vsock: self.vsock,
            },
        )
        .await?)
    }
}

/// Which image; for commands that have a use for the minimal one unasked.
#[derive(Debug, Clone, Args)]
pub struct OneImage {
    /// The image: a variant, a folder, or a disk
    #[arg(default_value = "minimal", value_name = "IMAGE")]
    pub image: PathBuf,
}

impl OneImage {
    /// Opens it.
    pub fn open(&self, layout: &Layout) -> anyhow::Result<Image> {
        image(layout, &self.image)
    }
}

/// The image in whose guests modules are tried.
#[derive(Debug, Clone, Args)]
pub struct Testbed {
    /// The image in which a module takes the place of its own: a variant, a folder, or a disk
    #[arg(long, value_name = "IMAGE", default_value = "minimal")]
    pub image: PathBuf,
}

/// The tree a module is made of, again and again.
#[derive(Debug, Clone, Args)]
pub struct Tree {
    /// The tree of the module: a folder [default: the tree in the checkout]
    #[arg(long, value_name = "DIR")]
    vexfs_source: Option<PathBuf>,
}

impl Tree {
    /// The folder that is meant.
    pub fn folder(&self, layout: &Layout) -> PathBuf {
        let named = self.vexfs_source.clone();
        named.unwrap_or_else(|| layout.workspace.join("vexfs"))
    }
}

/// Which checks.
#[derive(Debug, Clone, Default, Args)]
pub struct Checks {
    /// Only these checks: a word of their names, or an expression as nextest has it, like
    /// `test(/mount/) + test(=service)`; given several times, what any of them takes [default: all of the tier;
    /// of `try` those of the quick tier that use the module; of `bisect`, which asks one, `smoke`]
    #[arg(long, value_name = "FILTER")]
    check: Vec<Filter>,
}

impl Checks {
    /// What was given.
    pub fn filters(&self) -> &[Filter] {
        &self.check
    }

    /// Whether the check of this name is meant.
    pub fn take(&self, name: &str) -> bool {
        filter::takes(&self.check, name)
    }
}

impl std::fmt::Display for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.check.iter().map(Filter::to_string).collect();
        f.write_str(&all.join("`, `"))
    }
}

/// Which checks leave something to look into.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Dossiers {
    /// Which checks leave a dossier in reports/dossiers [default: failed, or $VEXFS_KEEP]
    #[arg(long, value_enum, value_name = "passed|failed|none")]
    pub keep: Option<Keep>,
}

/// How many checks run at once.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Jobs {
    /// Checks that run at the same time [default: the number of host processors]
    #[arg(long, value_name = "N")]
    pub parallel: Option<usize>,
}

/// Which kernel of an image.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct WhichKernel {
    /// The image's second kernel (build --kernel both)
    #[arg(long)]
    pub second_kernel: bool,
}

/// What a machine begins with.
#[derive(Debug, Clone, Copy, Args)]
pub struct Begins {
    /// What runs first in the guest
    #[arg(long, value_name = "bios|uefi", default_value = "bios", value_parser = firmware)]
    pub firmware: Firmware,
}

/// How long a program of the user's may take.
#[derive(Debug, Clone, Copy, Args)]
pub struct Limit {
    /// Seconds the program may take
    #[arg(long, value_name = "S", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Limit {
    /// The same.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// What a failed check has left.
#[derive(Debug, Clone, Args)]
pub struct Left {
    /// The dossier: a folder in reports/dossiers
    pub dossier: PathBuf,
}

/// How much is told.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Telling {
    /// Show more: what stages and commands print, what passes too
    #[arg(long, short)]
    pub verbose: bool,
}

fn backend(word: &str) -> Result<VsockBackend, String> {
    match word {
        "kernel" => Ok(VsockBackend::Kernel),
        "user" => Ok(VsockBackend::User),
        other => Err(format!(
            "unknown vsock backend `{other}`: it is kernel or user"
        )),
    }
}

/// A firmware by its name.
fn firmware(word: &str) -> Result<Firmware, String> {
    match word {
        "bios" => Ok(Firmware::Bios),
        "uefi" => Ok(Firmware::Uefi),
        other => Err(format!("unknown firmware `{other}`: it is bios or uefi")),
    }
}

/// The image a user means: a variant's name, an image's folder, or the disk in it.
pub fn image(layout: &Layout, word: &Path) -> anyhow::Result<Image> {
    image_in(&layout.images(), word)
}

/// The same, with the images in that folder.
pub fn image_in(images: &Path, word: &Path) -> anyhow::Result<Image> {
    if word.is_dir() {
        return Image::open(word).with_context(|| format!("image {}", word.display()));
    }
    if word.is_file() {
        let dir = word.parent().unwrap_or(Path::new("."));
        return Image::open(dir).with_context(|| format!("image {}", word.display()));
    }
    let Some(variant) = word.to_str().filter(|w| !w.contains('/')) else {
        bail!(Usage(format!("no image at {}", word.display())));
    };
    match Image::find_in(images, variant)? {
        Some(image) => Ok(image),
        None => bail!(Usage(format!(
            "no image for variant `{variant}` in {}: run `cargo images build --variants {variant}`",
            images.display()
        ))),
    }
}

/// An error of the command line or of its input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What a build says of its own fault; else 1 for what the guest did, 2 for bad input, and 75 (EX_TEMPFAIL of
/// sysexits.h) for a host that could not do its part.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let built = error.chain().find_map(|cause| {
        let built = cause.downcast_ref().map(BuildError::fault);
        built.or_else(|| cause.downcast_ref::<ImageError>().map(Fault::from))
    });
    if let Some(fault) = built {
        return fault.exit_code();
    }
    let bad_input = error.chain().any(|cause| {
        cause.is::<Usage>()
            || matches!(cause.downcast_ref(), Some(DossierError::Unusable(_)))
            || matches!(
                cause.downcast_ref(),
                Some(TryoutError::Unfit { .. } | TryoutError::Signed { .. })
            )
    });
    let whose = error.chain().find_map(|cause| {
        let failure = cause.downcast_ref().map(Failure::whose);
        let snapshot = || cause.downcast_ref().map(SnapshotError::whose);
        let machine = || cause.downcast_ref().map(MachineError::whose);
        failure.or_else(snapshot).or_else(machine)
    });
    match whose {
        _ if bad_input => 2,
        Some(Whose::Guest) => 1,
        _ => 75,
    }
}

/// Boots an overlay of the image for one command, and waits for its agent.
pub async fn boot(
    layout: &Layout,
    host: &Host,
    image: &Image,
    name: &str,
) -> anyhow::Result<Guest> {
    let mut tries = Tries::default();
    loop {
        match boot_once(layout, host, image, name).await {
            Err(failure) if tries.again(failure.whose(), &failure) => {
                eprintln!("note: {failure}; booting another machine");
            }
            result => return Ok(result?),
        }
    }
}

async fn boot_once(
    layout: &Layout,
    host: &Host,
    image: &Image,
    name: &str,
) -> Result<Guest, Failure> {
    let logs = layout
        .machine_logs()
        .join(format!("{name}-{}", std::process::id()));
    let machine = Machine::boot(MachineSpec {
        accelerator: host.accel.chosen,
        vsock: Some(host.vsock.chosen),
        ..MachineSpec::new(name, image.disk.clone(), &logs)
    })
    .await?;
    Guest::meet(Arc::new(machine), BOOT_DEADLINE, REQUEST_DEADLINE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builds_fault_is_the_exit_code() {
        let code = |error: BuildError| exit_code(&anyhow::Error::new(error).context("image x"));
        let no_ssh = BuildError::NoSsh {
            seconds: 300,
            attempts: 2,
            console: "login:".into(),
            log: "/l".into(),
        };
        assert_eq!(code(no_ssh), 75, "the host's");
        let no_boot = BuildError::NoBoot {
            seconds: 300,
            console: "Kernel panic".into(),
            log: "/l".into(),
        };
        assert_eq!(code(no_boot), 1, "the guest's");
        let unknown = BuildError::UnknownVariant {
            variant: "x".into(),
            known: vec![],
        };
        assert_eq!(code(unknown), 2, "what was asked for");
        assert_eq!(exit_code(&Usage("x".into()).into()), 2);
        let of_image = |error: ImageError| exit_code(&anyhow::Error::new(error).context("image x"));
        let (dir, path, said) = ("/i".into(), "/t".into(), String::new());
        let not_whole = ImageError::NotWhole { dir, said };
        assert_eq!(of_image(not_whole), 75, "the host's");
        let said = "1:1: x".into();
        assert_eq!(
            of_image(ImageError::DataFile { path, said }),
            2,
            "what was given"
        );
        assert_eq!(exit_code(&anyhow::anyhow!("anything else")), 75);
    }
}
