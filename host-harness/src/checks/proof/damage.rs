//! Damage: file systems with changed metadata that the kernel must bear, and planted damage that fsck
//! must find and mend.

use kernel_log::{Expected, Matcher};
use results::Outcome;

use crate::lab::{Failure, Guest, Lab, SCRATCH};

/// Size of the file systems that are damaged: small, because each is written anew.
const SIZE: &str = "8M";
/// Images tried by one call, so that a report says roughly how far it came.
const BATCH: u64 = 100;
/// A sound file system, clean, in the guest.
const CLEAN: &str = "/run/proof-clean";
/// The same after a power cut: its journal is to be replayed.
const DIRTY: &str = "/run/proof-dirty";
/// The disk that is damaged and repaired, in the guest.
const DISK: &str = "/run/proof-disk";

/// What a kernel may say of damaged file systems: that they are damaged.
pub const DAMAGED: &[Expected] = &[allowed("vexfs_error"), allowed("vexfs_level")];

const fn allowed(rule: &'static str) -> Expected {
    Expected {
        what: Matcher::rule(rule),
        must: false,
        why: "the file systems are damaged, and the module says so",
    }
}

/// Makes both with the kernel's help, on a device.
async fn sound_images(
    lab: &Lab,
    guest: &Guest,
    program: &str,
    device: &str,
) -> Result<(), Failure> {
    let source = lab.source();
    let (mkfs, dir) = (source.mkfs.join(" "), format!("/mnt/{}", source.fstype));
    let mount = source.mount_command(device, &dir);
    let take = format!("dd if={device} bs=1M count=8 iflag=direct status=none");
    // What is made and removed at last leaves revoked blocks in the journal.
    guest
        .sh(&format!(
            "{mkfs} {device} {SIZE}; mkdir -p {dir}
             {mount}; {program} populate {dir}; umount {dir}; {take} of={CLEAN}
             {mount}; {program} populate {dir}/more; rm -r {dir}/more/many {dir}/d/e; sync {dir}/more
             {take} of={DIRTY}; umount {dir}"
        ))
        .await
        .map(drop)
}

/// Mounts, walks, changes and unmounts file systems whose metadata has changed bytes.
pub async fn metadata_fuzz(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let images = lab.count("metadata_fuzz")?;
    let program = guest.tool(lab, "vexfs-proof").await?;
    sound_images(lab, &guest, &program, SCRATCH).await?;
    let fstype = lab.source().fstype.clone();
    let seed = lab.seed();
    // The number of each goes into the kernel log, beside what the kernel says of it.
    guest
        .sh("echo on > /proc/sys/kernel/printk_devkmsg")
        .await?;
    lab.point("images", &guest).await?;
    let mut tried = [0; 4];
    for from in (0..images).step_by(BATCH as usize) {
        let count = BATCH.min(images - from);
        let script = format!(
            "{program} fuzz {SCRATCH} /mnt/{fstype} --fstype {fstype} --clean {CLEAN} \
             --dirty {DIRTY} --seed {seed} --from {from} --count {count}"
        );
        let output = guest.exec(["/bin/sh", "-euc", &script]).await?;
        let said = output.stdout_text();
        let last = said.lines().last().unwrap_or_default();
        if !output.success() {
            let title = format!("damaged image (seed {seed}): {last}");
            let said = format!("{said}{}", output.stderr_text());
            return Err(Failure::check("fuzz", title, said));
        }
        for (sum, number) in tried.iter_mut().zip(numbers(last)) {
            *sum += number;
        }
        lab.point("batch", &guest).await?;
    }
    let [all, mounted, operations, errors] = tried;
    lab.fact("images", format!("{all}, {mounted} mounted"));
    lab.fact("operations", format!("{operations}, {errors} errors"));
    // Nothing mounts, or nothing is wrong: then the damage is of the wrong kind.
    if all != images || mounted * 10 < all || errors == 0 {
        let title = format!("the damage tries too little: of {all} images {mounted} mount");
        return Err(Failure::check("fuzz", title, format!("{tried:?}")));
    }
    Ok(())
}

/// The numbers in a line.
fn numbers(line: &str) -> impl Iterator<Item = u64> + '_ {
    line.split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
}

