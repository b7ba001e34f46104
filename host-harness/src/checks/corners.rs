//! The corners of a file system: answers to system calls that hardly anybody makes, options nobody
//! has, the mount's own controls, and damage.

use kernel_log::{Expected, Matcher};

use crate::lab::{Failure, Guest, Lab, SCRATCH};

/// Asks by system call, in the guest's own perl: what is asked stands in the script.
const CORNERS: &str = include_str!("corners.pl");

/// What the kernel says of options it does not take.
pub const REFUSED: &[Expected] = &[
    Expected {
        what: Matcher::rule("vexfs_level"),
        must: true,
        why: "options that make no sense are refused with a word",
    },
    Expected {
        what: Matcher::title_start("vexfs: Bad value for 'errors'"),
        must: true,
        why: "errors=perhaps is refused",
    },
];
/// What it says of damage, and of the journal it then gives up.
pub const DAMAGED: &[Expected] = &[
    Expected {
        what: Matcher::rule("vexfs_error"),
        must: true,
        why: "the check damages a directory",
    },
    Expected {
        what: Matcher::rule("vexfs_level"),
        must: false,
        why: "the check damages a directory",
    },
    Expected {
        what: Matcher::rule("journal_abort"),
        must: false,
        why: "errors=remount-ro ends the journal",
    },
];

/// What it says, as its last words, where damage is to panic it.
const PANICKED: &[Expected] = &[
    Expected {
        what: Matcher::title_start("kernel panic: vexfs (vdc): mounted with errors=panic"),
        must: true,
        why: "the check damages a directory of a mount with errors=panic",
    },
    Expected {
        what: Matcher::rule("vexfs_error"),
        must: false,
        why: "the check damages a directory",
    },
    Expected {
        what: Matcher::rule("vexfs_level"),
        must: false,
        why: "the check damages a directory",
    },
];

/// Fails with what a script has printed, a line for each thing that is wrong.
fn none_wrong(topic: &'static str, title: &str, said: &str) -> Result<(), Failure> {
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("asked "))
        .collect();
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(Failure::check(
            topic,
            format!("{title}: {first}"),
            wrong.join("\n"),
        )),
    }
}

/// Rename flags, long names, ends of files, holes, attributes, times, nodes, handles, vectors.
pub async fn posix(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    lab.point("mounted", &guest).await?;
    let asked = guest
        .exec(["perl", "-e", CORNERS, "--", mount.path()])
        .await?;
    let said = format!("{}{}", asked.stdout_text(), asked.stderr_text());
    none_wrong("corners", "a system call ends otherwise", &said)?;
    // Without its last line the script did not come to its end.
    if !said.lines().any(|line| line.starts_with("asked ")) {
        return Err(Failure::check(
            "corners",
            "the questions were not all asked",
            said,
        ));
    }
    // What was set is on the disk: times beyond 32 bits, nodes, and the number of a device.
    let listing = format!(
        "cd {}; stat --format '%n %F %t:%T %y' at* device fifo socket; readlink link4095 | wc -c",
        mount.path()
    );
    let before = guest.sh(&listing).await?;
    mount.unmount(&guest).await?;
    let mount = guest.mount_again(lab).await?;
    let after = guest.sh(&listing).await?;
    if before != after {
        return Err(Failure::check(
            "corners",
            "a remount changes what was set",
            format!("{before}{after}"),
        ));
    }
    mount.unmount(&guest).await
}

