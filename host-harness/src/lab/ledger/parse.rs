//! What the guest's files say, read into the ledger's fields. The guest is not trusted: what does not have
//! the documented form is an error, never a zero that would hide a leak.

use std::collections::{BTreeMap, BTreeSet};

use super::{Mount, Room};

/// A file of the guest that is not what its documentation says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} of the guest has a line that is not one of {file}'s: `{line}`")]
pub struct Malformed {
    /// The file.
    pub file: &'static str,
    /// The line, cut to a readable length.
    pub line: String,
}

fn malformed(file: &'static str, line: &str) -> Malformed {
    Malformed {
        file,
        line: line.chars().take(120).collect(),
    }
}

/// Users of `module` from `/proc/modules` (proc(5): name, size, users, dependents, state, address); `None`
/// when it is not loaded.
///
/// # Errors
/// When the module's line has no count.
pub fn refcount(proc_modules: &str, module: &str) -> Result<Option<u64>, Malformed> {
    // The kernel's names have `_` where files may have `-`.
    let name = module.replace('-', "_");
    let Some(line) = proc_modules
        .lines()
        .find(|l| l.split(' ').next() == Some(&name))
    else {
        return Ok(None);
    };
    let users = line.split(' ').nth(2).and_then(|n| n.parse().ok());
    users
        .map(Some)
        .ok_or_else(|| malformed("/proc/modules", line))
}

/// Active objects of each cache whose name begins with `prefix`, from `/proc/slabinfo` (slabinfo(5)).
/// Caches that SLUB merged into others have no line: boot with `slab_nomerge` to see them.
///
/// # Errors
/// When the first line is not that of version 2, or a line has no count.
pub fn slab_caches(slabinfo: &str, prefix: &str) -> Result<BTreeMap<String, u64>, Malformed> {
    let first = slabinfo.lines().next().unwrap_or_default();
    if !first.starts_with("slabinfo - version: 2.") {
        return Err(malformed("/proc/slabinfo", first));
    }
    let ours = slabinfo.lines().filter(|line| line.starts_with(prefix));
    ours.map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().unwrap_or_default().to_owned();
        let active = fields.next().and_then(|n| n.parse().ok());
        active
            .map(|n| (name, n))
            .ok_or_else(|| malformed("/proc/slabinfo", line))
    })
    .collect()
}

/// What is mounted, from `/proc/mounts` (fstab(5)); the same mount twice counts twice.
///
/// # Errors
/// When a line has less than three fields.
pub fn mounts(proc_mounts: &str) -> Result<BTreeMap<Mount, u32>, Malformed> {
    let mut out = BTreeMap::new();
    for line in proc_mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [source, target, kind, ..] = fields.as_slice() else {
            return Err(malformed("/proc/mounts", line));
        };
        let mount = Mount {
            target: octal(target),
            source: octal(source),
            kind: octal(kind),
        };
        *out.entry(mount).or_default() += 1;
    }
    Ok(out)
}

/// Loop and device-mapper devices that are set up, from `/proc/partitions`: it lists only devices with a
/// size (block/genhd.c, `show_partition`), which a detached loop device has not.
///
/// # Errors
/// When a line has other than four fields.
pub fn block_devices(proc_partitions: &str) -> Result<BTreeSet<String>, Malformed> {
    let mut out = BTreeSet::new();
    let lines = proc_partitions
        .lines()
        .skip_while(|line| line.starts_with("major"));
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, name] = fields.as_slice() else {
            return Err(malformed("/proc/partitions", line));
        };
        if name.starts_with("loop") || name.starts_with("dm-") {
            out.insert((*name).to_owned());
        }
    }
    Ok(out)
}

/// Open files at or below `mount_point`, from lines `LINK -> FILE` with LINK such as `/proc/812/fd/3`, as
/// `find /proc/[0-9]*/fd -type l -printf '%p -> %l\n'` writes them. Other lines name other files.
pub fn open_files(listing: &str, mount_point: &str) -> BTreeSet<String> {
    let mount_point = mount_point.trim_end_matches('/');
    let below = |line: &&str| {
        let file = line
            .split_once(" -> ")
            .and_then(|(_, file)| file.strip_prefix(mount_point));
        file.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ' ']))
    };
    listing.lines().filter(below).map(str::to_owned).collect()
}