/// Each kind of planted damage is found by its name, mended, and then gone.
pub async fn fsck_damage(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let wanted = lab.count("fsck_damage")?;
    let program = guest.tool(lab, "vexfs-proof").await?;
    // A device of just that size: the spare superblock is looked for at its end.
    let device = guest
        .sh(&format!(
            "truncate -s {SIZE} {DISK}; losetup --find --show {DISK}"
        ))
        .await?;
    let device = device.trim();
    sound_images(lab, &guest, &program, device).await?;
    let list = guest.sh(&format!("{program} plant {device}")).await?;
    let mut kinds: Vec<(u64, &str)> = list
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(number, kind)| Some((number.parse().ok()?, kind)))
        .collect();
    fastrand::Rng::with_seed(lab.seed()).shuffle(&mut kinds);
    kinds.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
    if (kinds.len() as u64) < wanted {
        let title = format!("there are {} kinds of damage, not {wanted}", kinds.len());
        return Err(Failure::check("fsck", title, list.clone()));
    }
    kinds.sort_unstable();
    lab.point("planting", &guest).await?;
    let control = lab.source().control.clone();
    let mount = lab
        .source()
        .mount_command(device, &format!("/mnt/{}", lab.source().fstype));
    for (number, kind) in kinds {
        let script = format!(
            "dd if={CLEAN} of={device} bs=1M oflag=direct conv=notrunc status=none
             {program} plant {device} {number}
             fsck() {{ code=0; {control} fsck $1 {device} || code=$?; echo \"exit code $code\"; }}
             fsck -n; fsck -y; fsck -n
             {mount}; dir=/mnt/{fstype}
             find $dir -xdev -type f -exec cat {{}} + > /dev/null
             mkdir $dir/after; echo new > $dir/after/file
             umount $dir; fsck -n",
            fstype = lab.source().fstype
        );
        let output = guest.exec(["/bin/sh", "-euc", &script]).await?;
        let said = format!("{}{}", output.stdout_text(), output.stderr_text());
        let outcome = match judge(kind, &output.stdout_text()) {
            Some(wrong) => Outcome::fail("fsck", wrong, said),
            None if output.success() => Outcome::Pass,
            None => {
                let title = format!("after the repair it {}", output.ending());
                Outcome::fail("fsck", title, said)
            }
        };
        lab.part(format!("{number}-{kind}"), outcome);
    }
    guest
        .sh(&format!("losetup --detach {device}"))
        .await
        .map(drop)
}

/// What is wrong with what four runs of fsck said: look, repair, look, and look after use.
fn judge(kind: &str, said: &str) -> Option<String> {
    let runs: Vec<(&str, &str)> = said
        .split_inclusive("exit code ")
        .zip(said.split("exit code ").skip(1))
        .map(|(said, code)| (said, code.lines().next().unwrap_or_default()))
        .collect();
    let [(look, found), (repair, repaired), rest @ ..] = &runs[..] else {
        return Some("fsck did not run".into());
    };
    let finding = |line: &&str| line.contains(&format!(": {kind}: "));
    if look.lines().find(finding).is_none() || *found != "4" {
        return Some(format!("fsck does not find it, exit code {found}"));
    }
    if repair.lines().find(finding).is_none() || *repaired != "1" {
        return Some(format!("fsck does not repair it, exit code {repaired}"));
    }
    match rest {
        [(_, "0"), (_, "0")] => None,
        [(_, "0")] => Some("what was repaired does not mount and work".into()),
        [(_, "0"), (_, code)] => Some(format!("after some use fsck exits with code {code}")),
        _ => Some("a second fsck is not content".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_a_summary() {
        let line = "100 images, 63 mounted, 1200 operations, 40 errors";
        assert_eq!(numbers(line).collect::<Vec<_>>(), [100, 63, 1200, 40]);
    }

    #[test]
    fn what_fsck_says_is_judged() {
        let runs = |kind: &str, codes: [u8; 4]| {
            let [look, repair, again, used] = codes;
            format!(
                "/dev/x: {kind}: is bad\n/dev/x: 1 found\nexit code {look}\n\
                 /dev/x: {kind}: is bad: repaired\n/dev/x: 1 repaired\nexit code {repair}\n\
                 /dev/x: sound\nexit code {again}\n/dev/x: sound\nexit code {used}\n"
            )
        };
        assert_eq!(judge("inode", &runs("inode", [4, 1, 0, 0])), None);
        for (said, wrong) in [
            (runs("block-map", [4, 1, 0, 0]), "does not find it"),
            (runs("inode", [0, 1, 0, 0]), "does not find it"),
            (runs("inode", [4, 4, 0, 0]), "does not repair it"),
            (runs("inode", [4, 1, 1, 0]), "second fsck"),
            (runs("inode", [4, 1, 0, 4]), "after some use"),
            (String::new(), "did not run"),
        ] {
            let judged = judge("inode", &said).unwrap_or_default();
            assert!(judged.contains(wrong), "{judged}");
        }
    }
}