/// Mount options, remounts, a freeze, and what /sys tells.
pub async fn mount(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let disk = guest.fresh_disk(lab).await?;
    let source = lab.source().clone();
    let (fstype, fsck) = (&source.fstype, source.fsck.join(" "));
    let dir = format!("/mnt/{fstype}");
    lab.point("made", &guest).await?;
    let said = guest
        .sh(&format!(
            "mkdir -p {dir}
             for wrong in nonsense vector_cache=much vector_cache=65G errors=perhaps; do
               ! mount -t {fstype} -o $wrong {disk} {dir} 2>/dev/null || {{ echo \"the option $wrong is accepted\"; umount {dir}; }}
             done
             mount -t {fstype} -o errors=continue,vector_cache=off {disk} {dir}
             shown() {{ findmnt --noheadings --output OPTIONS {dir}; }}
             case $(shown) in *errors=continue,vector_cache=off*) ;; *) echo \"the options are shown as $(shown)\" ;; esac
             ! mount -o remount,nonsense {dir} 2>/dev/null || echo 'a remount accepts an unknown option'
             mount -o remount,vector_cache=32M {dir}
             case $(shown) in *errors=continue,vector_cache=32768K*) ;; *) echo \"a remount leaves $(shown)\" ;; esac

             echo kept > {dir}/file
             mount -o remount,ro {dir}
             ! echo lost 2>/dev/null > {dir}/file || echo 'a file is written on a read-only mount'
             grep -qx kept {dir}/file || echo 'a read-only remount loses what was written'
             mount -o remount,rw {dir}
             echo more >> {dir}/file || echo 'nothing is written after a remount for writing'

             fsfreeze --freeze {dir}
             echo late >> {dir}/file & writer=$!
             sleep 0.5
             [ $(wc -l < {dir}/file) = 2 ] || echo 'a frozen file system is written to'
             {fsck} {disk} > /run/checked || {{ echo 'a frozen file system is not sound on the disk:'; cat /run/checked; }}
             fsfreeze --unfreeze {dir}
             wait $writer
             [ $(wc -l < {dir}/file) = 3 ] || echo 'what waited for a thaw was not written'

             cd /sys/fs/vexfs/$(basename $(readlink -f {disk}))
             vexctl vector put {dir}/file 1,2,3
             same() {{ [ \"$2\" = \"$3\" ] || echo \"$1 is $2 in /sys, not $3\"; }}
             same vectors $(cat vectors) 1
             same errors $(cat errors) 0
             same free_blocks $(cat free_blocks) $(stat --file-system --format %f {dir})
             same free_inodes $(cat free_inodes) $(stat --file-system --format %d {dir})
             same version $(cat version) $(cat /sys/module/vexfs/version)
             vexctl -q vector search {dir} 1,2,3 > /dev/null; vexctl -q vector search {dir} 1,2,3 > /dev/null
             same vector_cache_hits $(cat vector_cache_hits) 1
             [ -s features ] || echo 'no features in /sys'"
        ))
        .await?;
    none_wrong("mount", "a mount does not do as it is told", &said)?;
    // Somebody who holds the device open, as udev may, keeps what the kernel has in memory of it alive
    // from one mount to the next.
    guest
        .sh(&format!(
            "umount {dir}
             exec 7< {disk}
             for round in 1 2 3; do
               mount -t {fstype} {disk} {dir}; echo $round > {dir}/held; rm -f {dir}/file; sync; umount {dir}
             done"
        ))
        .await
        .map(drop)
}

/// A script that spoils one byte of the block of the directory `bad`, so that only its checksum is
/// wrong. `how` is for dd(1): where it writes to.
fn spoil(how: &str) -> String {
    format!(
        "block=$(vexctl --format json dump --path /bad {SCRATCH} | sed -n 's/.*\"start\": \\([0-9]*\\).*/\\1/p')
         printf X | dd bs=1 seek=$((block * 4096 + 50)) status=none {how}"
    )
}

/// A damaged directory is answered with an error, and then done as `errors=` says.
pub async fn errors_option(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    let (dir, fstype) = (mount.path().to_owned(), lab.source().fstype.clone());
    guest
        .sh(&format!("mkdir {dir}/bad; touch {dir}/bad/name {dir}/good"))
        .await?;
    mount.unmount(&guest).await?;
    // The damage is written by somebody who holds the device open, so that the kernel still has the
    // block in memory, as one that it found good: udev has the partitions looked for anew when a writer closes it, and all is forgotten.
    let damage = spoil("conv=notrunc >&7");
    guest
        .sh(&format!(
            "exec 7<> {SCRATCH}
             mount -t {fstype} {SCRATCH} {dir}; ls {dir}/bad > /dev/null; umount {dir}
             {damage}
             mount -t {fstype} -o errors=continue {SCRATCH} {dir}
             ! ls {dir}/bad 2> /dev/null || {{ echo 'a directory damaged behind its back is listed' >&2; exit 1; }}
             umount {dir}; sync"
        ))
        .await?;
    lab.point("damaged", &guest).await?;
    for (option, state, writes) in [
        ("continue", "rw", "is written"),
        ("remount-ro", "ro", "is refused"),
    ] {
        let said = guest
            .sh(&format!(
                "mount -t {fstype} -o errors={option} {SCRATCH} {dir}
                 ! ls {dir}/bad 2>/run/said || echo 'a damaged directory is listed'
                 grep -q 'needs cleaning' /run/said || cat /run/said
                 state=$(findmnt --noheadings --output FS-OPTIONS {dir}); state=${{state%%,*}}
                 [ $state = {state} ] || echo \"errors={option} leaves the file system $state\"
                 is='is refused'; ! echo more 2>/dev/null >> {dir}/good || is='is written'
                 [ \"$is\" = '{writes}' ] || echo \"with errors={option} a file $is\"
                 [ $(cat /sys/fs/{fstype}/*/errors) -gt 0 ] || echo 'no error is counted'
                 umount {dir}"
            ))
            .await?;
        none_wrong("errors", "damage is answered otherwise", &said)?;
    }
    repaired(&guest, lab).await
}

/// Where the mount says `errors=panic`, damage panics the kernel; what was fsynced before is there, and
/// the damage is repaired.
pub async fn errors_panic(lab: &mut Lab) -> Result<(), Failure> {
    let disk = lab.cut_disk().await?;
    let mut rng = fastrand::Rng::with_seed(lab.seed());
    let guest = lab.fork_on(&disk).await?;
    let mount = guest.fresh_mount(lab).await?;
    let (dir, fstype) = (mount.path().to_owned(), lab.source().fstype.clone());
    guest
        .sh(&format!("mkdir {dir}/bad; touch {dir}/bad/name"))
        .await?;
    mount.unmount(&guest).await?;
    let damage = spoil(&format!("conv=notrunc,fsync of={SCRATCH}"));
    guest
        .sh(&format!(
            "{damage}
             mount -t {fstype} -o errors=panic {SCRATCH} {dir}
             echo kept > {dir}/good; sync {dir}/good"
        ))
        .await?;
    lab.point("damaged", &guest).await?;
    let provoke = format!("ls {dir}/bad");
    lab.must_panic(guest, &provoke, PANICKED, &disk, &mut rng)
        .await?;
    let guest = lab.fork_on(&disk).await?;
    // What the panic left to the journal is brought home by the checker, which then finds the damage.
    repaired(&guest, lab).await?;
    let mount = guest.mount_again(lab).await?;
    let said = guest
        .sh(&format!(
            "[ \"$(cat {dir}/good)\" = kept ] || echo 'what was fsynced before the panic is gone'"
        ))
        .await?;
    none_wrong("errors", "the panic left more than the damage", &said)?;
    mount.unmount(&guest).await
}

/// The checker finds what the kernel found, repairs it, and then finds nothing.
async fn repaired(guest: &Guest, lab: &Lab) -> Result<(), Failure> {
    let fsck = lab.source().fsck.join(" ");
    let codes = guest
        .sh(&format!(
            "for how in -n -y -n; do code=0; {fsck} $how {SCRATCH} > /dev/null || code=$?; echo $code; done"
        ))
        .await?;
    match codes.split_whitespace().collect::<Vec<_>>()[..] {
        ["4", "1", "0"] => Ok(()),
        _ => Err(Failure::check(
            "fsck",
            "the checker does not find and repair what the kernel found",
            codes,
        )),
    }
}

/// udev knows what the disk holds, and finds it by label and UUID.
pub async fn udev(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mkfs = lab.source().mkfs.join(" ");
    guest
        .sh(&format!(
            "{mkfs} --label corner {SCRATCH}; udevadm trigger --settle $(readlink -f {SCRATCH})"
        ))
        .await?;
    let known = guest
        .sh(&format!(
            "udevadm info --query property {SCRATCH}; ls /dev/disk/by-label"
        ))
        .await?;
    let fstype = format!("ID_FS_TYPE={}", lab.source().fstype);
    for wanted in [
        &fstype[..],
        "ID_FS_LABEL=corner",
        "ID_FS_USAGE=filesystem",
        "corner",
    ] {
        if !known.lines().any(|line| line == wanted) {
            let title = format!("udev does not know the disk: no `{wanted}`");
            return Err(Failure::check("udev", title, known));
        }
    }
    let mounted = guest
        .sh(&format!(
            "uuid=$(udevadm info --query property {SCRATCH} | sed -n 's/^ID_FS_UUID=//p')
             mkdir -p /run/corner; mount /dev/disk/by-uuid/$uuid /run/corner
             findmnt --noheadings --output FSTYPE /run/corner; umount /run/corner"
        ))
        .await?;
    match mounted.trim() == lab.source().fstype {
        true => Ok(()),
        false => Err(Failure::check(
            "udev",
            "mount(8) does not find the type of a disk named by its UUID",
            mounted,
        )),
    }
}
