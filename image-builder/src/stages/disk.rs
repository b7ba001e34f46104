//! The bootable disk: partition table, boot loaders for BIOS and UEFI, and root file system in one
//! sparse raw file.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use image::sparse;
use keeper::Kept;

use crate::BuildError;
use crate::run::Site;
use crate::stages::base;
use crate::stages::grub;
use crate::store::key::Inputs;
use crate::store::{Entry, Stage};

/// Name of the stage.
pub(crate) const STAGE: &str = "disk";
/// The disk's file in the entry. It is raw but not called so: a file of the same extension as the
/// format it makes Packer copies with every hole written out, any other it has qemu-img convert.
pub(crate) const DISK: &str = "disk.img";
/// GRUB's parts for BIOS machines (package grub-pc-bin).
const GRUB: &str = "/usr/lib/grub/i386-pc";
/// Same for UEFI machines (package grub-efi-amd64-bin).
const GRUB_EFI: &str = "/usr/lib/grub/x86_64-efi";
/// Where a firmware looks that has no boot entry for the disk (UEFI specification, 3.5.1.1).
const EFI_PATH: &str = "EFI/BOOT/BOOTX64.EFI";
/// Time of what is on the EFI system partition: the same for everybody.
const EFI_TIME: u64 = 1_700_000_000;
const MIB: u64 = 1 << 20;

/// One partition of every image's disk.
struct Partition {
    /// sgdisk(8) type code.
    code: &'static str,
    label: &'static str,
    start_mib: u64,
    /// `None`: to the end of the disk.
    end_mib: Option<u64>,
}

/// 1 MiB apart from each other, as every cloud wants it. The root comes last so that it can grow.
const PARTITIONS: [Partition; 3] = [
    Partition {
        code: "EF02", // BIOS boot: core.img
        label: "bios",
        start_mib: 1,
        end_mib: Some(2),
    },
    Partition {
        code: "EF00", // EFI system partition: the same disk boots under UEFI
        label: "efi",
        start_mib: 2,
        end_mib: Some(66),
    },
    Partition {
        code: "8304", // root, x86-64: found by systemd-repart
        label: "root",
        start_mib: 66,
        end_mib: None,
    },
];
/// Left free behind the last partition, for the second partition table.
const TAIL_MIB: u64 = 1;

/// What it is made from besides the base.
pub(crate) fn inputs(bytes: u64) -> Inputs {
    Inputs::default()
        .with("disk size", bytes.to_string())
        .with("file", DISK)
        .with("time of resizing", "the base's")
        .with("layout", layout(bytes).join(" "))
        .with("grub modules", grub::MODULES.join(" "))
        .with("grub modules, UEFI", grub::MODULES_EFI.join(" "))
        .with("EFI program", format!("{EFI_PATH} {EFI_TIME}"))
}

/// Makes it; the entry has [`DISK`].
pub(crate) async fn make(
    site: &Site<'_>,
    stage: &Stage,
    base: &Entry,
    bytes: u64,
) -> Result<Entry, BuildError> {
    let base_key = base.record.key.clone();
    site.stage(stage, async |result| {
        let work = site.scratch(STAGE)?;
        let disk = result.join(DISK);
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&disk)
            .and_then(|file| file.set_len(bytes).map(|()| file))
            .map_err(BuildError::io("make", &disk))?;
        let table = Site::program("sgdisk")
            .args(["--disk-guid", &base::uuid(&base_key, "disk")])
            .args(layout(bytes))
            .args((1..=PARTITIONS.len()).flat_map(|n| {
                let guid = base::uuid(&base_key, &format!("partition {n}"));
                ["--partition-guid".to_owned(), format!("{n}:{guid}")]
            }))
            .arg(&disk);
        site.step(STAGE, table).await?;
        let root_uuid = base::uuid(&base_key, "root");
        let early = work.path().join("early.cfg");
        fs::write(&early, grub::early_config(&root_uuid))
            .map_err(BuildError::io("write", &early))?;
        boot_loader(site, work.path(), &file, &early).await?;
        let efi = efi_partition(site, work.path(), &early, &base_key).await?;
        File::open(&efi)
            .and_then(|efi| sparse::copy(&efi, &file, PARTITIONS[1].start_mib * MIB))
            .map_err(BuildError::io("write", &disk))?;
        let root = work.path().join("root.ext4");
        root_file_system(site, base, &root, root_bytes(bytes)).await?;
        let start = PARTITIONS[2].start_mib * MIB;
        File::open(&root)
            .and_then(|root| sparse::copy(&root, &file, start))
            .map_err(BuildError::io("write", &disk))
    })
    .await
}

/// sgdisk arguments for a disk of that size.
fn layout(bytes: u64) -> Vec<String> {
    let sectors = |mib: u64| mib * MIB / grub::SECTOR as u64;
    let mut arguments = Vec::new();
    for (n, partition) in PARTITIONS.iter().enumerate() {
        let n = n + 1;
        let end_mib = partition.end_mib.unwrap_or(bytes / MIB - TAIL_MIB);
        let (start, end) = (sectors(partition.start_mib), sectors(end_mib) - 1);
        arguments.push(format!("--new={n}:{start}:{end}"));
        arguments.push(format!("--typecode={n}:{}", partition.code));
        arguments.push(format!("--change-name={n}:{}", partition.label));
    }
    arguments
}

/// The size of the root partition of a disk of that size.
fn root_bytes(bytes: u64) -> u64 {
    (bytes / MIB - TAIL_MIB - PARTITIONS[2].start_mib) * MIB
}

