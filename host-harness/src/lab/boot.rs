//! Machines from power-on, and what they are booted with.

use std::sync::Arc;
use std::time::Duration;

use machine::{Accelerator, ExtraDisk, Firmware, Machine, MachineSpec, admission};

use super::{Failure, Guest, Lab, Uninvited, seed_disk};

/// How a machine is to be booted.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    invited: bool,
    firmware: Firmware,
    disk_bytes: Option<u64>,
    disks: Vec<ExtraDisk>,
    counts_instructions: bool,
}

impl Boot {
    /// With the credential: the agent listens.
    pub fn invited() -> Boot {
        Boot {
            invited: true,
            ..Boot::uninvited()
        }
    }

    /// Without it, as at a customer's.
    pub fn uninvited() -> Boot {
        Boot::default()
    }

    /// By UEFI firmware instead of a BIOS.
    pub fn by_uefi(mut self) -> Boot {
        self.firmware = Firmware::Uefi;
        self
    }

    /// On a system disk of that size, which is larger than the image.
    pub fn on_disk_of(mut self, bytes: u64) -> Boot {
        self.disk_bytes = Some(bytes);
        self
    }

    /// With a clock that counts instructions where that can be had (under emulation), and one processor:
    /// time is then work, whatever else the host does.
    pub fn counting_instructions(mut self) -> Boot {
        self.counts_instructions = true;
        self
    }

    /// With one more disk.
    pub fn with_disk(mut self, disk: ExtraDisk) -> Boot {
        self.disks.push(disk);
        self
    }
}

impl Lab {
    /// A machine from power-on to the agent's first answer.
    ///
    /// # Errors
    /// When it dies or the agent does not answer in time; with the console's end.
    pub async fn boot(&mut self, boot: Boot) -> Result<Guest, Failure> {
        let machine = self.machine(boot).await?;
        let within = (self.boot_deadline(), self.setup.agent_deadline);
        let guest = Guest::meet_within(machine, within, self.deadline()).await?;
        self.seen.push(guest.clone());
        Ok(guest)
    }

    /// The same machine after a reboot in good order, on the disk as it is now.
    ///
    /// # Errors
    /// When it does not go down or does not come up in time.
    pub async fn reboot(&mut self, guest: Guest) -> Result<Guest, Failure> {
        let (machine, before) = (guest.shared_machine(), guest.boot_id().to_owned());
        guest.reboot().await?;
        // What it was is over: the reset is meant, and the guest that comes up is another.
        self.seen.retain(|seen| seen.boot_id() != before);
        drop(guest);
        let begin = tokio::time::Instant::now();
        loop {
            let within = machine.clock().left(begin, self.boot_deadline());
            // The agent answers to the very end of a shutdown.
            match Guest::meet(machine.clone(), within, self.deadline()).await {
                Ok(guest) if guest.boot_id() != before => {
                    self.seen.push(guest.clone());
                    return Ok(guest);
                }
                Err(failure) if within.is_zero() || matches!(failure, Failure::Died(_)) => {
                    return Err(failure);
                }
                _ => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// A NoCloud seed: a small disk of that label with `user-data` on it.
    ///
    /// # Errors
    /// When the host's mkfs.vfat(8) or mcopy(1) fails.
    pub async fn seed_disk(&self, label: &str, user_data: &str) -> Result<ExtraDisk, Failure> {
        seed_disk(&self.logs(), label, user_data).await
    }

    /// A machine without a guest to talk to.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub async fn boot_uninvited(&mut self, boot: Boot) -> Result<Uninvited, Failure> {
        let machine = self.machine(boot).await?;
        Ok(Uninvited::new(machine))
    }

    async fn machine(&mut self, boot: Boot) -> Result<Arc<Machine>, Failure> {
        let mut spec = MachineSpec {
            invite: boot.invited || self.breaks("invitation"),
            firmware: boot.firmware,
            disk_bytes: boot.disk_bytes,
            ..self.setup.spec(self.check.name, self.logs())
        };
        spec.disks.extend(boot.disks);
        if boot.counts_instructions {
            spec.counts_instructions = spec.accelerator == Accelerator::Tcg;
            spec.cpus = 1;
        }
        let ticket = admission::enter(&spec)
            .await
            .map_err(|e| Failure::Host(format!("cannot wait for room on this host: {e}")))?;
        let mut machine = Machine::boot(spec).await?;
        machine.hold(ticket);
        let machine = Arc::new(machine);
        self.machines.add(machine.clone());
        Ok(machine)
    }
}
