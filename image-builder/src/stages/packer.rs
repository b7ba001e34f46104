//! Packer: the part of the build that needs the running system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image::SourceConfig;
use keeper::{Failure, Kept};

use crate::request::access::Access;
use crate::request::data;
use crate::run::Site;
use crate::stages::packer_words::{self, Unreached};
use crate::stages::payload::{self, PROVISION, Payload};
use crate::stages::{disk, replay};
use crate::store::key::{self, Inputs};
use crate::store::{Entry, Stage};
use crate::{BuildError, BuildRequest, host, run};

/// Name of the stage.
pub(crate) const STAGE: &str = "image";
/// The disk as Packer leaves it, in its output directory.
const PROVISIONED: &str = "disk.raw";
/// The disk with the provisioned tree, made again.
const FINISHED: &str = "finished.img";
/// The provisioned disk's file in the entry.
pub(crate) const DISK: &str = "disk.qcow2";
/// The template, below the workspace.
const TEMPLATE: &str = "packer/vexfs.pkr.hcl";
/// How often Packer's machine is started when it comes up and this host does not get through to its SSH.
const ATTEMPTS: u32 = 2;
/// What provisioning writes, in MiB; a tenth of it for most variants.
const GROWTH_MIB: u64 = 512;
/// What Packer's machine takes beside its memory, in MiB: QEMU and its code buffer, Packer.
const BESIDE_THE_GUEST_MIB: u64 = 256;

/// What the stage needs that is not the result of a stage.
#[derive(Debug)]
pub(crate) struct Provisioning<'a> {
    pub(crate) request: &'a BuildRequest,
    /// Template variables, by name.
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) payload: Payload<'a>,
}

