//! Options that several subcommands share, and what errors mean for the exit code.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use host_harness::dossier::DossierError;
use host_harness::host::{Host, HostRequest};
use host_harness::lab::{BOOT_DEADLINE, Failure, Guest};
use host_harness::layout::Layout;
use host_harness::machine::{Firmware, Machine, MachineError, MachineSpec, VsockBackend, accel};
use host_harness::snapshot::SnapshotError;
use host_harness::tryout::TryoutError;
use host_harness::whose::{Tries, Whose};
use image::{Image, ImageError};
use image_builder::{BuildError, Fault};

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
            layout,
            HostRequest {
                accel: self.accel,
                vsock: self.vsock,
            },
        )
        .await?)
    }
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
pub fn firmware(word: &str) -> Result<Firmware, String> {
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
            || matches!(cause.downcast_ref(), Some(DossierError::Unusable { .. }))
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
