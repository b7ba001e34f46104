//! `vexctl mount-helper` and `umount-helper`: what vexfs.service does.

use super::Common;
use super::log::Log;
use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, mount as mount_syscall, umount2};
use std::path::{Path, PathBuf};
use vexctl::config::{Config, LogLevel};
use vexctl::image::Image;
use vexctl::mounts::{self, Entry};

const FSTAB: &str = "/etc/fstab";

/// Options that are mount(2) flags rather than words for the file system (mount(8)).
const FLAGS: [(&str, MsFlags, bool); 14] = [
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
];

/// Options that only tell mount(8) and systemd what to do.
const NOT_FOR_THE_KERNEL: [&str; 8] = [
    "defaults", "auto", "noauto", "nofail", "user", "nouser", "_netdev", "group",
];

/// Splits options into flags and words for the file system.
fn split_options(options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut words = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        if let Some((_, flag, on)) = FLAGS.iter().find(|(name, ..)| *name == option) {
            flags.set(*flag, *on);
        } else if !NOT_FOR_THE_KERNEL.contains(&option) && !option.starts_with("x-") {
            words.push(option);
        }
    }
    (flags, words.join(","))
}

/// The device behind `UUID=…` or `LABEL=…`: every block device is asked, for libblkid does not
/// know VexFS.
fn find_device(source: &str) -> anyhow::Result<PathBuf> {
    let (by_uuid, wanted) = match source.split_once('=') {
        Some(("UUID", uuid)) => (true, uuid.trim_matches('"')),
        Some(("LABEL", label)) => (false, label.trim_matches('"')),
        _ => return Ok(source.into()),
    };
    let names = std::fs::read_dir("/sys/class/block").context("cannot list block devices")?;
    for name in names.flatten() {
        let path = Path::new("/dev").join(name.file_name());
        let Ok(image) = Image::open(&path, false) else {
            continue;
        };
        let found = if by_uuid { image.uuid() } else { image.label() };
        if found.eq_ignore_ascii_case(wanted) {
            return Ok(path);
        }
    }
    bail!("no device holds the VexFS {source}: `vexctl info DEVICE` shows what one holds")
}

/// What the service is responsible for, in the order of mounting.
fn responsible(config: &Config) -> anyhow::Result<Vec<Entry>> {
    let mut entries = mounts::wanted(Path::new(FSTAB)).context("cannot read /etc/fstab")?;
    entries.retain(|entry| !entry.has_option("noauto"));
    if let (Some(device), Some(target)) = (&config.device, &config.mount_point) {
        entries.push(Entry {
            source: device.clone(),
            target: target.clone(),
            options: "defaults".into(),
        });
    }
    Ok(entries)
}

fn mount_one(config: &Config, entry: &Entry) -> anyhow::Result<()> {
    let device = find_device(&entry.source)?;
    let (flags, words) = split_options(&config.mount_options(&entry.options));
    std::fs::create_dir_all(&entry.target)
        .with_context(|| format!("cannot make the mount point {}", entry.target.display()))?;
    mount_syscall(
        Some(&device),
        &entry.target,
        Some("vexfs"),
        flags,
        Some(words.as_str()),
    )
    .with_context(|| {
        format!(
            "cannot mount {} on {} with `{words}`: `dmesg` says why, `fsck.vexfs {}` checks it",
            device.display(),
            entry.target.display(),
            device.display()
        )
    })
}

fn is_mounted(entry: &Entry) -> anyhow::Result<bool> {
    let mounted = mounts::mounted().context("cannot read /proc/self/mounts")?;
    Ok(mounted.iter().any(|one| one.target == entry.target))
}

/// Runs `act` on every entry; one that fails does not keep the others from theirs.
fn for_each(
    log: &Log<'_>,
    entries: &[Entry],
    act: impl Fn(&Entry) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<()> {
    let mut failed = 0;
    for entry in entries {
        match act(entry) {
            Ok(Some(done)) => log.say(LogLevel::Info, &done),
            Ok(None) => {}
            Err(error) => {
                log.say(LogLevel::Error, &format!("{error:#}"));
                failed += usize::from(!entry.has_option("nofail"));
            }
        }
    }
    if failed > 0 {
        bail!(
            "{failed} of {} VexFS file systems could not be served",
            entries.len()
        );
    }
    Ok(())
}

/// Mounts what is to be mounted. Nothing to mount is success.
pub fn mount(common: &Common) -> anyhow::Result<()> {
    let config = Config::load(&common.config)?;
    let log = Log::new(&config, common.verbose, common.quiet);
    let entries = responsible(&config)?;
    if entries.is_empty() {
        log.say(
            LogLevel::Info,
            "no VexFS in /etc/fstab or the configuration: nothing to mount",
        );
        return Ok(());
    }
    for_each(&log, &entries, |entry| {
        if is_mounted(entry)? {
            log.say(
                LogLevel::Debug,
                &format!("{} is mounted already", entry.target.display()),
            );
            return Ok(None);
        }
        mount_one(&config, entry)?;
        Ok(Some(format!(
            "mounted {} on {}",
            entry.source,
            entry.target.display()
        )))
    })
}

/// Unmounts it again, last first.
pub fn unmount(common: &Common) -> anyhow::Result<()> {
    let config = Config::load(&common.config)?;
    let log = Log::new(&config, common.verbose, common.quiet);
    let mut entries = responsible(&config)?;
    entries.reverse();
    for_each(&log, &entries, |entry| {
        if !is_mounted(entry)? {
            return Ok(None);
        }
        umount2(&entry.target, MntFlags::empty()).with_context(|| {
            let target = entry.target.display();
            format!("cannot unmount {target}: `fuser -vm {target}` shows who uses it")
        })?;
        Ok(Some(format!("unmounted {}", entry.target.display())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_where_they_belong() {
        let (flags, words) = split_options(
            "vector_cache=64M,errors=continue,ro,noatime,nofail,x-systemd.automount,rw",
        );
        assert_eq!(flags, MsFlags::MS_NOATIME);
        assert_eq!(words, "vector_cache=64M,errors=continue");
    }
}
