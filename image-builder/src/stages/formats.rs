//! The forms made on request, from the finished disk: qemu-img(1), tar(1) and gzip(1) write them, and
//! what those would invent anew each time (ids, times) is set to what follows from the image's key.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use image::Format;

use crate::BuildError;
use crate::run::Site;
use crate::stages::form::From;
use crate::stages::oci;
use crate::store::key;

/// Beginning of a Unix time in a VHD: 2000-01-01 (Virtual Hard Disk Image Format Specification).
const VHD_EPOCH: u64 = 946_684_800;
/// The VHD's footer.
const FOOTER: usize = 512;
/// How much of a VMDK has its descriptor: qemu writes it to sectors 1 to 20.
const DESCRIPTOR: usize = 21 * 512;
/// The disk's name in the archive for Google's cloud: it has to be this.
const GCP_DISK: &str = "disk.raw";

/// Writes the form to `to`, which must not be there yet.
pub(crate) async fn make(
    site: &Site<'_>,
    stage: &'static str,
    format: Format,
    from: From<'_>,
    to: &Path,
) -> Result<(), BuildError> {
    match format {
        Format::Qcow2 => Ok(()),
        Format::Raw => convert(site, stage, from.disk, &["raw"], to).await,
        Format::Vmdk => {
            let options = "adapter_type=lsilogic,subformat=streamOptimized";
            convert(site, stage, from.disk, &["vmdk", "-o", options], to).await?;
            change(to, |file| stamp_vmdk(file, from.key))
        }
        Format::Vhd => {
            // force_size: exactly the disk's size, not one rounded to cylinders.
            let options = "subformat=fixed,force_size=on";
            convert(site, stage, from.disk, &["vpc", "-o", options], to).await?;
            change(to, |file| stamp_vhd(file, from.key, from.epoch))
        }
        Format::Gcp => {
            let work = site.scratch(stage)?;
            let disk = work.path().join(GCP_DISK);
            convert(site, stage, from.disk, &["raw"], &disk).await?;
            let tar = Site::program("tar")
                .arg("--create")
                .arg(format!("--file={}", to.display()))
                .arg(format!("--directory={}", work.path().display()))
                .args(["--format=oldgnu", "--sparse", "--owner=0", "--group=0"])
                // By content: where the file system has its holes is its own affair.
                .args(["--hole-detection=raw", "--numeric-owner", "--mode=0644"])
                .arg(format!("--mtime=@{}", from.epoch))
                .args(["--use-compress-program=gzip -n -6", GCP_DISK]);
            site.step(stage, tar).await
        }
        Format::Oci => oci::write(site, stage, from, to).await,
    }
}

/// qemu-img(1) convert: the format with its options, one write after the other so that the same disk
/// gives the same file.
async fn convert(
    site: &Site<'_>,
    stage: &str,
    disk: &Path,
    format: &[&str],
    to: &Path,
) -> Result<(), BuildError> {
    let command = Site::program("qemu-img")
        .args(["convert", "-m", "1", "-f", "qcow2", "-O"])
        .args(format.iter().copied())
        .args([disk, to]);
    site.step(stage, command).await
}

fn change(path: &Path, change: impl FnOnce(&File) -> io::Result<()>) -> Result<(), BuildError> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .and_then(|file| change(&file))
        .map_err(BuildError::io("change", path))
}

