//! Packer: the part of the build that needs the running system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use keeper::Failure;

use crate::access::Access;
use crate::key::Inputs;
use crate::run::Site;
use crate::stages::payload::{self, PROVISION, Payload};
use crate::stages::{disk, replay};
use crate::store::{Entry, Stage};
use crate::{BuildError, BuildRequest, SourceConfig, data, key, run};

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
/// How much of the console an error shows.
const CONSOLE_LINES: usize = 20;

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

    /// What the image is made from.
    pub(crate) fn inputs(
        &self,
        disk: &Stage,
        made: &[&Stage],
        tools: &[(String, String)],
    ) -> Result<Inputs, BuildError> {
        let template = self.request.workspace.join(TEMPLATE);
        let digest = key::file_digest(&template).map_err(BuildError::io("read", template))?;
        let made = made.iter().map(|stage| (stage.name, stage.inputs.key()));
        // What the host does with the image afterwards does not change it.
        let variables = self
            .variables
            .iter()
            .filter(|(name, _)| *name != "enable_validation");
        Ok(self
            .payload
            .inputs()?
            .with_all(tools.to_vec())
            .with(TEMPLATE, digest)
            .with("how", "the provisioned tree replayed onto the base")
            .with("disk", disk.inputs.key())
            .with_all(made)
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
            run::fresh_log(&console)?;
            let inputs = PackerInputs {
                base_disk: disk.dir.join(disk::DISK),
                payload_dir: payload,
                ssh_private_key_file: key,
                smbios_file: smbios,
                output_dir: work.join("output"),
                console_log: console.clone(),
            };
            let workspace = &self.request.workspace;
            let variant = data::variant_file(workspace, &self.request.variant);
            let mut command = Site::program("packer")
                .args(arguments(
                    &workspace.join(TEMPLATE),
                    &variant,
                    &self.variables,
                    &inputs,
                    self.request,
                ))
                // Nothing of Packer's beside the build's own folder, and no call home.
                .env("PACKER_CACHE_DIR", work.join("cache"))
                .env("PACKER_CONFIG_DIR", work)
                .env("PACKER_NO_COLOR", "1")
                .env("CHECKPOINT_DISABLE", "1")
                .env("TMPDIR", work)
                .current_dir(work);
            if self.request.verbose {
                command = command
                    .env("PACKER_LOG", "1")
                    .env("PACKER_LOG_PATH", site.log("packer-debug"));
            }
            site.step(STAGE, command)
                .await
                .map_err(|error| self.failed(error, &console))?;
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

    /// A failed Packer, by what went wrong in the guest.
    fn failed(&self, error: BuildError, console: &Path) -> BuildError {
        let BuildError::Step {
            source: Failure::Ended { tail, log, .. },
            ..
        } = &error
        else {
            return error;
        };
        let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_else(|_| tail.clone());
        if text.contains("Timeout waiting for SSH") {
            return BuildError::NoBoot {
                seconds: self.request.ssh_timeout.as_secs(),
                console: console_end(&fs::read(console).unwrap_or_default()),
                log: console.to_owned(),
            };
        }
        match failed_script(&text) {
            Some((script, tail)) => BuildError::Provision {
                script,
                tail,
                log: log.clone(),
            },
            None => error,
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

/// The last lines of a serial console, without colours and cursor movements.
fn console_end(bytes: &[u8]) -> String {
    let text = strip_escapes(&String::from_utf8_lossy(bytes));
    let lines: Vec<_> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.len() {
        0 => "(nothing: the machine did not reach its boot loader)".into(),
        n => lines[n.saturating_sub(CONSOLE_LINES)..].join("\n"),
    }
}

/// Removes ECMA-48 control sequences and carriage returns.
fn strip_escapes(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next_if_eq(&'[').is_some() {
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
        } else if c != '\r' {
            out.push(c);
        }
    }
    out
}

/// The script that failed and what it printed, from Packer's log; the template says each one's name before it.
fn failed_script(log: &str) -> Option<(String, String)> {
    const STARTED: &str = "qemu.vexfs: stage: ";
    const EXITED: &str = "Script exited with non-zero exit status";
    const CLEANING: &str = "Provisioning step had errors";
    let exited = log.find(EXITED)?;
    let before = &log[..log.find(CLEANING).unwrap_or(exited).min(exited)];
    let started = before.rfind(STARTED)?;
    let rest = &before[started + STARTED.len()..];
    let (script, output) = rest.split_once('\n').unwrap_or((rest, ""));
    let script = script.trim();
    let lines: Vec<_> = output
        .lines()
        .filter_map(|line| line.split_once("qemu.vexfs: ").map(|(_, said)| said.trim()))
        .collect();
    let tail = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
    let tail = tail.trim_end().to_owned();
    Some((format!("{PROVISION}/{script}"), tail))
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

    #[test]
    fn the_console_is_shown_by_its_last_lines_in_plain_text() {
        let text = b"\x1b[2J\x1b[01;00HGRUB\r\n\x1b[0;32m  OK  \x1b[0m] Started\r\n\r\n[ 1.0] Kernel panic\r\n";
        assert_eq!(
            console_end(text),
            "GRUB\n  OK  ] Started\n[ 1.0] Kernel panic"
        );
        let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let end = console_end(many.as_bytes());
        assert_eq!(end.lines().count(), CONSOLE_LINES);
        assert!(end.ends_with("line 99"));
        assert!(console_end(b"").starts_with("(nothing"));
    }

    #[test]
    fn the_failed_script_is_named_with_what_it_said() {
        let log = include_str!("../../tests/golden/packer-script-failed.log");
        assert_eq!(
            failed_script(log),
            Some((
                "provision/20-vexctl.sh".into(),
                "install: cannot stat '/run/vexfs-build/vexctl': No such file or directory".into()
            ))
        );
        assert_eq!(
            failed_script("Build 'qemu.vexfs' errored: Timeout waiting for SSH."),
            None
        );
    }
}
