//! Room on the host, asked for before a machine starts.
//!
//! A guest whose memory file finds its tmpfs full gets SIGBUS in the middle of a check, an overlay on a full disk
//! shows as an I/O error of the guest's: the host's trouble in the image's clothes. So each place a machine
//! writes to is asked first, and what is short is one sentence with both figures and the remedy.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keeper::room::{self, Memory};

use super::{MachineError, MachineSpec, rundir};

/// What a machine costs besides its guest's memory, in MiB: QEMU, its code buffer, the vsock daemon and the
/// keepers; measured on idle forks.
pub(crate) const OVERHEAD_MIB: u64 = 160;

/// What the overlay and scratch disks of a machine may grow to, as a rule, in MiB: a boot writes 50, fio and
/// stress-ng of the full tier some 300. A floor, not the virtual size, which is never reached.
const DISKS_MIB: u64 = 512;

/// Console, QEMU's log and what else a check leaves, in MiB.
const LOGS_MIB: u64 = 64;

/// What a snapshot has beside its memory, in MiB: the overlay of a boot, the devices' state.
const FROZEN_DISKS_MIB: u64 = 128;

/// How long a place that is large enough may be short: others of a run come and go in seconds.
const WAIT: Duration = Duration::from_secs(20);

/// How often it is looked again meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The places a machine writes to, and how each is made larger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where memory is that must be a file.
    Ram(PathBuf),
    /// The directories of running machines.
    Run(PathBuf),
    /// Logs.
    Logs(PathBuf),
    /// The snapshots' store.
    Store(PathBuf),
    /// Memory.
    Memory,
}

/// What a machine wants of a place, in MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    what: String,
    place: Place,
    mib: u64,
}

/// What a place has: what is free, less what machines that run may still take of it; in MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Has {
    /// How it is called in a sentence.
    pub(crate) name: String,
    pub(crate) free: u64,
    pub(crate) claimed: u64,
    /// What there would be if all of it were free.
    pub(crate) total: u64,
}

/// All that a machine needs. Memory in a file is wanted whole: the guest may touch all of it, and finds out that
/// there is none by dying. Of the host's memory half is: a settled guest has touched a fifth, the hungriest
/// check less than half, and to ask for all would turn away machines that have always run.
pub(crate) fn needs(spec: &MachineSpec, ram_file: bool, run: &Path, ram: &Path) -> Vec<Need> {
    let name = &spec.name;
    let memory = u64::from(spec.memory_mib);
    let need = |what: &str, place, mib| Need {
        what: format!("{what} of machine `{name}`"),
        place,
        mib,
    };
    let mut needs = vec![
        need("the overlay", Place::Run(run.into()), DISKS_MIB),
        need("the log", Place::Logs(spec.log_dir.clone()), LOGS_MIB),
        need("QEMU", Place::Memory, memory / 2 + OVERHEAD_MIB),
    ];
    if ram_file {
        needs.insert(0, need("guest memory", Place::Ram(ram.into()), memory));
    }
    needs
}

/// What freezing a machine needs besides: memory without what is zero, and its disk.
pub(crate) fn needs_to_freeze(spec: &MachineSpec, store: &Path) -> Need {
    Need {
        what: format!("the snapshot of machine `{}`", spec.name),
        place: Place::Store(store.into()),
        mib: u64::from(spec.memory_mib) / 2 + FROZEN_DISKS_MIB,
    }
}

/// The sentence when a place has too little.
pub(crate) fn shortage(need: &Need, has: &Has) -> Option<String> {
    let left = has.free.saturating_sub(has.claimed);
    if left >= need.mib {
        return None;
    }
    let claimed = match has.claimed {
        0 => String::new(),
        n => format!(
            " beside the {} that running machines may still take",
            mib(n)
        ),
    };
    let remedy = match &need.place {
        Place::Ram(dir) if dir.starts_with("/dev/shm") => format!(
            "start the container with `--shm-size {gib}g`, or `mount -o remount,size={gib}g /dev/shm`, or \
             name another folder with VEXFS_RAM_DIR",
            gib = (2 * need.mib).div_ceil(1024)
        ),
        Place::Ram(_) => "name another folder with VEXFS_RAM_DIR".into(),
        Place::Run(_) => "free some, or name another folder with VEXFS_RUN_DIR".into(),
        Place::Logs(_) => "free some, or name another folder with --output-dir".into(),
        Place::Store(_) => {
            "free some (`cargo images clean`), or name another folder with VEXFS_CACHE".into()
        }
        Place::Memory => "end what else runs there, or give it more memory".into(),
    };
    Some(format!(
        "{} needs {} in {}, which has {} left{claimed}: {remedy}",
        need.what,
        mib(need.mib),
        has.name,
        mib(left),
    ))
}

