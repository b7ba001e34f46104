//! What a production image promises beside working: each promise is asked for where it counts, in the
//! running system.

use crate::lab::{Boot, Failure, Guest, Lab};

/// Kernel settings of the variants that have some, as they are installed.
const SYSCTLS: &[(&str, &str)] = &[
    (
        "production",
        include_str!(
            "../../../provision/variants/production/files/etc/sysctl.d/99-vexfs-production.conf"
        ),
    ),
    (
        "testing",
        include_str!(
            "../../../provision/variants/testing/files/etc/sysctl.d/99-vexfs-testing.conf"
        ),
    ),
];
/// What the invited agent sets itself, to make a broken kernel talk.
const SET_BY_AGENT: &[&str] = &["kernel.sysrq", "kernel.printk"];

/// `name = value` lines of sysctl.d(5).
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with(['#', ';']));
    lines.filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim(), value.trim()))
    })
}

/// The kernel has the settings the variant says, and says whether it takes unsigned modules.
pub async fn sysctls(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let variant = lab.manifest().variant.clone();
    let text = SYSCTLS.iter().find(|(name, _)| *name == variant);
    let wanted: Vec<_> = settings(text.map_or("", |(_, text)| text))
        .filter(|(name, _)| !SET_BY_AGENT.contains(name))
        .collect();
    let paths: Vec<_> = wanted
        .iter()
        .map(|(name, _)| name.replace('.', "/"))
        .collect();
    let values = guest
        .sh(&format!(
            "cd /proc/sys; for one in {}; do head -n 1 $one; done",
            paths.join(" ")
        ))
        .await?;
    let wrong: Vec<_> = wanted
        .iter()
        .zip(values.lines())
        .filter(|((_, wanted), is)| wanted.split_whitespace().ne(is.split_whitespace()))
        .map(|((name, wanted), is)| format!("{name} is {is}, not {wanted}"))
        .collect();
    let signing = lab.manifest().signing.clone();
    lab.fact(
        "module-signing",
        format!("{}: {}", signing.state, signing.reason),
    );
    if wanted.is_empty() || values.lines().count() != wanted.len() || !wrong.is_empty() {
        return Err(Failure::check(
            "sysctl",
            format!(
                "the kernel is not set as it should be: {}",
                wrong.first().map_or("a setting is missing", |s| s)
            ),
            format!("{}\n{values}", wrong.join("\n")),
        ));
    }
    Ok(())
}

/// Effective settings of sshd, `sshd -T`.
const SSHD: &[&str] = &[
    "permitrootlogin no",
    "passwordauthentication no",
    "kbdinteractiveauthentication no",
    "permitemptypasswords no",
    "authenticationmethods publickey",
    "x11forwarding no",
    "allowtcpforwarding no",
    "allowagentforwarding no",
    "permituserenvironment no",
    "maxauthtries 3",
    "logingracetime 30",
    "loglevel VERBOSE",
];

/// Nobody gets in as root, nobody by a password.
pub async fn access(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let sshd = guest.sh("mkdir -p /run/sshd; sshd -T").await?;
    let missing: Vec<_> = SSHD
        .iter()
        .filter(|wanted| !sshd.lines().any(|line| line == **wanted))
        .collect();
    if let Some(first) = missing.first() {
        return Err(Failure::check(
            "access",
            format!("sshd does not have `{first}`"),
            sshd,
        ));
    }
    let root = guest.sh("passwd --status root").await?;
    if root.split_whitespace().nth(1) != Some("L") {
        return Err(Failure::check(
            "access",
            "root has a password that counts",
            root,
        ));
    }
    Ok(())
}

/// A neighbour on a network of its own knocks at two ports: SSH's answers, another's is silent
/// although somebody listens there.
const KNOCK: &str = "ip netns add neighbour
ip link add vexfs0 type veth peer name vexfs1 netns neighbour
ip address add 192.0.2.1/30 dev vexfs0; ip link set vexfs0 up
ip -n neighbour address add 192.0.2.2/30 dev vexfs1; ip -n neighbour link set vexfs1 up
TOOLS/socat TCP-LISTEN:8080,fork,reuseaddr /dev/null & listener=$!
sleep 2
ip netns exec neighbour timeout 10 bash -c '</dev/tcp/192.0.2.1/22' 2>/dev/null && echo ssh open
ip netns exec neighbour timeout 5 bash -c '</dev/tcp/192.0.2.1/8080' 2>/dev/null && echo 8080 open
kill $listener
ip netns delete neighbour; ip link delete vexfs0 2>/dev/null; umount /run/netns 2>/dev/null || true";

/// Nothing comes in but SSH.
pub async fn firewall(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let tools = guest.tools(lab).await?;
    let rules = guest.sh("nft list ruleset").await?;
    let knocked = guest
        .exec(["/bin/sh", "-c", &KNOCK.replace("TOOLS", &tools)])
        .await?;
    let said = knocked.stdout_text();
    if said.trim() != "ssh open" || !rules.contains("hook input priority filter; policy drop;") {
        return Err(Failure::check(
            "firewall",
            format!(
                "a neighbour finds `{}`, not only SSH",
                said.trim().replace('\n', ", ")
            ),
            format!("{rules}\n{}", knocked.stderr_text()),
        ));
    }
    Ok(())
}