impl Room {
    /// Reads what `stat --file-system --format='%S %f %d' PATH` prints (stat(1)): bytes in a block, free
    /// blocks, free inodes.
    ///
    /// # Errors
    /// When it is not three numbers.
    pub fn parse(text: &str) -> Result<Room, Malformed> {
        let numbers: Option<Vec<u64>> = text
            .split_ascii_whitespace()
            .map(|n| n.parse().ok())
            .collect();
        match numbers.as_deref() {
            Some(&[block_bytes, free_blocks, free_inodes]) => Ok(Room {
                block_bytes,
                free_blocks,
                free_inodes,
            }),
            _ => Err(malformed("stat --file-system", text)),
        }
    }
}

/// Undoes the `\NNN` of `/proc/mounts` (space, tab, newline, backslash).
fn octal(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if byte == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules() {
        let text = "vexfs 65536 2 - Live 0xffffffffc0a00000 (OE)\nvexfs_extra x\next4 987136 1 - Live 0x0\n";
        assert_eq!(refcount(text, "vexfs"), Ok(Some(2)));
        assert_eq!(refcount(text, "vex"), Ok(None));
        assert_eq!(refcount(text, "btrfs"), Ok(None));
        let error = refcount(text, "vexfs-extra").unwrap_err().to_string();
        assert_eq!(
            error,
            "/proc/modules of the guest has a line that is not one of /proc/modules's: `vexfs_extra x`"
        );
    }

    #[test]
    fn slabinfo() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs>\n\
            vexfs_inode_cache     14     27   1152   27    8 : tunables    0    0    0 : slabdata      1      1      0\n\
            ext4_inode_cache    5000   5000   1176   27    8 : tunables\n";
        assert_eq!(
            slab_caches(text, "vexfs"),
            Ok([("vexfs_inode_cache".into(), 14)].into())
        );
        assert!(
            slab_caches("", "vexfs").is_err(),
            "an empty file is not a clean one"
        );
        assert!(slab_caches("slabinfo - version: 2.1\nvexfs_inode x\n", "vexfs").is_err());
    }

    #[test]
    fn mount_table() {
        let text = "/dev/vdb /mnt/a\\040b vexfs rw 0 0\n/dev/vdb /mnt/a\\040b vexfs rw 0 0\nproc /proc proc rw 0 0\n";
        let found = mounts(text).unwrap();
        let key = |target: &str, source: &str, kind: &str| Mount {
            target: target.into(),
            source: source.into(),
            kind: kind.into(),
        };
        assert_eq!(found[&key("/mnt/a b", "/dev/vdb", "vexfs")], 2);
        assert_eq!(found[&key("/proc", "proc", "proc")], 1);
        assert!(mounts("what is\n").is_err());
    }

    #[test]
    fn devices() {
        let text = "major minor  #blocks  name\n\n 254        0    8388608 vda\n   7        0      10240 loop0\n 252        0      10240 dm-0\n";
        assert_eq!(
            block_devices(text),
            Ok(["dm-0".into(), "loop0".into()].into())
        );
        assert!(block_devices("major minor\n\n1 2\n").is_err());
    }

    #[test]
    fn files() {
        let text = "/proc/1/fd/3 -> /mnt/v/a\n/proc/1/fd/4 -> /mnt/vx\n/proc/2/fd/0 -> /mnt/v\n/proc/2/fd/1 -> /mnt/v/b (deleted)\nfind: oops\n";
        let found: Vec<String> = open_files(text, "/mnt/v/").into_iter().collect();
        assert_eq!(
            found,
            [
                "/proc/1/fd/3 -> /mnt/v/a",
                "/proc/2/fd/0 -> /mnt/v",
                "/proc/2/fd/1 -> /mnt/v/b (deleted)"
            ]
        );
    }

    #[test]
    fn room() {
        let expected = Room {
            block_bytes: 4096,
            free_blocks: 100,
            free_inodes: 50,
        };
        assert_eq!(Room::parse("4096 100 50\n"), Ok(expected));
        assert!(Room::parse("4096 100").is_err());
    }
}
