//! Every check seen red: what is broken, at which point of which check, and what must be said.

use std::sync::{Arc, Mutex};

use host_harness::checks;
use host_harness::dossier::Policy;
use host_harness::event::{CaseResult, Event, Reporter};
use host_harness::lab::Break;
use host_harness::runner::{self, Manner, SharedReporters};
use host_harness::verdict::Outcome;
use libtest_mimic::Failed;

/// One thing broken on purpose.
pub struct Red {
    /// The case's name.
    pub name: &'static str,
    /// The check that must notice.
    check: &'static str,
    /// Where in its story, see `Lab::point`.
    point: &'static str,
    /// What is done to the guest there.
    script: &'static str,
    /// What the failure must say, in its title or among its evidence.
    title: &'static str,
}

#[rustfmt::skip]
pub const CASES: &[Red] = &[
    Red { name: "failed_unit", check: "settles", point: "booted", title: "`degraded`",
          script: "printf '[Service]\\nExecStart=/bin/false\\n' > /run/systemd/system/broken.service
                   systemctl daemon-reload; systemctl start --no-block broken.service" },
    Red { name: "second_boot_differs", check: "boots_twice", point: "booted", title: "second boot is not like the first",
          script: "systemd-run --quiet --unit=odd-$(cut -c1-8 /proc/sys/kernel/random/boot_id) sleep 600" },
    Red { name: "somebody_listens", check: "uninvited_silence", point: "invitation", title: "somebody answers",
          script: "" },
    Red { name: "stranger_served", check: "stranger_refused", point: "ready", title: "stranger inside the guest was not refused",
          script: "printf '#!/bin/sh\\necho welcome\\n' > /run/fake; chmod +x /run/fake; mount --bind /run/fake /run/vexfs-tools/bin/socat" },
    Red { name: "any_secret_will_do", check: "wrong_secret_refused", point: "secret", title: "wrong secret was not refused",
          script: "" },
    Red { name: "wrong_module", check: "module_load", point: "start", title: "built for another kernel",
          script: "sed -i 's/mod_unload modversions/mod_unload nodversions/' /lib/modules/$(uname -r)/extra/vexfs/vexfs.ko" },
    Red { name: "missing_module", check: "module_load", point: "start", title: "`modprobe vexfs` exited with",
          script: "rm /lib/modules/$(uname -r)/extra/vexfs/vexfs.ko; depmod" },
    Red { name: "module_in_use", check: "module_unload", point: "unmounted", title: "`modprobe --remove vexfs` exited with",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs" },
    Red { name: "module_talks", check: "module_unload", point: "unmounted", title: "unloading was not silent",
          script: "modprobe --remove vexfs; modprobe vexfs nonsense=1" },
    Red { name: "unmountable_disk", check: "mkfs_mount", point: "start", title: "no VexFS here",
          script: "rm /usr/sbin/mkfs.vexfs; printf '#!/bin/sh\\n' > /usr/sbin/mkfs.vexfs; chmod +x /usr/sbin/mkfs.vexfs" },
    Red { name: "corrupted_file", check: "write_remount_compare", point: "unmounted", title: "content differs after a remount",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs
                   printf X | dd of=/mnt/vexfs/deep/er/file-65536 bs=1 seek=40000 conv=notrunc,fsync status=none
                   umount /mnt/vexfs" },
    Red { name: "mount_left_behind", check: "mkfs_mount", point: "mounted", title: "left (tmpfs) is still mounted on /run/left",
          script: "mkdir /run/left; mount -t tmpfs left /run/left" },
    Red { name: "loop_device_left_behind", check: "mkfs_mount", point: "mounted", title: "block device loop0 is still set up",
          script: "truncate -s 1M /run/loop; losetup /dev/loop0 /run/loop" },
    Red { name: "second_user_of_the_module", check: "mkfs_mount", point: "mounted", title: "the module has 1 users, before it had 0",
          script: "mkdir /run/again; mount --bind /mnt/vexfs /run/again; sleep 300 > /run/again/file &" },
    Red { name: "file_left_behind", check: "space_returns", point: "written", title: "bytes were not freed",
          script: "cp /mnt/vexfs/tree/1 /mnt/vexfs/forgotten; sync" },
    Red { name: "missing_vexctl", check: "vexctl_status", point: "start", title: "`vexctl --version` exited with",
          script: "rm /usr/sbin/vexctl" },
    Red { name: "idle_service", check: "service", point: "start", title: "did not mount what fstab names",
          script: "mkdir -p /run/systemd/system/vexfs.service.d
                   printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' > /run/systemd/system/vexfs.service.d/idle.conf
                   systemctl daemon-reload" },
    Red { name: "lost_blocks", check: "fio_verify", point: "unmounted", title: "fio",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs
                   dd if=/dev/zero of=/mnt/vexfs/verify.0.0 bs=4k count=4 seek=10 conv=notrunc,fsync status=none
                   umount /mnt/vexfs" },
    Red { name: "tool_missing", check: "fio_verify", point: "start", title: "undeclared skip: fio is not on the tools disk",
          script: "mkdir -p /run/vexfs-tools; mount -t tmpfs none /run/vexfs-tools" },
    Red { name: "read_only_after_stress", check: "stress", point: "stressed", title: "`echo alive",
          script: "mount -o remount,ro /mnt/vexfs" },
    Red { name: "room_kept", check: "enospc", point: "deleted", title: "were not freed",
          script: "head -c 100K /dev/zero > /mnt/vexfs/.kept" },
    Red { name: "name_lost", check: "many_names", point: "unmounted", title: "9999 of 10000 names are listed",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs; rm /mnt/vexfs/many/some-rather-long-name-77; umount /mnt/vexfs" },
    Red { name: "wrapped_offset", check: "sparse_file", point: "unmounted", title: "sparse file over 4 GiB is not what was written",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs
                   echo block-1048576 | dd of=/mnt/vexfs/sparse bs=4k seek=0 conv=notrunc status=none
                   umount /mnt/vexfs" },
    Red { name: "changed_bottom", check: "deep_paths", point: "unmounted", title: "what lies at the end of a deep path has changed",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs; cd /mnt/vexfs
                   for step in $(seq 60); do cd -P $(printf '%0200d' $step); done; echo top > mark; cd /; umount /mnt/vexfs" },
    Red { name: "name_doubled", check: "rename_storm", point: "renamed", title: "lost or doubled names",
          script: "cp /mnt/vexfs/a/file-3 /mnt/vexfs/b/moved-3" },
    Red { name: "reload_forgets", check: "module_reload", point: "reloaded", title: "the disk remembers round 0",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs; echo 0 > /mnt/vexfs/round; umount /mnt/vexfs" },
    Red { name: "line_too_many", check: "mount_cycles", point: "halfway", title: "lines",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs; echo more >> /mnt/vexfs/rounds; umount /mnt/vexfs" },
    Red { name: "planted_key", check: "no_secrets", point: "start", title: "the image holds an authorized SSH key",
          script: "mkdir -p /root/.ssh; echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 somebody' > /root/.ssh/authorized_keys" },
    Red { name: "panic_in_mid_exec", check: "mkfs_mount", point: "start", title: "panic",
          script: "echo c > /proc/sysrq-trigger; sleep 50" },
];

/// Breaks it and expects a failure (not a pass, not trouble of the host) with the right title.
pub fn turns_red(case: &Red) -> Result<(), Failed> {
    let check = checks::find(case.check).ok_or("no such check")?;
    let breaks = vec![Break {
        point: case.point,
        script: case.script,
        files: Vec::new(),
    }];
    // A failure that a test wants to see is no news.
    let result = super::run(super::DEFAULT, check, breaks, Policy::none())?;
    super::show(&result);
    let says = |text: &str| text.to_lowercase().contains(&case.title.to_lowercase());
    match &result.outcome {
        Outcome::Fail { title, detail, .. } if says(title) || says(detail) => {
            println!("red as it should be: {title}");
            Ok(())
        }
        other => Err(format!("expected a failure about `{}`, got {other:?}", case.title).into()),
    }
}

/// A check nobody has seen fail proves nothing.
pub fn every_check_has_a_case() -> Result<(), Failed> {
    let unseen: Vec<&str> = checks::REGISTRY
        .iter()
        .map(|check| check.name)
        .filter(|name| !CASES.iter().any(|case| case.check == *name))
        .collect();
    if unseen.is_empty() {
        Ok(())
    } else {
        Err(format!("never seen red: {unseen:?}").into())
    }
}

/// Keeps what a run reports.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<CaseResult>>>);

impl Reporter for Collector {
    fn on(&mut self, event: &Event) -> std::io::Result<()> {
        if let Event::CaseFinished(result) = event {
            let mut results = self.0.lock().map_err(|_| std::io::ErrorKind::Other)?;
            results.push((**result).clone());
        }
        Ok(())
    }
}

/// In one run, side by side, one check's kernel panics: it fails with the panic, and all the others
/// pass.
pub fn one_panic_leaves_the_others_alone() -> Result<(), Failed> {
    let names = [
        "stress",
        "mkfs_mount",
        "module_load",
        "vexctl_status",
        "space_returns",
    ];
    let checks: Vec<_> = names.iter().filter_map(|name| checks::find(name)).collect();
    let panic = Break {
        point: "stressed",
        script: "echo c > /proc/sysrq-trigger",
        files: Vec::new(),
    };
    let collector = Collector::default();
    let reporters = SharedReporters::new(vec![Box::new(collector.clone())]);
    super::block_on(async {
        let setup = super::setup(super::DEFAULT, vec![panic], Policy::none()).await?;
        let manner = Manner {
            jobs: runner::jobs(),
            retries: 0,
        };
        runner::run(&Arc::new(setup), &checks, manner, &reporters).await;
        Ok(())
    })?;
    let results = collector.0.lock().map_err(|e| e.to_string())?;
    for result in results.iter() {
        println!("{}: {:?}", result.case, result.outcome);
    }
    let (panicked, others): (Vec<_>, Vec<_>) = results
        .iter()
        .partition(|result| result.case.check == "stress");
    let right = matches!(&panicked[..], [one] if one.outcome.failure().0 == "panic")
        && others.len() == names.len() - 1
        && others.iter().all(|result| result.outcome == Outcome::Pass);
    match right {
        true => Ok(()),
        false => Err("expected one panic and nothing but passes beside it".into()),
    }
}