impl<'a> Provisioning<'a> {
    pub(crate) fn new(
        request: &'a BuildRequest,
        variant: &'a data::Variant,
        config: &'a SourceConfig,
        access: Access,
    ) -> Result<Provisioning<'a>, BuildError> {
        Ok(Provisioning {
            request,
            variables: variables(request, variant, config, &access),
            payload: Payload::new(request, variant, config, access)?,
        })
    }

    /// What the image is made from besides the results of stages.
    pub(crate) fn inputs(&self) -> Result<Inputs, BuildError> {
        let template = self.request.workspace.join(TEMPLATE);
        let digest = key::file_digest(&template).map_err(BuildError::io("read", template))?;
        // What the host does with the image afterwards does not change it.
        let variables = self
            .variables
            .iter()
            .filter(|(name, _)| *name != "enable_validation");
        Ok(self
            .payload
            .inputs()?
            .with(TEMPLATE, digest)
            .with("how", "the provisioned tree replayed onto the base")
            .with_all(variables.map(|(name, value)| (format!("variable {name}"), value.clone()))))
    }

    /// Makes it; the entry has [`DISK`], compact.
    pub(crate) async fn make(
        &self,
        site: &Site<'_>,
        stage: &Stage,
        (disk, epoch): (&Entry, u64),
        made: payload::Made<'_>,
    ) -> Result<Entry, BuildError> {
        site.stage(stage, async |result| {
            let work = site.scratch(STAGE)?;
            let work = work.path();
            let payload = work.join("payload");
            self.payload
                .make(site, STAGE, (work, &payload), made)
                .await?;
            let key = work.join("key");
            let keygen = Site::program("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "vexfs-build", "-f"])
                .arg(&key);
            site.step(STAGE, keygen).await?;
            let public = key.with_extension("pub");
            let public = fs::read_to_string(&public).map_err(BuildError::io("read", public))?;
            let smbios = work.join("smbios");
            fs::write(&smbios, smbios_credential(&public))
                .map_err(BuildError::io("write", &smbios))?;
            let console = site.log("console");
            let inputs = PackerInputs {
                base_disk: disk.dir.join(disk::DISK),
                payload_dir: payload,
                ssh_private_key_file: key,
                smbios_file: smbios,
                output_dir: work.join("output"),
                console_log: console,
            };
            self.provision(site, work, &inputs).await?;
            let finished = work.join(FINISHED);
            let provisioned = inputs.output_dir.join(PROVISIONED);
            replay::replay(
                site,
                STAGE,
                (&inputs.base_disk, &provisioned),
                epoch,
                (work, &finished),
            )
            .await?;
            // In order (no -W): what is written first must not depend on who was quicker.
            let compact = Site::program("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2", "-m", "1"])
                .args([finished, result.join(DISK)]);
            site.step(STAGE, compact).await?;
            self.check_traces(site, &public, &result.join(DISK)).await
        })
        .await
    }

    /// Has Packer boot and provision the disk. When its machine comes up and this host does not get through to
    /// its SSH, it does so once more from the start.
    async fn provision(
        &self,
        site: &Site<'_>,
        work: &Path,
        inputs: &PackerInputs,
    ) -> Result<(), BuildError> {
        // The copy of the disk that Packer boots, what is written into it, and the same tree made again.
        let base = fs::metadata(&inputs.base_disk).map_or(0, |meta| meta.blocks() * 512);
        host::require_space(work, "Packer's machine", GROWTH_MIB + 3 * (base >> 20))?;
        let memory = self
            .variables
            .get("memory")
            .and_then(|mib| mib.parse().ok());
        host::require_memory(memory.unwrap_or(0) + BESIDE_THE_GUEST_MIB)?;
        let mut attempt = 1;
        loop {
            run::fresh_log(&inputs.console_log)?;
            let log = site.log(STAGE);
            let before = fs::metadata(&log).map_or(0, |meta| meta.len());
            let Err(error) = site.step(STAGE, self.packer(site, work, inputs)).await else {
                return Ok(());
            };
            match self.failed(error, before, &inputs.console_log, attempt) {
                BuildError::NoSsh { seconds, .. } if attempt < ATTEMPTS => {
                    attempt += 1;
                    site.note(format!(
                        "the base came up, but this host did not get through to its SSH within \
                         {seconds} s: trying once more from the start"
                    ));
                    // Packer removes it unless it was killed; it must not exist.
                    if inputs.output_dir.exists() {
                        fs::remove_dir_all(&inputs.output_dir)
                            .map_err(BuildError::io("remove", &inputs.output_dir))?;
                    }
                }
                error => return Err(error),
            }
        }
    }

    fn packer(&self, site: &Site<'_>, work: &Path, inputs: &PackerInputs) -> Kept {
        let workspace = &self.request.workspace;
        let variant = data::variant_file(workspace, &self.request.variant);
        let command = Site::program("packer")
            .args(arguments(
                &workspace.join(TEMPLATE),
                &variant,
                &self.variables,
                inputs,
                self.request,
            ))
            // Nothing of Packer's beside the build's own folder, and no call home.
            .env("PACKER_CACHE_DIR", work.join("cache"))
            .env("PACKER_CONFIG_DIR", work)
            .env("PACKER_NO_COLOR", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .env("TMPDIR", work)
            .current_dir(work);
        match self.request.verbose {
            true => command
                .env("PACKER_LOG", "1")
                .env("PACKER_LOG_PATH", site.log("packer-debug")),
            false => command,
        }
    }

    /// No block of the disk may still have what was only there for the build: deleted files do not
    /// show in the guest, their blocks do here.
    async fn check_traces(
        &self,
        site: &Site<'_>,
        public_key: &str,
        disk: &Path,
    ) -> Result<(), BuildError> {
        let mirror = self.request.mirror.as_deref();
        // Unless the image is meant to use the same one.
        let mirror = mirror.filter(|mirror| !self.request.image_mirror.starts_with(mirror));
        let traces = traces(public_key, mirror);
        for (what, text) in traces {
            // grep(1) ends with 1 when it finds nothing.
            let search = Site::program("sh")
                .args([
                    "-c",
                    "! grep --fixed-strings --text --quiet -e \"$1\" \"$2\"",
                    "sh",
                    text,
                ])
                .arg(disk);
            site.output(STAGE, search)
                .await
                .map_err(|_| BuildError::Provision {
                    script: format!("{PROVISION}/90-trim.sh"),
                    tail: format!("{what} is still in the image"),
                    log: site.log(STAGE),
                })?;
        }
        Ok(())
    }

    /// A failed Packer, by what went wrong in the guest or on the way to it; what this attempt said begins at
    /// that byte of the log.
    fn failed(
        &self,
        error: BuildError,
        begin: u64,
        console_log: &Path,
        attempts: u32,
    ) -> BuildError {
        let BuildError::Step {
            source: Failure::Ended { tail, log, .. },
            ..
        } = &error
        else {
            return error;
        };
        let said = fs::read(log).ok();
        let said = said.and_then(|bytes| {
            let said = bytes.get(usize::try_from(begin).ok()?..)?;
            Some(String::from_utf8_lossy(said).into_owned())
        });
        let said = said.unwrap_or_else(|| tail.clone());
        let console = fs::read(console_log).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let seconds = self.request.ssh_timeout.as_secs();
        let end = || packer_words::console_end(&console);
        match packer_words::unreached(&said, &console) {
            Some(Unreached::Guest) => BuildError::NoBoot {
                seconds,
                console: end(),
                log: console_log.to_owned(),
            },
            Some(Unreached::Host) => BuildError::NoSsh {
                seconds,
                attempts,
                console: end(),
                log: console_log.to_owned(),
            },
            None => match packer_words::failed_script(&said) {
                Some((script, tail)) => BuildError::Provision {
                    script,
                    tail,
                    log: log.clone(),
                },
                None => error,
            },
        }
    }
}

