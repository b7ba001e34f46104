//! Public test suites from the Rust crate registry: pjdfstest, on ours and on ext4 in the same guest, and
//! fsx.

use results::Outcome;

use super::pjdfstest::{allowed, cases, compare};
use crate::lab::{Failure, Lab};

/// What pjdfstest is told: everything that ext4 has, and two users whose groups are their own.
const PJDFSTEST: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.04
allow_remount = true
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]
";

/// pjdfstest on both; no case may fail on ours that passes on ext4.
pub async fn pjdfstest(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let program = guest.tool(lab, "pjdfstest").await?;
    let ours = guest.fresh_mount(lab).await?;
    let ext4 = guest.ext4_beside().await?;
    // Some cases look for a program by which(1), which a bare guest need not have.
    guest
        .sh(&format!(
            "mkdir /run/pjdfstest; cat > /run/pjdfstest.toml <<'END'\n{PJDFSTEST}END
             printf '#!/bin/sh\\ncommand -v \"$1\"\\n' > /run/pjdfstest/which
             chmod +x /run/pjdfstest/which"
        ))
        .await?;
    lab.point("mounted", &guest).await?;
    let mut told = Vec::new();
    for (here, there) in [(&ours, &ext4), (&ext4, &ours)] {
        // Its exit code only says that something failed.
        let said = guest
            .sh(&format!(
                "PATH=/run/pjdfstest:$PATH {program} --configuration-file /run/pjdfstest.toml \
                 --path {} --secondary-fs {} 2>/run/pjdfstest.err || [ $? -eq 1 ]",
                here.path(),
                there.path()
            ))
            .await?;
        let cases = cases(&said).map_err(|why| {
            Failure::check("pjdfstest", format!("on {}: {why}", here.path()), said)
        })?;
        told.push(cases);
    }
    let outcomes = compare(&told[0], &told[1], allowed());
    let passed = outcomes.iter().filter(|(_, o)| *o == Outcome::Pass).count();
    lab.fact(
        "pjdfstest",
        format!("{passed} of {} cases pass", outcomes.len()),
    );
    for (name, outcome) in outcomes {
        lab.part(name, outcome);
    }
    ext4.unmount(&guest).await?;
    ours.unmount(&guest).await
}

/// What fsx does to a file, and how often: everything it knows.
const FSX: &str = "\
flen = 524288
[opsize]
max = 40000
[weights]
close_open = 1.0
invalidate = 1.0
mapread = 6.0
mapwrite = 6.0
read = 6.0
write = 6.0
truncate = 3.0
fsync = 1.0
fdatasync = 1.0
posix_fallocate = 2.0
punch_hole = PUNCH
sendfile = 2.0
posix_fadvise = 2.0
copy_file_range = 2.0
";

/// On a loop device over a file, whose driver reads and writes the file by direct I/O; what changes a
/// file's length is not for a device.
const FSX_DIRECT: &str = "\
blockmode = true
[opsize]
max = 40000
[weights]
invalidate = 3.0
mapread = 4.0
mapwrite = 4.0
read = 6.0
write = 6.0
truncate = 0.0
fsync = 3.0
fdatasync = 2.0
";

/// fsx with several seeds, each once on a file and once by direct I/O.
pub async fn fsx(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let operations = lab.count("fsx_operations")?;
    let seeds = lab.count("fsx_seeds")?;
    let program = guest.tool(lab, "fsx").await?;
    let mount = guest.fresh_mount(lab).await?;
    let dir = mount.path().to_owned();
    let lacks = |what: &str| lab.source().lacks(what);
    let punch = if lacks("punch-hole") { "0.0" } else { "2.0" };
    guest
        .sh(&format!(
            "mkdir /run/fsx
             cat > /run/fsx.toml <<'END'\n{}END
             cat > /run/fsx-direct.toml <<'END'\n{FSX_DIRECT}END",
            FSX.replace("PUNCH", punch)
        ))
        .await?;
    lab.point("mounted", &guest).await?;
    let each = (operations / seeds / 2).max(1);
    for n in 0..seeds {
        let seed = lab.seed() + n;
        let run = format!("{program} -N {each} -S {seed} -P /run/fsx");
        let cached = format!("{run} -f /run/fsx.toml {dir}/file-{seed}");
        let direct = format!(
            "truncate -s 512K {dir}/disk-{seed}
             loop=$(losetup --find --show --direct-io=on {dir}/disk-{seed})
             trap 'losetup --detach $loop' EXIT
             [ $(cat /sys/block/${{loop#/dev/}}/loop/dio) = 1 ]
             {run} -f /run/fsx-direct.toml $loop"
        );
        for (how, script) in [("cached", cached), ("direct", direct)] {
            let output = guest.exec(["/bin/sh", "-euc", &script]).await?;
            let said = format!("{}{}", output.stdout_text(), output.stderr_text());
            let outcome = match output.success() {
                true => Outcome::Pass,
                false => Outcome::fail("fsx", format!("fsx {}", output.ending()), said),
            };
            lab.part(format!("{how}-{seed}"), outcome);
        }
    }
    lab.fact("fsx", format!("{} operations", each * seeds * 2));
    mount.unmount(&guest).await
}
