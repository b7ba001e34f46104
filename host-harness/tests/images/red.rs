//! Every check seen red: what is broken, at which point of which check, and what must be said.

use std::sync::{Arc, Mutex};

use host_harness::checks;
use host_harness::dossier::Policy;
use host_harness::lab::Break;
use host_harness::runner::{self, Manner};
use libtest_mimic::Failed;
use results::{CaseResult, Event, Outcome, Reporter, SharedReporters};

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
    Red { name: "not_mounted_at_boot", check: "power_cycle", point: "written", title: "what was written is not there after a reboot",
          script: "sed -i '/kept/d' /etc/fstab" },
    Red { name: "off_while_mounted", check: "power_cycle", point: "rebooted", title: "the power-off left the file system mounted",
          script: "sync; dd if=/dev/disk/by-id/virtio-vexfs-scratch of=/var/mounted bs=1M count=128 conv=sparse status=none
                   mkdir -p /run/systemd/system/vexfs.service.d
                   printf '[Service]\\nExecStopPost=/bin/dd if=/var/mounted of=/dev/disk/by-id/virtio-vexfs-scratch bs=1M conv=fsync\\n' > /run/systemd/system/vexfs.service.d/off.conf
                   systemctl daemon-reload" },
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
    Red { name: "symlinks_not_followed", check: "pjdfstest", point: "mounted", title: "it fails, and passes on ext4",
          script: "mount -o remount,nosymfollow /mnt/vexfs" },
    Red { name: "somebody_else_writes", check: "fsx", point: "mounted", title: "fsx exited with",
          script: "systemd-run --quiet sh -c 'while sleep 0.1; do for file in /mnt/vexfs/file-*; do
                     printf X | dd of=$file bs=1 seek=5000 conv=notrunc status=none; done; done'" },
    Red { name: "mapped_block_lost", check: "fio_modes", point: "unmounted", title: "mmap-random",
          script: "mount -t vexfs /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs
                   dd if=/dev/zero of=/mnt/vexfs/mmap-random.0.0 bs=4k count=1 seek=20 conv=notrunc,fsync status=none
                   umount /mnt/vexfs" },
    Red { name: "read_only_after_all_stressors", check: "stress_filesystem", point: "stressed", title: "`echo alive",
          script: "mount -o remount,ro /mnt/vexfs" },
    // The worker promises without fsync: what it wrote is in memory only.
    Red { name: "promised_without_fsync", check: "power_cut", point: "promise", title: "a promise is broken",
          script: "" },
    // The disk ignores flushes, as if the file system had asked for none.
    Red { name: "missing_barrier", check: "power_cut", point: "flushes", title: "after cut",
          script: "" },
    Red { name: "kernel_warns_of_an_image", check: "metadata_fuzz", point: "images", title: "the kernel's taint went from",
          script: "systemd-run --quiet sh -c 'sleep 1; echo 512 > /proc/sys/kernel/tainted'" },
    Red { name: "fsck_finds_nothing", check: "fsck_damage", point: "planting", title: "fsck does not find it",
          script: "printf '#!/bin/sh\necho sound\n' > /run/fake; chmod +x /run/fake; mount --bind /run/fake /usr/sbin/vexctl" },
    Red { name: "vector_changed", check: "search_exact", point: "imported", title: "finds other files than brute force",
          script: "vexctl vector put /mnt/vexfs/random/v000 $(seq -s, 1000 1000 24000); vexctl vector put /mnt/vexfs/random/v001 -- $(seq -s, -24000 1000 -1000)" },
    Red { name: "answers_of_another", check: "posix_corners", point: "mounted", title: "a system call ends otherwise",
          script: "umount /mnt/vexfs; mkfs.ext4 -q -F /dev/disk/by-id/virtio-vexfs-scratch
                   mount -t ext4 /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs" },
    Red { name: "nothing_freezes", check: "mount_corners", point: "made", title: "a frozen file system is written to",
          script: "printf '#!/bin/sh\n' > /usr/sbin/fsfreeze" },
    Red { name: "no_damage", check: "errors_option", point: "damaged", title: "a damaged directory is listed",
          script: "fsck.vexfs -y /dev/disk/by-id/virtio-vexfs-scratch || [ $? = 1 ]" },
    Red { name: "no_damage_to_panic_at", check: "errors_panic", point: "damaged", title: "the kernel did not panic",
          script: "umount /mnt/vexfs; fsck.vexfs -y /dev/disk/by-id/virtio-vexfs-scratch || [ $? = 1 ]
                   mount -t vexfs -o errors=panic /dev/disk/by-id/virtio-vexfs-scratch /mnt/vexfs" },
    Red { name: "no_udev_rule", check: "udev", point: "start", title: "no `ID_FS_TYPE=vexfs`",
          script: "rm /usr/lib/udev/rules.d/60-vexfs.rules; udevadm control --reload" },
    Red { name: "slower_than_stored", check: "performance", point: "stored", title: "times what it costs the peer in the same guest",
          script: "" },
    Red { name: "planted_key", check: "no_secrets", point: "start", title: "the image holds an authorized SSH key",
          script: "mkdir -p /root/.ssh; echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 somebody' > /root/.ssh/authorized_keys" },
    Red { name: "strange_user", check: "inventory", point: "start", title: "user intruder is not declared",
          script: "echo 'intruder:x:0:0::/root:/bin/sh' >> /etc/passwd" },
    Red { name: "strange_suid_file", check: "inventory", point: "start", title: "SUID or SGID file /usr/bin/chmod is not declared",
          script: "chmod u+s /usr/bin/chmod" },
    Red { name: "missing_suid_file", check: "inventory", point: "start", title: "SUID or SGID file /usr/bin/su is missing",
          script: "chmod u-s /usr/bin/su" },
    Red { name: "strange_unit", check: "inventory", point: "start", title: "enabled unit odd.service is not declared",
          script: "printf '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/odd.service
                   systemctl --quiet --no-reload enable odd.service" },
    Red { name: "strange_listener", check: "inventory", point: "start", title: "listening port tcp 8080 is not declared",
          script: "mkdir -p /run/vexfs-tools; mount -o ro /dev/disk/by-id/virtio-vexfs-tools /run/vexfs-tools
                   systemd-run --quiet /run/vexfs-tools/bin/socat TCP-LISTEN:8080 /dev/null; sleep 3" },
    Red { name: "package_gone", check: "inventory", point: "start", title: "package - dbus",
          script: "sed -i '/^Package: dbus$/,/^Status/s/^Status.*/Status: deinstall ok not-installed/' /var/lib/dpkg/status" },
    Red { name: "manual_gone", check: "inventory", point: "start", title: "vexctl.8.gz is promised and missing",
          script: "rm /usr/share/man/man8/vexctl.8.gz" },
    Red { name: "package_lists_left", check: "no_leftovers", point: "start", title: "the build left package lists",
          script: "echo x > /var/lib/apt/lists/mirror_dists_bookworm_InRelease" },
    Red { name: "error_in_the_journal", check: "journal_clean", point: "start", title: "the journal has errors: something broke",
          script: "echo '<3>something broke' | systemd-cat --level-prefix=1; journalctl --sync" },
    Red { name: "came_up_by_bios", check: "boots_uefi", point: "firmware", title: "not by UEFI",
          script: "" },
    Red { name: "same_machine_id", check: "first_boot_keys", point: "asked", title: "one machine id",
          script: "echo 0123456789abcdef0123456789abcdef > /etc/machine-id" },
    Red { name: "clock_ahead", check: "clock", point: "booted", title: "the clock is off by",
          script: "date --set '+1 hour'" },
    Red { name: "disk_stays_small", check: "disk_grows", point: "small disk", title: "the root file system has",
          script: "" },
    Red { name: "seed_not_found", check: "seeded", point: "seed", title: "the seed was not carried out: the host name",
          script: "" },
    Red { name: "sysctl_changed", check: "sysctls", point: "start", title: "kernel.dmesg_restrict is 0, not 1",
          script: "echo 0 > /proc/sys/kernel/dmesg_restrict" },
    Red { name: "root_may_log_in", check: "hardened_access", point: "start", title: "`permitrootlogin no`",
          script: "sed -i '/^PermitRootLogin/d' /etc/ssh/sshd_config.d/05-production.conf" },
    Red { name: "root_has_a_password", check: "hardened_access", point: "start", title: "root has a password",
          script: "echo root:secret | chpasswd" },
    Red { name: "no_firewall", check: "hardened_network", point: "start", title: "a neighbour finds `ssh open, 8080 open`",
          script: "nft flush ruleset" },
    Red { name: "tmp_runs_programs", check: "hardened_mounts", point: "start", title: "/tmp is mounted without noexec",
          script: "mount -o remount,exec /tmp" },
    Red { name: "kernel_not_held", check: "security_updates", point: "start", title: "the kernel is not held",
          script: "apt-mark unhold \"linux-image-$(uname -r)\"" },
    Red { name: "newer_kernel_booted", check: "kernel_update", point: "installed", title: "the newer kernel was booted",
          script: "ln -sf vmlinuz-6.1.0-999-cloud-amd64 /boot/vmlinuz" },
    Red { name: "nothing_on_record", check: "audit", point: "start", title: "is not on record",
          script: "auditctl -D" },
    Red { name: "journal_unbounded", check: "logs_bounded", point: "start", title: "not bounded",
          script: "rm /etc/systemd/journald.conf.d/50-vexfs.conf" },
    Red { name: "metrics_of_nothing", check: "metrics", point: "start", title: "the metrics do not have the size",
          script: "mkdir -p /run/systemd/system/vexfs-metrics.service.d
                   printf '[Service]\nExecStart=\nExecStart=/bin/touch /var/lib/prometheus/node-exporter/vexfs.prom\n' > /run/systemd/system/vexfs-metrics.service.d/idle.conf
                   systemctl daemon-reload" },
    Red { name: "service_exposed", check: "security_score", point: "start", title: "systemd-analyze gives vexfs-metrics.service",
          script: "printf '[Service]\nExecStart=/bin/true\n' > /usr/lib/systemd/system/vexfs-metrics.service; systemctl daemon-reload" },
    Red { name: "stripped_module", check: "debug_info", point: "start", title: "the module has no debug information",
          script: "strip --strip-debug \"$(modinfo -n vexfs)\"" },
    Red { name: "module_does_not_compile", check: "module_builds", point: "sources", title: "`cp -a /usr/src/vexfs",
          script: "echo 'int broken' >> /usr/src/vexfs/super.c" },
    Red { name: "dependency_gone", check: "vexctl_builds", point: "sources", title: "`cd /usr/src/vexctl",
          script: "rm -r /usr/src/vexctl/vendor/clap-4*" },
    Red { name: "unsigned_module_taken", check: "module_signing", point: "start-signing", title: "took a module without signature",
          script: "rm /sbin/insmod; printf '#!/bin/sh\\n' > /sbin/insmod; chmod +x /sbin/insmod" },
    Red { name: "panic_in_mid_exec", check: "mkfs_mount", point: "start", title: "panic",
          script: "echo c > /proc/sysrq-trigger; sleep 50" },
];

impl Red {
    /// The variant whose image is broken: the default one where the check is about all.
    pub fn variant(&self) -> &'static str {
        let check = checks::find(self.check);
        let only = check.and_then(|check| check.variants.first());
        only.copied().unwrap_or(super::DEFAULT)
    }
}

/// Breaks it and expects a failure (not a pass, not trouble of the host) with the right title.
pub fn turns_red(case: &Red) -> Result<(), Failed> {
    let check = checks::find(case.check).ok_or("no such check")?;
    let breaks = vec![Break {
        point: case.point,
        script: case.script,
        files: Vec::new(),
    }];
    // A failure that a test wants to see is no news.
    let result = super::run(case.variant(), check, breaks, Policy::none())?;
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