async fn boot_loader(
    site: &Site<'_>,
    work: &Path,
    disk: &File,
    early: &Path,
) -> Result<(), BuildError> {
    let core = work.join("core.img");
    let command = mkimage("i386-pc", GRUB, early, &core)
        .arg("--compression=xz")
        .args(grub::MODULES.iter().copied());
    site.step(STAGE, command).await?;
    let read = |path: &Path| fs::read(path).map_err(BuildError::io("read", path));
    let boot = Path::new(GRUB).join("boot.img");
    let io = |doing| BuildError::io(doing, DISK);
    let mut first_sector = [0; grub::SECTOR];
    disk.read_exact_at(&mut first_sector, 0)
        .map_err(io("read"))?;
    let partition = &PARTITIONS[0];
    let room = (partition.end_mib.unwrap_or(0) - partition.start_mib) * MIB;
    let at = partition.start_mib * MIB;
    let (sector, core) = grub::embed(
        &read(&boot)?,
        &read(&core)?,
        &first_sector,
        at / grub::SECTOR as u64,
        room as usize,
    )
    .map_err(|said| BuildError::DataFile {
        path: GRUB.into(),
        said: format!(" {said}"),
    })?;
    disk.write_all_at(&sector, 0)
        .and_then(|()| disk.write_all_at(&core, at))
        .map_err(io("write"))
}

/// grub-mkimage(1), but for the modules.
fn mkimage(format: &str, directory: &str, early: &Path, to: &Path) -> Kept {
    Site::program("grub-mkimage")
        .args([&format!("--format={format}"), "--prefix=/boot/grub"])
        .arg(format!("--directory={directory}"))
        .arg(format!("--config={}", early.display()))
        .arg(format!("--output={}", to.display()))
}

/// The EFI system partition, as a file: GRUB, which then does what it does on a BIOS machine.
async fn efi_partition(
    site: &Site<'_>,
    work: &Path,
    early: &Path,
    base_key: &str,
) -> Result<PathBuf, BuildError> {
    let program = work.join("grub.efi");
    let command =
        mkimage("x86_64-efi", GRUB_EFI, early, &program).args(grub::MODULES_EFI.iter().copied());
    site.step(STAGE, command).await?;
    let partition = &PARTITIONS[1];
    let bytes = (partition.end_mib.unwrap_or(0) - partition.start_mib) * MIB;
    let file = work.join("efi.img");
    File::create_new(&file)
        .and_then(|file| file.set_len(bytes))
        .map_err(BuildError::io("make", &file))?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(EFI_TIME);
    File::options()
        .append(true)
        .open(&program)
        .and_then(|program| program.set_modified(time))
        .map_err(BuildError::io("change", &program))?;
    let serial = base::uuid(base_key, "efi");
    let mkfs = Site::program("mkfs.vfat")
        .args([
            "--invariant",
            "-F",
            "32",
            "-s",
            "1",
            "-n",
            "EFI",
            "-i",
            &serial[..8],
        ])
        .arg(&file);
    site.step(STAGE, mkfs).await?;
    let folders = Path::new(EFI_PATH).ancestors().skip(1);
    let mut folders: Vec<_> = folders.filter(|path| *path != Path::new("")).collect();
    folders.reverse();
    let inside = |path: &Path| format!("::/{}", path.display());
    // mtools(1): the clock of everything it makes, and times in UTC.
    let mtools = |name: &str| {
        Site::program(name)
            .env("SOURCE_DATE_EPOCH", EFI_TIME.to_string())
            .env("TZ", "UTC")
            .arg("-i")
            .arg(&file)
    };
    site.step(STAGE, mtools("mmd").args(folders.into_iter().map(inside)))
        .await?;
    let copy = mtools("mcopy")
        .arg("-m")
        .arg(&program)
        .arg(inside(Path::new(EFI_PATH)));
    site.step(STAGE, copy).await?;
    Ok(file)
}

/// A copy of the base's root file system, fitted to the partition.
async fn root_file_system(
    site: &Site<'_>,
    base: &Entry,
    root: &Path,
    bytes: u64,
) -> Result<(), BuildError> {
    let epoch = base::contents(base)?.epoch;
    let base = &base.dir.join(base::ROOT);
    let from = File::open(base).map_err(BuildError::io("open", base))?;
    let to = File::create(root).map_err(BuildError::io("make", root))?;
    let base_bytes = from.metadata().map_err(BuildError::io("read", base))?.len();
    to.set_len(base_bytes.max(bytes))
        .and_then(|()| sparse::copy(&from, &to, 0))
        .map_err(BuildError::io("write", root))?;
    let command = Site::program("resize2fs")
        .arg(root)
        .arg(format!("{}K", bytes / 1024))
        // It writes down when; see the base.
        .env("E2FSPROGS_FAKE_TIME", epoch.to_string());
    site.step(STAGE, command).await?;
    to.set_len(bytes).map_err(BuildError::io("cut", root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_each_other_and_end_before_the_second_table() {
        assert_eq!(
            layout(8 << 30),
            [
                "--new=1:2048:4095",
                "--typecode=1:EF02",
                "--change-name=1:bios",
                "--new=2:4096:135167",
                "--typecode=2:EF00",
                "--change-name=2:efi",
                "--new=3:135168:16775167",
                "--typecode=3:8304",
                "--change-name=3:root",
            ]
        );
        assert_eq!(root_bytes(8 << 30), (16775167 - 135168 + 1) * 512);
    }
}