/// Mount points and the options each must have.
const MOUNTS: &[(&str, &[&str])] = &[
    ("/tmp", &["nodev", "nosuid", "noexec"]),
    ("/var/tmp", &["nodev", "nosuid", "noexec"]),
    ("/dev/shm", &["nodev", "nosuid", "noexec"]),
    ("/home", &["nodev", "nosuid"]),
    ("/run", &["nodev", "nosuid"]),
];

/// What users can write to holds no devices, no setuid programs and, where it fits, no programs.
pub async fn mounts(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let text = guest
        .sh("findmnt --list --noheadings --output TARGET,OPTIONS")
        .await?;
    let mut wrong = Vec::new();
    for (target, wanted) in MOUNTS {
        let lines = text
            .lines()
            .filter_map(|line| line.split_once(char::is_whitespace));
        let options = lines
            .filter(|(name, _)| name == target)
            .map(|(_, options)| options.trim())
            .next_back();
        let has: Vec<_> = options.unwrap_or_default().split(',').collect();
        wrong.extend(
            wanted
                .iter()
                .filter(|one| !has.contains(one))
                .map(|one| format!("{target} is mounted without {one}")),
        );
    }
    let run = guest
        .exec(["/bin/sh", "-c", "cp /bin/true /tmp/vexfs-true && /tmp/vexfs-true; code=$?; rm -f /tmp/vexfs-true; exit $code"])
        .await?;
    if run.code() != Some(126) {
        wrong.push("a program in /tmp runs".into());
    }
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(Failure::check(
            "mounts",
            first.clone(),
            format!("{}\n{text}", wrong.join("\n")),
        )),
    }
}

/// Security fixes come by themselves, and no kernel among them.
pub async fn updates(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let kernel = lab.manifest().kernel.package.clone();
    let held = guest.sh("apt-mark showhold").await?;
    let config = guest.sh("apt-config dump").await?;
    let timers = guest
        .sh("systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer || true")
        .await?;
    let has = |line: &str| config.lines().any(|one| one == line);
    let origins: Vec<_> = config
        .lines()
        .filter(|line| line.starts_with("Unattended-Upgrade::Origins-Pattern::"))
        .collect();
    let wrong = if !held.lines().any(|line| line == kernel) {
        Some("the kernel is not held")
    } else if timers.lines().any(|line| line != "enabled") {
        Some("apt's timers are off")
    } else if !has("APT::Periodic::Unattended-Upgrade \"1\";")
        || !has("APT::Periodic::Update-Package-Lists \"1\";")
    {
        Some("apt does nothing by itself")
    } else if origins.is_empty() || !origins.iter().all(|line| line.contains("-security")) {
        Some("more than security fixes would come, or none")
    } else if !config.contains("Unattended-Upgrade::Package-Blacklist:: \"^linux-image-\"") {
        Some("a kernel could come")
    } else {
        None
    };
    match wrong {
        None => Ok(()),
        Some(what) => Err(Failure::check(
            "updates",
            what,
            format!("{held}{timers}{}", origins.join("\n")),
        )),
    }
}

/// A kernel package as Debian makes them, newer than the image's: its own files and links as its
/// maintainer scripts set them (linux-update-symlinks of linux-base).
const NEWER_KERNEL: &str = "release=6.1.0-999-cloud-amd64; dir=/root/newer; mkdir -p $dir/DEBIAN $dir/boot
cp /boot/vmlinuz-$(uname -r) $dir/boot/vmlinuz-$release
printf 'Package: linux-image-%s\\nVersion: 6.1.999-1\\nArchitecture: amd64\\nMaintainer: t <t@example.org>\\nDescription: newer\\n' $release >$dir/DEBIAN/control
printf '#!/bin/sh\\nset -e\\nlinux-update-symlinks install %s /boot/vmlinuz-%s\\n' $release $release >$dir/DEBIAN/postinst
chmod 755 $dir/DEBIAN/postinst
dpkg-deb --build --root-owner-group -Znone $dir /root/newer.deb
dpkg --install /root/newer.deb
rm -r $dir /root/newer.deb; sync";

/// A newer kernel package is installed; after the next start VexFS still mounts.
pub async fn kernel_update(lab: &mut Lab) -> Result<(), Failure> {
    let mut guest = lab.boot(Boot::invited()).await?;
    super::boot::settled(&guest).await?;
    let release = guest.sh("uname -r").await?;
    guest.sh(NEWER_KERNEL).await?;
    lab.point("installed", &guest).await?;
    guest = lab.reboot(guest).await?;
    super::boot::settled(&guest).await?;
    let now = guest.sh("uname -r; readlink /boot/vmlinuz").await?;
    let same = now.lines().all(|line| line.ends_with(release.trim()));
    if !same {
        return Err(Failure::check(
            "kernel",
            "the newer kernel was booted, without VexFS",
            now,
        ));
    }
    let mount = guest.fresh_mount(lab).await?;
    mount.unmount(&guest).await?;
    guest.power_off().await
}