/// Sets a VMDK's content id, which qemu draws by lot (VMware Virtual Disk Format 1.1). It writes one of fewer
/// than eight digits as it is: what follows moves.
fn stamp_vmdk(file: &File, key: &str) -> io::Result<()> {
    let mut bytes = vec![0; DESCRIPTOR];
    file.read_exact_at(&mut bytes, 0)?;
    let mark = b"\nCID=";
    let missing = || io::Error::other("qemu-img wrote a VMDK without content id");
    let at = bytes.windows(mark.len()).position(|part| part == mark);
    let at = at.ok_or_else(missing)? + mark.len();
    let find = |byte: u8| bytes[at..].iter().position(|b| *b == byte).map(|n| at + n);
    let (line, text) = find(b'\n').zip(find(0)).ok_or_else(missing)?;
    let id = &key::digest(format!("vmdk {key}"))[..8];
    let stamped = [id.as_bytes(), &bytes[line..text]].concat();
    let room = bytes.get(text..at + stamped.len()).unwrap_or(&[1]);
    if room.iter().any(|byte| *byte != 0) {
        return Err(io::Error::other("a VMDK's descriptor has no room"));
    }
    file.write_all_at(&stamped, at as u64)
}

/// Sets a VHD's time and id, and its checksum, in the footer that is all a fixed VHD has beside the
/// disk's bytes.
fn stamp_vhd(file: &File, key: &str, epoch: u64) -> io::Result<()> {
    let at = file.metadata()?.len().saturating_sub(FOOTER as u64);
    let mut footer = [0; FOOTER];
    file.read_exact_at(&mut footer, at)?;
    if !footer.starts_with(b"conectix") {
        return Err(io::Error::other("qemu-img wrote a VHD without footer"));
    }
    let time = u32::try_from(epoch.saturating_sub(VHD_EPOCH)).unwrap_or(u32::MAX);
    footer[24..28].copy_from_slice(&time.to_be_bytes());
    let id = hex::decode(key::digest(format!("vhd {key}"))).map_err(io::Error::other)?;
    footer[68..84].copy_from_slice(&id[..16]);
    footer[64..68].fill(0);
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    file.write_all_at(&footer, at)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_vhds_footer_gets_time_id_and_a_checksum_that_holds() {
        let mut file = tempfile::tempfile().expect("a file");
        let mut footer = [7; FOOTER];
        footer[..8].copy_from_slice(b"conectix");
        file.write_all(&[0; 1024]).expect("a disk");
        file.write_all(&footer).expect("a footer");
        stamp_vhd(&file, "key", VHD_EPOCH + 9).expect("stamped");
        file.read_exact_at(&mut footer, 1024).expect("a footer");
        assert_eq!(footer[24..28], [0, 0, 0, 9]);
        let said = u32::from_be_bytes([footer[64], footer[65], footer[66], footer[67]]);
        footer[64..68].fill(0);
        assert_eq!(said, !footer.iter().map(|b| u32::from(*b)).sum::<u32>());
        let other = tempfile::tempfile().expect("a file");
        other.set_len(DESCRIPTOR as u64).expect("a length");
        assert!(stamp_vhd(&other, "key", 0).is_err());
        assert!(stamp_vmdk(&other, "key").is_err());
    }

    #[test]
    fn a_vmdks_id_has_eight_digits_whatever_qemu_drew() {
        let stamped = |id: &str| {
            let file = tempfile::tempfile().expect("a file");
            let text = format!("# Disk DescriptorFile\nCID={id}\nparentCID=ffffffff\n");
            file.write_all_at(text.as_bytes(), 512)
                .expect("a descriptor");
            file.set_len(DESCRIPTOR as u64).expect("a length");
            stamp_vmdk(&file, "key").expect("stamped");
            let mut bytes = vec![0; DESCRIPTOR];
            file.read_exact_at(&mut bytes, 0).expect("a descriptor");
            bytes
        };
        let eight = stamped("89abcdef");
        assert_eq!(stamped("9abcdef"), eight);
        assert_eq!(stamped("f"), eight);
        let text = String::from_utf8_lossy(&eight).into_owned();
        assert!(text.contains("\nparentCID=ffffffff\n\0"), "{text:?}");
        let full = tempfile::tempfile().expect("a file");
        let text = format!("\nCID=f\n{}\0", "x".repeat(DESCRIPTOR - 8));
        full.write_all_at(text.as_bytes(), 0).expect("a descriptor");
        assert!(stamp_vmdk(&full, "key").is_err());
    }
}
