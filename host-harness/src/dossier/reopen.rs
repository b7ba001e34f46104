//! The way back into a failed machine: as it was when it was frozen, or at least to its disks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_client::Client;
use image::{Image, Manifest};
use machine::arguments::{files as places, scratch_file};
use machine::snapshot::{self, Snapshot};
use machine::{
    DiskContent, DiskFormat, Launch, Machine, MachineError, MachineSpec, Qemu, RunDir, overlay,
};

use results::Subject;
use results::dossier::{Left, Unusable, files};

use super::{DossierError, Facts, MachineFacts};

/// A dossier that has been opened.
#[derive(Debug, Clone)]
pub struct Dossier {
    /// Its folder.
    pub dir: PathBuf,
    /// What is known.
    pub facts: Facts,
}

/// A failed machine that runs again, with an agent that answers.
pub struct Back {
    /// The machine. What happens in it changes nothing in the dossier.
    pub machine: Machine,
    /// A connection to its agent.
    pub agent: Client,
    /// Why it is not as it was, but was booted from its disks; `None` when it is as it was.
    pub booted: Option<String>,
}

impl Dossier {
    /// Opens the dossier in `dir`.
    ///
    /// # Errors
    /// When it is none, or one of another version, or not whole.
    pub fn open(dir: &Path) -> Result<Dossier, DossierError> {
        let facts = Facts::read(dir)?;
        // Overlays name the files below them by absolute path, or relative to themselves.
        let dir = dir
            .canonicalize()
            .map_err(DossierError::io(format!("cannot use {}", dir.display())))?;
        let missing = facts
            .missing(&dir)
            .map_err(DossierError::io(format!("cannot read {}", dir.display())))?;
        if !missing.is_empty() {
            let names: Vec<String> = missing.iter().map(|p| p.display().to_string()).collect();
            let why = format!("it lacks {}", names.join(", "));
            return Err(Unusable { dir, why }.into());
        }
        Ok(Dossier { dir, facts })
    }

    /// The image the check ran on: the same file, with the same content.
    ///
    /// # Errors
    /// When it is gone, or another one is in its place.
    pub fn image(&self) -> Result<Image, DossierError> {
        let known = &self.facts.image;
        let unusable = |why: String| {
            let dir = self.dir.clone();
            DossierError::from(Unusable { dir, why })
        };
        let image = Image::open(&known.dir).map_err(|error| {
            unusable(format!(
                "its image {} is gone ({error}); it has SHA-256 {}: put it back, or build it again \
                 from the same inputs (see {})",
                known.dir.display(),
                known.sha256,
                files::IMAGE
            ))
        })?;
        match image.manifest.disk.sha256 == known.sha256 {
            true => Ok(image),
            false => Err(unusable(format!(
                "the image in {} is another one by now: it has SHA-256 {}, the check ran on {}",
                known.dir.display(),
                image.manifest.disk.sha256,
                known.sha256
            ))),
        }
    }

    /// What the image said of itself then.
    ///
    /// # Errors
    /// When the dossier's copy cannot be read.
    pub fn manifest(&self) -> Result<Manifest, DossierError> {
        let path = self.dir.join(files::IMAGE);
        std::fs::read(&path)
            .and_then(|text| Ok(serde_json::from_slice(&text)?))
            .map_err(DossierError::io(format!("cannot read {}", path.display())))
    }

    /// The module that was tried in the place of the image's own, with the dossier's copies of its
    /// files.
    pub fn subject(&self) -> Option<Subject> {
        let mut subject = self.facts.subject.clone()?;
        let here = |file: &mut PathBuf| *file = self.dir.join(&*file);
        here(&mut subject.file);
        here(&mut subject.debug);
        subject.files.iter_mut().for_each(|(file, ..)| here(file));
        Some(subject)
    }