/// A size with its thousands apart, as in `1,184 MiB`.
pub(crate) fn mib(size: u64) -> String {
    let digits = size.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{out} MiB")
}

impl Place {
    /// Looks; `None` when the host does not say, and then it is tried.
    fn look(&self) -> Option<Has> {
        let disk = |dir: &Path| {
            let there = dir.ancestors().find(|dir| dir.exists())?;
            Some(Has {
                name: dir.display().to_string(),
                free: room::free_mib(there).ok()?,
                claimed: 0,
                total: room::total_mib(there).ok()?,
            })
        };
        match self {
            Place::Ram(dir) => Some(Has {
                claimed: claimed(dir),
                ..disk(dir)?
            }),
            Place::Run(dir) | Place::Logs(dir) | Place::Store(dir) => disk(dir),
            Place::Memory => Memory::here().map(|memory| Has {
                name: match &memory.group {
                    Some(_) => memory.place(),
                    None => "this host's memory".into(),
                },
                free: memory.available_mib,
                claimed: 0,
                total: memory.total_mib,
            }),
        }
    }
}

/// What running machines, of anybody's, may still take of the folder with guests' memory, in MiB: their files
/// are as long as their memory, and have what was touched.
fn claimed(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("vexfs-") && name.ends_with(".ram")
    });
    // One that has just gone claims nothing.
    let claims = files.filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        Some(meta.len().saturating_sub(meta.blocks() * 512))
    });
    claims.sum::<u64>() >> 20
}

/// What is short now, and whether it could ever be enough.
fn short(needs: &[Need]) -> (Vec<String>, bool) {
    let mut hope = true;
    let mut lacks = Vec::new();
    for need in needs {
        let Some(has) = need.place.look() else {
            continue;
        };
        if let Some(lack) = shortage(need, &has) {
            hope &= has.total >= need.mib;
            lacks.push(lack);
        }
    }
    (lacks, hope)
}

