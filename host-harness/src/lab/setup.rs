//! What is the same for all checks of one image in one run: the image, the host, what to break.

use std::path::PathBuf;
use std::time::Duration;

use image::{Image, KernelRecord};
use machine::snapshot::{DEFAULT_CAP, Recipe, SETTLING, Snapshot, SnapshotError, Store, Watch};
use machine::{ExtraDisk, Host, MachineSpec, admission};
use results::Layout;

use super::FIRST_ANSWER;
use crate::dossier::Policy;

/// Size of the scratch disk a check makes its file system on, in MiB. Sparse on the host.
pub(super) const SCRATCH_MIB: u64 = 512;

/// From power-on to the agent's answer, at most: under emulation, on a busy host.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(150);

/// Something a test breaks on purpose: a script run in the guest when a story reaches a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The point's name; `start` is reached before the story begins.
    pub point: &'static str,
    /// What to run, as root.
    pub script: &'static str,
    /// What is put into the guest for it: a file of the host, and its path there.
    pub files: Vec<(PathBuf, &'static str)>,
}

/// What is the same for all checks of one image in one run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where things are.
    pub layout: Layout,
    /// How machines run here.
    pub host: Host,
    /// The image under test.
    pub image: Image,
    /// The disk with fio, stress-ng and the like.
    pub tools: PathBuf,
    /// From power-on to the agent's answer, at most; [`BOOT_DEADLINE`] unless the user says.
    pub boot_deadline: Duration,
    /// The agent's first answer on a connection it has accepted, at most; [`super::FIRST_ANSWER`]
    /// unless the user says.
    pub agent_deadline: Duration,
    /// Whether the image's second kernel is what is checked.
    pub second_kernel: bool,
    /// What to break, in tests that want to see a check fail.
    pub breaks: Vec<Break>,
    /// Which checks leave a dossier.
    pub dossiers: Policy,
    /// The seed of all randomness in stories; drawn for each check when `None`.
    pub seed: Option<u64>,
    /// Who looks on while its machines make their way.
    pub watch: Watch,
}

impl Setup {
    /// What checks of an image need, with nothing to break, no dossier and the usual patience.
    pub fn new(layout: Layout, host: Host, image: Image, tools: PathBuf) -> Setup {
        Setup {
            layout,
            host,
            image,
            tools,
            boot_deadline: BOOT_DEADLINE,
            agent_deadline: FIRST_ANSWER,
            second_kernel: false,
            breaks: Vec::new(),
            dossiers: Policy::none(),
            seed: None,
            watch: Watch::default(),
        }
    }

    /// The machine every check of this image gets, but for what its row or story changes.
    pub(super) fn spec(&self, name: &str, logs: PathBuf) -> MachineSpec {
        MachineSpec {
            accelerator: self.host.accel.chosen,
            vsock: Some(self.host.vsock.chosen),
            second_kernel: self.second_kernel,
            disks: vec![
                ExtraDisk::tools(self.tools.clone()),
                ExtraDisk::scratch(SCRATCH_MIB),
            ],
            // A machine that fails its check is frozen for the dossier.
            freezable: true,
            ..MachineSpec::new(name, self.image.disk.clone(), logs)
        }
    }

    /// How many machines of this image may run on this host at once.
    pub fn room(&self) -> u64 {
        let spec = self.spec("room", PathBuf::new());
        admission::Tickets::here().machines(&spec)
    }

    /// The kernel that its machines boot.
    pub fn kernel(&self) -> &KernelRecord {
        let manifest = &self.image.manifest;
        let second = manifest.second_kernel.as_ref();
        second
            .filter(|_| self.second_kernel)
            .unwrap_or(&manifest.kernel)
    }

    /// A time meant for the distribution's kernel, on the image's own: one full of sanitizers is slower.
    pub fn stretched(&self, time: Duration) -> Duration {
        time.mul_f64(self.kernel().slowdown().max(1.0))
    }

    /// The image booted, settled and frozen; made by whoever asks first.
    ///
    /// # Errors
    /// When the image does not come up.
    pub async fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        self.snapshot_of(|spec| spec).await
    }

    /// As [`Setup::snapshot`], of a machine that `change` makes different from what checks get.
    ///
    /// # Errors
    /// As [`Setup::snapshot`].
    pub async fn snapshot_of(
        &self,
        change: impl FnOnce(MachineSpec) -> MachineSpec,
    ) -> Result<Snapshot, SnapshotError> {
        let variant = &self.image.manifest.variant;
        let logs = self
            .layout
            .machine_logs()
            .join(format!("{variant}-snapshot"));
        let agent = self.image.manifest.programs.get("vexfs-agent");
        let recipe = Recipe {
            spec: change(self.spec("snapshot", logs)),
            image_digest: self.image.manifest.disk.sha256.clone(),
            patience: self.stretched(SETTLING),
            agent_version: agent.map(|agent| agent.sha256.clone()).unwrap_or_default(),
        };
        Store::open(self.layout.snapshots(), DEFAULT_CAP)?
            .snapshot(&recipe, &self.watch)
            .await
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_asks_for_the_second_kernel_in_the_word_of_the_images_menu() {
        assert_eq!(machine::SECOND_KERNEL_SKU, image::SECOND_KERNEL_SKU);
    }
}