    /// The machine of this number, counted from 1; without one, the last that was frozen, or else
    /// the last.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn machine(&self, number: Option<usize>) -> Result<&MachineFacts, DossierError> {
        let machines = &self.facts.machines;
        let frozen = machines.iter().rfind(|m| m.left == Left::Frozen);
        let found = match number {
            Some(number) => number.checked_sub(1).and_then(|at| machines.get(at)),
            None => frozen.or(machines.last()),
        };
        let lacking = || Unusable {
            dir: self.dir.clone(),
            why: match (number, machines.len()) {
                (_, 0) => "the check failed before it had a machine".to_owned(),
                (number, count) => format!(
                    "it has machines 1 to {count}, not {}",
                    number.unwrap_or_default()
                ),
            },
        };
        found.ok_or_else(|| lacking().into())
    }

    /// Brings a machine back: as it was if it was frozen, else booted from its disks. Its logs go to
    /// `log_dir`.
    ///
    /// # Errors
    /// When the image is not there any more, or the machine does not come up.
    pub async fn bring_back(
        &self,
        machine: &MachineFacts,
        log_dir: &Path,
    ) -> Result<Back, DossierError> {
        self.image()?;
        let why = match &machine.left {
            Left::Frozen => match self.thaw(machine, log_dir).await {
                Ok(back) => return Ok(back),
                Err(why) => format!("it was frozen, but cannot be brought back: {why}"),
            },
            Left::Dump { why } | Left::Disks { why } => format!("it was not frozen: {why}"),
        };
        self.boot(machine, log_dir, why).await
    }

    async fn thaw(&self, machine: &MachineFacts, log_dir: &Path) -> Result<Back, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let qemu = Qemu::find().await.map_err(|e| told(&e))?;
        if qemu.version != machine.made.qemu {
            return Err(format!(
                "QEMU {} wrote its state, QEMU {} is installed",
                machine.made.qemu, qemu.version
            ));
        }
        let frozen = self.dir.join(&machine.folder);
        let snapshot = Snapshot::outside_the_store(frozen).map_err(|e| told(&e))?;
        let fork = snapshot.fork("reopen", log_dir).await;
        let fork = fork.map_err(|e| told(&e))?;
        Ok(Back {
            machine: fork.machine,
            agent: fork.agent,
            booted: None,
        })
    }

    async fn boot(
        &self,
        machine: &MachineFacts,
        log_dir: &Path,
        why: String,
    ) -> Result<Back, DossierError> {
        let spec = MachineSpec {
            name: "reopen".into(),
            log_dir: log_dir.to_owned(),
            // Whoever comes back wants to talk.
            invite: true,
            ..machine.made.spec.clone()
        };
        std::fs::create_dir_all(log_dir).map_err(DossierError::io(format!(
            "cannot make {}",
            log_dir.display()
        )))?;
        let run = Arc::new(RunDir::create().await?);
        disks(&spec, &self.dir.join(&machine.folder), run.path())
            .map_err(DossierError::io("cannot make the machine's disks"))?;
        let machine = Launch::boot_in(spec, run)?.start().await?;
        let within = Duration::from_secs_f64(self.facts.boot_deadline_s.clamp(1.0, 3600.0));
        let agent = machine.agent(within).await.map_err(|error| {
            MachineError::Uninvited(format!(
                "{why}; booted from its disks, it does not answer: {error}; the console ends \
                 with:\n{}",
                machine.console().tail(20)
            ))
        })?;
        Ok(Back {
            machine,
            agent,
            booted: Some(why),
        })
    }
}

/// Disks for a new machine from those in `from`, which stay as they are.
fn disks(spec: &MachineSpec, from: &Path, to: &Path) -> std::io::Result<()> {
    let system = from.join(files::OVERLAY);
    if system.exists() {
        let (_, size) = overlay::inspect(&system)?;
        overlay::create(&to.join(places::OVERLAY), &system, DiskFormat::Qcow2, size)?;
    }
    let vars = from.join(places::UEFI_VARS);
    if vars.exists() {
        snapshot::copy_file(&vars, &to.join(places::UEFI_VARS))?;
    }
    for disk in &spec.disks {
        let own = scratch_file(from, &disk.serial);
        if matches!(disk.content, DiskContent::Scratch { .. }) && own.exists() {
            snapshot::copy_file(&own, &scratch_file(to, &disk.serial))?;
        }
    }
    Ok(())
}