/// Asks every place, waits a while for what others may give back, and says all that are short in one error.
///
/// # Errors
/// [`MachineError::NoRoom`].
pub(crate) async fn ask(name: &str, needs: &[Need]) -> Result<(), MachineError> {
    let begin = Instant::now();
    loop {
        let (lacks, hope) = short(needs);
        if lacks.is_empty() {
            return Ok(());
        }
        if !hope || begin.elapsed() >= WAIT {
            let name = name.to_owned();
            return Err(MachineError::NoRoom { name, lacks });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// As [`ask`], for a machine that boots or is restored here.
///
/// # Errors
/// [`MachineError::NoRoom`].
pub(crate) async fn ask_for(spec: &MachineSpec, ram_file: bool) -> Result<(), MachineError> {
    ask(&spec.name, &needs_here(spec, ram_file)).await
}

fn needs_here(spec: &MachineSpec, ram_file: bool) -> Vec<Need> {
    needs(spec, ram_file, &rundir::run_parent(), &rundir::ram_parent())
}

/// What is short for a machine of the usual size, for `doctor`.
pub fn lacks_for_one() -> Vec<String> {
    let spec = MachineSpec::new("one", "image", rundir::run_parent());
    short(&needs_here(&spec, true)).0
}

/// The folder with guests' memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What is free, in MiB.
    pub free_mib: u64,
    /// Its size, in MiB.
    pub total_mib: u64,
    /// Whether it is memory, and not a disk.
    pub memory: bool,
}

/// What `$VEXFS_RAM_DIR`, or else `/dev/shm`, offers; `None` when it is not there.
pub fn ram_folder() -> Option<RamFolder> {
    let path = rundir::ram_parent();
    let kind = nix::sys::statfs::statfs(&path).ok()?.filesystem_type();
    Some(RamFolder {
        free_mib: room::free_mib(&path).ok()?,
        total_mib: room::total_mib(&path).ok()?,
        memory: kind == nix::sys::statfs::TMPFS_MAGIC,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MachineSpec {
        MachineSpec::new("x", "/i", "/l")
    }

    fn has(name: &str, free: u64, claimed: u64) -> Has {
        Has {
            name: name.into(),
            free,
            claimed,
            total: free,
        }
    }

    #[test]
    fn what_is_short_is_said_with_figures_and_remedy() {
        let needs = needs(&spec(), true, "/tmp".as_ref(), "/dev/shm".as_ref());
        let names = ["/dev/shm", "/tmp", "/l", "this host's memory"];
        let short: Vec<_> = needs
            .iter()
            .zip(names)
            .filter_map(|(need, name)| shortage(need, &has(name, 63, 0)))
            .collect();
        assert_eq!(
            short,
            [
                "guest memory of machine `x` needs 1,024 MiB in /dev/shm, which has 63 MiB left: start the \
                 container with `--shm-size 2g`, or `mount -o remount,size=2g /dev/shm`, or name another \
                 folder with VEXFS_RAM_DIR",
                "the overlay of machine `x` needs 512 MiB in /tmp, which has 63 MiB left: free some, or name \
                 another folder with VEXFS_RUN_DIR",
                "the log of machine `x` needs 64 MiB in /l, which has 63 MiB left: free some, or name \
                 another folder with --output-dir",
                "QEMU of machine `x` needs 672 MiB in this host's memory, which has 63 MiB left: end what \
                 else runs there, or give it more memory",
            ]
        );
        let freeze = needs_to_freeze(&spec(), "/c".as_ref());
        assert_eq!(
            shortage(&freeze, &has("/c", 0, 0)).expect("short"),
            "the snapshot of machine `x` needs 640 MiB in /c, which has 0 MiB left: free some (`cargo images \
             clean`), or name another folder with VEXFS_CACHE"
        );
    }

    #[test]
    fn what_running_machines_may_still_take_counts() {
        let needs = needs(&spec(), true, "/tmp".as_ref(), "/ram".as_ref());
        assert_eq!(shortage(&needs[0], &has("/ram", 1024, 0)), None);
        assert_eq!(
            shortage(&needs[0], &has("/ram", 1700, 700)).expect("short"),
            "guest memory of machine `x` needs 1,024 MiB in /ram, which has 1,000 MiB left beside the 700 MiB \
             that running machines may still take: name another folder with VEXFS_RAM_DIR"
        );
        let dir = tempfile::tempdir().expect("a directory");
        for (name, mib) in [("vexfs-1.ram", 40), ("vexfs-2.ram", 2), ("other", 100)] {
            let file = std::fs::File::create(dir.path().join(name)).expect("a file");
            file.set_len(mib << 20).expect("holes");
        }
        assert_eq!(claimed(dir.path()), 42);
        std::fs::write(dir.path().join("vexfs-2.ram"), vec![1; 2 << 20]).expect("touched");
        assert_eq!(claimed(dir.path()), 40);
        assert_eq!(claimed("/nowhere".as_ref()), 0);
    }

    #[tokio::test]
    async fn a_place_that_has_nothing_is_found() {
        // proc(5) is a file system of no blocks.
        let needs = needs(&spec(), true, "/tmp".as_ref(), "/proc".as_ref());
        let begin = Instant::now();
        let error = ask("x", &needs[..1])
            .await
            .expect_err("no room")
            .to_string();
        assert!(begin.elapsed() < WAIT, "what never comes is not waited for");
        assert!(
            error.starts_with("guest memory of machine `x` needs 1,024 MiB in /proc"),
            "{error}"
        );
        let nobody_knows = Place::Logs("/proc/self/nothing".into());
        assert_eq!(nobody_knows.look().expect("its parent's").free, 0);
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(mib),
            ["0 MiB", "999 MiB", "1,000 MiB", "1,234,567 MiB"]
        );
    }
}
