//! Facts about the running system, from `/proc` and `/sys`.

use std::time::{SystemTime, UNIX_EPOCH};

use agent_protocol::message::{GuestPath, MountInfo, Pong, SystemInfo};
use agent_protocol::{Fault, FaultKind, MAX_ITEMS, Reply};
use procfs::Current;

use crate::{Agent, module, off_thread};

/// Answers a ping.
///
/// # Errors
/// When `/proc/self` cannot be read.
pub fn pong(agent: &Agent) -> Result<Reply, Fault> {
    let pages = procfs::process::Process::myself()
        .and_then(|process| process.statm())
        .map_err(|error| unreadable("/proc/self/statm", &error))?
        .resident;
    Ok(Reply::Pong(Pong {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_uptime_ms: u64::try_from(agent.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        agent_resident: pages * procfs::page_size(),
    }))
}

/// Answers with everything there is to know. Off the runtime's thread: `/proc/self/mountinfo` waits
/// for a lock that a hanging mount may hold.
///
/// # Errors
/// When `/proc` cannot be read.
pub async fn system() -> Result<Reply, Fault> {
    off_thread(|| Ok(Reply::Info(Box::new(gather()?)))).await
}

fn gather() -> Result<SystemInfo, Fault> {
    let names =
        nix::sys::utsname::uname().map_err(|errno| Fault::from_io("uname", &errno.into()))?;
    let load = procfs::LoadAverage::current().map_err(|e| unreadable("/proc/loadavg", &e))?;
    let memory = procfs::Meminfo::current().map_err(|e| unreadable("/proc/meminfo", &e))?;
    let uptime = procfs::Uptime::current().map_err(|e| unreadable("/proc/uptime", &e))?;
    let cpus = procfs::CpuInfo::current()
        .map_err(|e| unreadable("/proc/cpuinfo", &e))?
        .num_cores();
    let clock_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    };
    Ok(SystemInfo {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: names.release().to_string_lossy().into_owned(),
        kernel_version: names.version().to_string_lossy().into_owned(),
        machine: names.machine().to_string_lossy().into_owned(),
        hostname: names.nodename().to_string_lossy().into_owned(),
        cmdline: text("/proc/cmdline")?,
        boot_id: text("/proc/sys/kernel/random/boot_id")?,
        // Made at first boot, so it may not be there yet.
        machine_id: text("/etc/machine-id").unwrap_or_default(),
        uptime_ms: u64::try_from(uptime.uptime_duration().as_millis()).unwrap_or(u64::MAX),
        clock_ms,
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        load: [load.one, load.five, load.fifteen],
        memory_total: memory.mem_total,
        memory_free: memory.mem_free,
        memory_available: memory.mem_available.unwrap_or(memory.mem_free),
        taint: text("/proc/sys/kernel/tainted")?
            .parse()
            .unwrap_or(u64::MAX),
        mounts: mounts(&bytes("/proc/self/mountinfo")?),
        modules: module::loaded()?,
    })
}

/// Mounts from the text of `/proc/self/mountinfo`, in mount order. Lines that are none are left out.
#[must_use]
pub fn mounts(mountinfo: &[u8]) -> Vec<MountInfo> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            // Split here, not by procfs: a mount point may be any bytes, and one odd name must not
            // hide the others. Fields: proc_pid_mountinfo(5).
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            let dash = fields.iter().position(|field| *field == b"-")?;
            let (mount, fs) = (fields.get(..dash)?, fields.get(dash + 1..)?);
            let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
            Some(MountInfo {
                source: text(fs.get(1)?),
                target: GuestPath::from_bytes(unescape(mount.get(4)?)),
                fstype: text(fs.first()?),
                options: format!("{},{}", text(mount.get(5)?), text(fs.get(2)?)),
            })
        })
        .take(MAX_ITEMS)
        .collect()
}

/// Undoes the `\040` of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

fn text(path: &str) -> Result<String, Fault> {
    Ok(String::from_utf8_lossy(&bytes(path)?).trim_end().to_owned())
}

fn bytes(path: &str) -> Result<Vec<u8>, Fault> {
    std::fs::read(path).map_err(|error| Fault::from_io(path, &error))
}

fn unreadable(path: &str, error: &procfs::ProcError) -> Fault {
    Fault::new(FaultKind::System, format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_mount_points_hide_nothing() {
        let text = b"22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw,errors=remount-ro\n\
            40 22 0:33 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw,size=1k\n\
            broken line\n\
            41 22 0:34 / /mnt/\xff\xfe ro master:2 propagate_from:1 - vexfs /dev/vdb ro\n";
        let mounts = mounts(text);
        let targets: Vec<_> = mounts.iter().map(|mount| mount.target.as_bytes()).collect();
        assert_eq!(targets, [b"/".as_slice(), b"/mnt/a b\\c", b"/mnt/\xff\xfe"]);
        assert_eq!(mounts[0].options, "rw,relatime,rw,errors=remount-ro");
        assert_eq!(mounts[2].source, "/dev/vdb");
        assert_eq!(mounts[2].fstype, "vexfs");
    }
}
