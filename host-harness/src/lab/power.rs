//! Power cuts: a disk that loses what nobody had it flush, and forks that lose their power on it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::evidence::excuse_by;
use super::setup::SCRATCH_MIB;
use super::{Failure, Guest, Lab};
use kernel_log::{Expectations, Expected, Record, judge};
use machine::{Cut, Death, ExtraDisk, Machine, Mark, RunDir, WriteLog, snapshot};

/// A scratch disk that outlives its machines. A machine works on a copy; what of its writes is still
/// there after a cut is decided when the plug has been pulled.
#[derive(Debug, Clone)]
pub struct CutDisk {
    home: Arc<RunDir>,
}

impl CutDisk {
    /// As the last cut left it, and as the next machine finds it.
    pub fn file(&self) -> PathBuf {
        self.home.path().join("after-cut.raw")
    }

    fn in_use(&self) -> PathBuf {
        self.home.path().join("in-use.raw")
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("writes.log")
    }

    /// Puts the machine's copy and an empty log in place.
    fn make_ready(&self) -> std::io::Result<()> {
        for path in [self.in_use(), self.log()] {
            if path.exists() {
                std::fs::remove_file(path)?;
            }
        }
        File::create(self.log())?;
        snapshot::copy_file(&self.file(), &self.in_use()).map(drop)
    }
}

impl Lab {
    /// An empty disk for machines that will lose their power. If the check fails, it goes into the
    /// dossier as the last cut left it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn cut_disk(&mut self) -> Result<CutDisk, Failure> {
        let home = Arc::new(RunDir::create().await?);
        let disk = CutDisk { home };
        File::create(disk.file())
            .and_then(|file| file.set_len(SCRATCH_MIB << 20))
            .map_err(|e| Failure::Host(format!("cannot make a disk: {e}")))?;
        let name = "scratch-after-the-cut.raw".to_owned();
        self.exhibits.add(name, disk.file(), disk.home.clone());
        Ok(disk)
    }

    /// A fork of the settled image with that disk as its scratch disk.
    ///
    /// # Errors
    /// When the image does not come up.
    pub async fn fork_on(&mut self, disk: &CutDisk) -> Result<Guest, Failure> {
        let ready = disk.clone();
        tokio::task::spawn_blocking(move || ready.make_ready())
            .await
            .map_err(std::io::Error::other)
            .and_then(|made| made)
            .map_err(|e| Failure::Host(format!("cannot copy a disk: {e}")))?;
        let logged = ExtraDisk::logged(disk.in_use(), disk.log());
        let snapshot = self.setup.snapshot().await?;
        let logs = self.logs();
        let fork = snapshot
            .fork_on(self.check.name, &logs, Some(logged))
            .await?;
        let machine = Arc::new(fork.machine);
        self.machines.add(machine.clone());
        let guest = Guest::adopt(machine, fork.agent, self.deadline()).await?;
        self.seen.push(guest.clone());
        guest.mark().await?;
        Ok(guest)
    }

    /// Pulls the plug of a guest and works out what that leaves on its disk. What its kernel has said
    /// until then is judged as at the end of any check. `flushes` is false in a test only, where the
    /// disk ignores them.
    ///
    /// # Errors
    /// When the machine was dead before, or its kernel has said something.
    pub async fn pull_plug(
        &mut self,
        guest: Guest,
        disk: &CutDisk,
        rng: &mut fastrand::Rng,
        flushes: bool,
    ) -> Result<Cut, Failure> {
        let machine = guest.shared_machine();
        if let Some(death) = machine.death() {
            return Err(Failure::Died(death));
        }
        let expected = self.check.expectations();
        self.off(guest, disk, rng, flushes, "before the cut", &expected)
            .await
    }

    /// Has a guest run what its kernel must panic at, and works out what that leaves on its disk. Of
    /// what its kernel has said, only what `expected` names is all right, and must be there if it says
    /// so.
    ///
    /// # Errors
    /// When it does not panic, or its kernel has said something else.
    pub async fn must_panic(
        &mut self,
        guest: Guest,
        script: &str,
        expected: &[Expected],
        disk: &CutDisk,
        rng: &mut fastrand::Rng,
    ) -> Result<Cut, Failure> {
        match guest.sh(script).await {
            Err(Failure::Died(Death::GuestPanicked)) => {}
            Err(other) => return Err(other),
            Ok(said) => {
                return Err(Failure::check("panic", "the kernel did not panic", said));
            }
        }
        let expected = Expectations::declared(expected);
        self.off(guest, disk, rng, true, "at the panic", &expected)
            .await
    }

    async fn off(
        &mut self,
        guest: Guest,
        disk: &CutDisk,
        rng: &mut fastrand::Rng,
        flushes: bool,
        when: &str,
        expected: &Expectations,
    ) -> Result<Cut, Failure> {
        let machine = guest.shared_machine();
        machine.pull_plug().await?;
        self.judge_so_far(&guest, when, expected).await?;
        let logs = machine.spec().log_dir.clone();
        self.forget(&machine);
        drop((guest, machine));
        // Hundreds of consoles with nothing in them are no evidence.
        std::fs::remove_dir_all(logs).unwrap_or_default();
        let mut cut = || -> std::io::Result<Cut> {
            let file = File::options().write(true).open(disk.file())?;
            WriteLog::read(&disk.log())?.cut(&file, rng, flushes)
        };
        cut().map_err(|e| Failure::Host(format!("cannot cut a disk's power: {e}")))
    }

    /// Switches on again what its guest has powered off: another boot from the disks as they are now.
    /// What its kernel has said until then is judged as at the end of any check.
    ///
    /// # Errors
    /// When its kernel has said something, or it does not come up.
    pub async fn power_up(&mut self, guest: Guest) -> Result<Guest, Failure> {
        let machine = guest.shared_machine();
        let expected = self.check.expectations();
        self.judge_so_far(&guest, "before the power-off", &expected)
            .await?;
        self.forget(&machine);
        drop(guest);
        let machine = Arc::try_unwrap(machine)
            .map_err(|_| Failure::Ours("somebody still holds a machine that is off".to_owned()))?;
        let machine = Arc::new(machine.boot_again(&self.logs()).await?);
        self.machines.add(machine.clone());
        let guest = Guest::meet(machine, self.boot_deadline(), self.deadline()).await?;
        self.seen.push(guest.clone());
        Ok(guest)
    }

    /// What a machine that is to be no more in the lab has said.
    async fn judge_so_far(
        &self,
        guest: &Guest,
        when: &str,
        expected: &Expectations,
    ) -> Result<(), Failure> {
        let log = guest.kernel_log().await;
        let mut records: Vec<Record> = log.iter().map(Record::from).collect();
        let lines = guest.machine().console().since(Mark::START).0;
        records.extend(lines.iter().map(|line| Record::console(&line.text)));
        let mut findings = judge(&records, expected);
        excuse_by(
            &mut findings,
            guest.machine().console(),
            guest.machine().clock(),
        );
        let Some(found) = findings.iter().find(|found| found.allowed.is_none()) else {
            return Ok(());
        };
        let title = format!("{when}: {}", found.title);
        Err(match &found.excused {
            Some(why) => Failure::Host(format!("{title}: {why}")),
            None => Failure::check("kernel", title, found.paragraph()),
        })
    }

    /// Takes a machine out of the lab.
    fn forget(&mut self, machine: &Machine) {
        self.seen.retain(|seen| seen.machine().id() != machine.id());
        self.machines
            .lock()
            .machines
            .retain(|other| other.id() != machine.id());
        self.gone += 1;
    }
}