/// What happens to files that matter is on record.
pub async fn audit(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let status = guest.sh("auditctl -s; auditctl -l").await?;
    // Loading the rules has left records with their keys too: only a system call counts.
    guest.sh("chmod 644 /etc/vexfs/vexfs.conf; sleep 1").await?;
    lab.point("touched", &guest).await?;
    let record = guest
        .exec([
            "/bin/sh",
            "-c",
            "ausearch --input-logs --message SYSCALL --key vexfs --raw | grep 'type=SYSCALL.*key=.vexfs'",
        ])
        .await?;
    if !status.contains("enabled 1") || !record.stdout_text().contains("key=\"vexfs\"") {
        return Err(Failure::check(
            "audit",
            "a change below /etc/vexfs is not on record",
            format!("{status}{}{}", record.stdout_text(), record.stderr_text()),
        ));
    }
    Ok(())
}

/// Logs are kept and bounded.
pub async fn logs(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let config = guest
        .sh("systemd-analyze cat-config systemd/journald.conf")
        .await?;
    let last = |name: &str| {
        config
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(name))
    };
    let persistent = guest
        .exec(["/bin/sh", "-c", "ls /var/log/journal/*/system.journal"])
        .await?;
    let limits = last("Storage=") == Some("persistent")
        && last("SystemMaxUse=") == Some("256M")
        && last("MaxRetentionSec=").is_some();
    if !limits || !persistent.success() {
        return Err(Failure::check(
            "logs",
            "the journal is not kept, or not bounded",
            config,
        ));
    }
    // A log of more than its size is turned over, and its owner stays.
    let turned = guest
        .sh(
            "mkdir -p /var/log/vexfs; head -c 17000000 /dev/zero >/var/log/vexfs/full.log
             logrotate /etc/logrotate.conf; ls /var/log/vexfs; rm -f /var/log/vexfs/full.log*
             systemctl is-enabled logrotate.timer",
        )
        .await?;
    if !turned.contains("full.log.1") {
        return Err(Failure::check("logs", "a large log is not rotated", turned));
    }
    Ok(())
}

/// The metrics file says of a mounted file system what statfs(2) says.
pub async fn metrics(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mount = guest.fresh_mount(lab).await?;
    guest.sh("systemctl start vexfs-metrics.service").await?;
    let text = guest
        .sh("cat /var/lib/prometheus/node-exporter/vexfs.prom")
        .await?;
    let size = guest
        .sh(&format!(
            "stat --file-system --format='%b %S' {}",
            mount.path()
        ))
        .await?;
    let size: u64 = size
        .split_whitespace()
        .filter_map(|word| word.parse::<u64>().ok())
        .product();
    let wanted = format!("mountpoint=\"{}\"}} {size}", mount.path());
    let right = text
        .lines()
        .any(|line| line.starts_with("vexfs_size_bytes{") && line.ends_with(&wanted));
    if !right {
        return Err(Failure::check(
            "metrics",
            "the metrics do not have the size of a mounted file system",
            text,
        ));
    }
    mount.unmount(&guest).await
}

/// Services of ours, and the most exposure systemd-analyze(1) may find in each, of 10.
const EXPOSURE: &[(&str, f64)] = &[("vexfs-metrics.service", 3.0)];
/// Services whose exposure is only reported: they need what they have.
const REPORTED: &[&str] = &[
    "ssh.service",
    "vexfs.service",
    "auditd.service",
    "unattended-upgrades.service",
];

/// A public tool's score of the services.
pub async fn score(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mut worst = None;
    let names = EXPOSURE.iter().map(|(name, most)| (*name, *most));
    for (name, most) in names.chain(REPORTED.iter().map(|name| (*name, 10.0))) {
        let text = exposure(&guest, name).await?;
        let line = text
            .lines()
            .rev()
            .find(|line| line.contains("exposure level"))
            .unwrap_or_default();
        let words = line.split_whitespace();
        let level = words
            .filter_map(|word| word.parse::<f64>().ok())
            .next_back();
        lab.fact(
            &format!("exposure-{name}"),
            level.map_or("unknown".into(), |level| format!("{level} of 10")),
        );
        if level.is_none_or(|level| level > most) {
            worst.get_or_insert((name, level, text));
        }
    }
    match worst {
        None => Ok(()),
        Some((name, level, text)) => Err(Failure::check(
            "score",
            format!("systemd-analyze gives {name} {level:?} of 10"),
            text,
        )),
    }
}

async fn exposure(guest: &Guest, unit: &str) -> Result<String, Failure> {
    guest
        .sh(&format!("systemd-analyze security --no-pager {unit}"))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_sysctl_d_has_them() {
        let text = "# a = b\n\nkernel.printk = 7 4 1 7\n net.x=1\n";
        assert_eq!(
            settings(text).collect::<Vec<_>>(),
            [("kernel.printk", "7 4 1 7"), ("net.x", "1")]
        );
        for (variant, text) in SYSCTLS {
            assert!(settings(text).count() > 5, "{variant}");
        }
    }
}
