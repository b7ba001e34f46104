//! GRUB for BIOS machines, put into a raw disk file without a loop device.
//!
//! grub-bios-setup(8) wants block devices. What it does for a GPT disk with a BIOS boot partition is
//! small: boot.img goes into the first sector, core.img into the partition, and each is told where
//! the next one lies. The offsets are those of GRUB's `include/grub/i386/pc/boot.h` and `diskboot.S`.

/// Bytes in a sector.
pub(crate) const SECTOR: usize = 512;
/// boot.img: 8-byte little-endian sector number of core.img (`GRUB_BOOT_MACHINE_KERNEL_SECTOR`).
const KERNEL_SECTOR: usize = 0x5c;
/// boot.img: a jump that is replaced by two NOPs so that the drive number the BIOS gives is checked
/// (`GRUB_BOOT_MACHINE_DRIVE_CHECK`); grub-bios-setup does the same for hard disks.
const DRIVE_CHECK: usize = 0x66;
/// The part of the first sector that belongs to the disk, not to the boot loader: signature and
/// (protective) partition table.
const DISK_OWN: std::ops::Range<usize> = 0x1b8..0x1fe;
/// core.img's first sector ends with its block list: start (8 bytes), length in sectors (2),
/// segment (2).
const BLOCKLIST_START: usize = SECTOR - 12;
const BLOCKLIST_LENGTH: usize = SECTOR - 4;

/// Modules core.img needs to reach and read `grub.cfg` and to boot Linux by it, over a serial
/// console too.
pub(crate) const MODULES: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "ext2",
    "search_fs_uuid",
    "normal",
    "linux",
    "serial",
    "terminal",
    "configfile",
    "smbios",
    "test",
];

/// Same for the program on the EFI system partition. Firmware reads the disk and shows the console;
/// `efi_gop` lets the kernel have a picture where there is a graphics card.
pub(crate) const MODULES_EFI: &[&str] = &[
    "part_gpt",
    "ext2",
    "search_fs_uuid",
    "normal",
    "linux",
    "serial",
    "terminal",
    "configfile",
    "smbios",
    "test",
    "efi_gop",
];

/// What core.img does first: find the root file system, wherever the disk ended up.
pub(crate) fn early_config(root_uuid: &str) -> String {
    format!("search.fs_uuid {root_uuid} root\nset prefix=($root)/boot/grub\n")
}

/// The patched first sector and core.img, ready to be written to sector 0 and to `core_sector`.
///
/// # Errors
/// A sentence when the files are not what this was written for.
pub(crate) fn embed(
    boot: &[u8],
    core: &[u8],
    first_sector: &[u8],
    core_sector: u64,
    core_room: usize,
) -> Result<(Vec<u8>, Vec<u8>), String> {
    if boot.len() != SECTOR || boot[SECTOR - 2..] != [0x55, 0xaa] {
        return Err(format!("boot.img is no boot sector ({} bytes)", boot.len()));
    }
    if first_sector.len() != SECTOR {
        return Err("the disk has no first sector".into());
    }
    if core.len() <= SECTOR || core.len() > core_room {
        return Err(format!(
            "core.img has {} bytes, the BIOS boot partition has room for {core_room}",
            core.len()
        ));
    }
    let after_first = core.len().div_ceil(SECTOR) - 1;
    let says = u16::from_le_bytes([core[BLOCKLIST_LENGTH], core[BLOCKLIST_LENGTH + 1]]);
    if usize::from(says) != after_first {
        return Err(format!(
            "core.img says it has {says} sectors after its first, but has {after_first}"
        ));
    }
    let mut boot = boot.to_vec();
    boot[DISK_OWN].copy_from_slice(&first_sector[DISK_OWN]);
    boot[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_sector.to_le_bytes());
    boot[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    let mut core = core.to_vec();
    core[BLOCKLIST_START..BLOCKLIST_START + 8].copy_from_slice(&(core_sector + 1).to_le_bytes());
    Ok((boot, core))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let mut boot = vec![0x11; SECTOR];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut core = vec![0x22; 3 * SECTOR - 7];
        core[BLOCKLIST_LENGTH..BLOCKLIST_LENGTH + 4].copy_from_slice(&[2, 0, 0x20, 0x08]);
        let mut first = vec![0; SECTOR];
        first[DISK_OWN].fill(0x33);
        (boot, core, first)
    }

    #[test]
    fn each_part_learns_where_the_next_one_is() {
        let (boot, core, first) = images();
        let (b, c) = embed(&boot, &core, &first, 2048, 1 << 20).expect("it fits");
        assert_eq!(b[0x5c..0x64], [0, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(b[0x66..0x68], [0x90, 0x90]);
        assert!(b[DISK_OWN].iter().all(|byte| *byte == 0x33));
        assert_eq!(b[510..], [0x55, 0xaa]);
        assert_eq!(c[500..508], [1, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(c[508..512], [2, 0, 0x20, 0x08]);
        let changed = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a != b).count();
        assert_eq!(changed(&b, &boot), 8 + 2 + DISK_OWN.len());
        assert_eq!(changed(&c, &core), 8);
    }

    #[test]
    fn what_it_does_not_know_it_refuses() {
        let (boot, core, first) = images();
        let embed = |boot: &[u8], core: &[u8], room| embed(boot, core, &first, 2048, room);
        assert!(embed(&boot[..100], &core, 1 << 20).is_err());
        assert!(embed(&boot, &core, SECTOR).is_err());
        assert!(embed(&boot, &core[..SECTOR + 1], 1 << 20).is_err());
        let mut no_signature = boot.clone();
        no_signature[511] = 0;
        assert!(embed(&no_signature, &core, 1 << 20).is_err());
    }
}
