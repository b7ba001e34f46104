//! What room this host has: free disk, memory, and what a control group leaves of it.
//!
//! A container sees the host's `/proc/meminfo` and is killed at its own limit: the smaller of both counts.

use std::io;
use std::path::{Path, PathBuf};

use procfs::Current;
use procfs::process::Process;

/// Memory that a process may have here, in MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total_mib: u64,
    /// What can be had now without taking it from somebody.
    pub available_mib: u64,
    /// The control group (cgroups(7)) that allows less than the host has, if one does.
    pub group: Option<PathBuf>,
}

/// One control group on the way up from ours: its limit, what is used, and what of that is cache that
/// goes when it is needed; in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    path: PathBuf,
    limit: u64,
    used: u64,
    cache: u64,
}

impl Memory {
    /// What `/proc/meminfo` and the control groups above this process say; `None` where there is no
    /// `/proc`.
    pub fn here() -> Option<Memory> {
        let info = procfs::Meminfo::current().ok()?;
        let available = info.mem_available.unwrap_or(info.mem_free);
        Some(Memory::within(info.mem_total, available, &groups()))
    }

    /// The tightest of the host and its groups.
    fn within(total: u64, available: u64, groups: &[Group]) -> Memory {
        let mut memory = Memory {
            total_mib: total >> 20,
            available_mib: available >> 20,
            group: None,
        };
        for group in groups {
            let left = group
                .limit
                .saturating_sub(group.used - group.cache.min(group.used))
                >> 20;
            let limit = group.limit >> 20;
            if limit < memory.total_mib {
                memory.total_mib = limit;
                memory.group = Some(group.path.clone());
            }
            memory.available_mib = memory.available_mib.min(left);
        }
        memory
    }

    /// Who has it, for a sentence: `this host`, or the control group.
    pub fn place(&self) -> String {
        match &self.group {
            Some(group) => format!("the control group {}", group.display()),
            None => "this host".into(),
        }
    }
}

/// Free space in MiB of the file system that holds `path`, for users without privileges (statvfs(3)).
///
/// # Errors
/// When there is nothing at `path`.
pub fn free_mib(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok((stat.blocks_available() * stat.fragment_size()) >> 20)
}

/// The size of the file system that holds a path, in MiB.
///
/// # Errors
/// When the system does not say.
pub fn total_mib(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok((stat.blocks() * stat.fragment_size()) >> 20)
}

/// The control groups of this process that limit memory, from its own to the topmost one that is
/// visible, of either version.
fn groups() -> Vec<Group> {
    let Ok(myself) = Process::myself() else {
        return Vec::new();
    };
    let (Ok(own), Ok(mounts)) = (myself.cgroups(), myself.mountinfo()) else {
        return Vec::new();
    };
    let mut groups = Vec::new();
    for group in own {
        let second = group.hierarchy == 0;
        if !second && !group.controllers.iter().any(|name| name == "memory") {
            continue;
        }
        let mount = mounts.0.iter().find(|mount| match second {
            true => mount.fs_type == "cgroup2",
            false => mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"),
        });
        let Some(mount) = mount else { continue };
        // What a container mounts as the root may be far below the host's.
        let below = group.pathname.strip_prefix(&mount.root).unwrap_or_default();
        let own = mount.mount_point.join(below.trim_start_matches('/'));
        let above = own
            .ancestors()
            .take_while(|dir| dir.starts_with(&mount.mount_point));
        groups.extend(above.filter_map(|dir| read(dir, second)));
    }
    groups
}

/// A group's files: those of version 2, or of version 1.
fn read(dir: &Path, second: bool) -> Option<Group> {
    let (limit, used, cache) = match second {
        true => ("memory.max", "memory.current", "inactive_file"),
        false => (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    };
    let number = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(dir.join(name)).ok()?;
        // Version 2 says `max` where there is no limit.
        text.trim().parse().ok()
    };
    let stat = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == cache).then(|| value.parse().ok())?
    });
    Some(Group {
        path: dir.to_owned(),
        limit: number(limit)?,
        used: number(used)?,
        cache: cache.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn group(limit: u64, used: u64, cache: u64) -> Group {
        Group {
            path: "/g".into(),
            limit,
            used,
            cache,
        }
    }

    #[test]
    fn the_tightest_limit_counts() {
        let host = Memory::within(24 * GIB, 20 * GIB, &[]);
        assert_eq!((host.total_mib, host.available_mib), (24576, 20480));
        assert_eq!(host.place(), "this host");
        let limited = Memory::within(24 * GIB, 20 * GIB, &[group(4 * GIB, 3 * GIB, GIB)]);
        assert_eq!((limited.total_mib, limited.available_mib), (4096, 2048));
        assert_eq!(limited.place(), "the control group /g");
        // Version 1 says "no limit" with a number larger than any memory.
        let unlimited = Memory::within(4 * GIB, GIB, &[group(u64::MAX >> 1, GIB, 0)]);
        assert_eq!((unlimited.total_mib, unlimited.available_mib), (4096, 1024));
        let full = Memory::within(24 * GIB, 20 * GIB, &[group(GIB, 2 * GIB, 0)]);
        assert_eq!(full.available_mib, 0, "used beyond its limit");
    }

    #[test]
    fn both_versions_of_groups_are_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("a file");
        };
        assert_eq!(read(dir.path(), true), None);
        write("memory.max", "max\n");
        write("memory.current", "100\n");
        assert_eq!(read(dir.path(), true), None, "no limit");
        write("memory.max", "4096\n");
        write(
            "memory.stat",
            "anon 1\ninactive_file 60\ntotal_inactive_file 70\n",
        );
        let limits = |second| read(dir.path(), second).map(|g| (g.limit, g.used, g.cache));
        assert_eq!(limits(true), Some((4096, 100, 60)));
        write("memory.limit_in_bytes", "8192\n");
        write("memory.usage_in_bytes", "200\n");
        assert_eq!(limits(false), Some((8192, 200, 70)));
    }

    #[test]
    fn this_host_has_memory_and_disk() {
        let memory = Memory::here().expect("/proc");
        assert!(
            memory.total_mib >= memory.available_mib && memory.total_mib > 0,
            "{memory:?}"
        );
        free_mib(Path::new("/")).expect("a file system");
        free_mib(Path::new("/nowhere/at/all")).expect_err("nothing");
    }
}