/// The template's variables that are about the image (and not about this host).
fn variables(
    request: &BuildRequest,
    variant: &data::Variant,
    config: &SourceConfig,
    access: &Access,
) -> BTreeMap<String, String> {
    let disk_size = request.disk_size.as_ref().unwrap_or(&variant.disk_size);
    [
        ("image_variant", variant.image_variant.clone()),
        ("kernel_version", request.kernel_version.clone()),
        ("vexfs_version", request.vexfs_version.clone()),
        ("disk_size", disk_size.clone()),
        (
            "memory",
            request.memory_mib.unwrap_or(variant.memory).to_string(),
        ),
        ("enable_testing", request.enable_testing.to_string()),
        ("enable_validation", request.enable_validation.to_string()),
        ("root_access", access.name().to_owned()),
        ("module", config.module.clone()),
        ("fstype", config.fstype.clone()),
        ("mkfs", config.mkfs.join(" ")),
        ("control", config.control.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The template's inputs: paths of this build.
struct PackerInputs {
    base_disk: PathBuf,
    payload_dir: PathBuf,
    ssh_private_key_file: PathBuf,
    smbios_file: PathBuf,
    output_dir: PathBuf,
    console_log: PathBuf,
}

/// Packer's command line. What is on it wins over the variant's file.
fn arguments(
    template: &Path,
    variant: &Path,
    variables: &BTreeMap<String, String>,
    inputs: &PackerInputs,
    request: &BuildRequest,
) -> Vec<String> {
    let mut arguments = vec![
        "build".to_owned(),
        "-color=false".into(),
        "-on-error=cleanup".into(),
        format!("-var-file={}", variant.display()),
    ];
    let path = |name: &str, path: &PathBuf| (name.to_owned(), path.display().to_string());
    let inputs = [
        path("base_disk", &inputs.base_disk),
        path("payload_dir", &inputs.payload_dir),
        path("ssh_private_key_file", &inputs.ssh_private_key_file),
        path("smbios_file", &inputs.smbios_file),
        path("output_dir", &inputs.output_dir),
        path("console_log", &inputs.console_log),
        ("accelerator".into(), request.accelerator.clone()),
        (
            "ssh_timeout".into(),
            format!("{}s", request.ssh_timeout.as_secs()),
        ),
    ];
    for (name, value) in variables.clone().into_iter().chain(inputs) {
        arguments.push("-var".into());
        arguments.push(format!("{name}={value}"));
    }
    arguments.push(template.display().to_string());
    arguments
}

/// The SMBIOS string by which systemd's tmpfiles put the key into root's authorized_keys
/// (`provision.conf`, systemd-creds(1)): the disk itself never carries it.
fn smbios_credential(public_key: &str) -> String {
    format!(
        "io.systemd.credential:ssh.authorized_keys.root={}",
        public_key.trim()
    )
}

/// What must not be found in a finished image.
fn traces<'a>(public_key: &'a str, mirror: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let mut traces = Vec::new();
    // `ssh-ed25519 BASE64 comment`
    if let Some(key) = public_key.split(' ').nth(1) {
        traces.push(("the SSH key of the build", key));
    }
    if let Some(mirror) = mirror {
        traces.push(("the address of the build mirror", mirror));
    }
    traces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant() -> data::Variant {
        data::Variant {
            image_variant: "minimal".into(),
            disk_size: "8G".into(),
            memory: 2048,
            packages: vec![],
            path_excludes: vec![],
            scripts: vec![],
            enabled_units: vec![],
            unmasked_units: vec![],
            debug_module: false,
            sources: false,
            test_programs: false,
            lockdown: false,
        }
    }

    #[test]
    fn the_command_line_is_this_one() {
        let mut request = BuildRequest::new("/w");
        request.memory_mib = Some(1024);
        let inputs = PackerInputs {
            base_disk: "/c/disk.raw".into(),
            payload_dir: "/t/payload".into(),
            ssh_private_key_file: "/t/key".into(),
            smbios_file: "/t/smbios".into(),
            output_dir: "/t/output".into(),
            console_log: "/o/console.log".into(),
        };
        let variables = variables(
            &request,
            &variant(),
            &SourceConfig::default(),
            &Access::default(),
        );
        let line = arguments(
            "/w/t.pkr.hcl".as_ref(),
            "/w/v.pkrvars.hcl".as_ref(),
            &variables,
            &inputs,
            &request,
        );
        assert_eq!(
            line.join("\n"),
            include_str!("../../tests/golden/packer-arguments.txt").trim_end()
        );
    }

    #[test]
    fn key_and_mirror_are_looked_for_in_the_image() {
        let key = "ssh-ed25519 AAAAC3Nz vexfs-build\n";
        assert_eq!(
            traces(key, None),
            [("the SSH key of the build", "AAAAC3Nz")]
        );
        assert_eq!(traces(key, Some("http://m/debian"))[1].1, "http://m/debian");
    }
}
