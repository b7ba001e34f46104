//! A file system the kernel made, damaged in one way after the other: each must be found by its
//! name, mended, and then be gone.

use super::*;
use crate::checksum;
use crate::image::Image;
use crate::mkfs::{seal_block, seal_super};
use crate::ondisk::{BLOCK_BITS, SUPER_OFFSET, SuperBlock};
use crate::reader;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The non-zero metadata of an 8 MiB file system: block, length, bytes. It holds /d/hello (also
/// /d/e/second, with attributes nowhere and a short vector), /d/two (4,095 numbers), /frag (12
/// runs, so a tree; attributes), /short and /long (symlinks).
const FIXTURE: &[u8] = include_bytes!("../../fixtures/small.vexfs");

struct Victim {
    file: tempfile::NamedTempFile,
}

impl Victim {
    fn new() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        let mut rest = FIXTURE;
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            let (data, after) = after.split_at(number(4) as usize);
            file.as_file()
                .write_all_at(data, u64::from(number(0)) << BLOCK_BITS)
                .unwrap();
            rest = after;
        }
        Self { file }
    }

    fn disk(&self) -> &File {
        self.file.as_file()
    }

    fn opened(&self) -> Disk {
        Disk::open(self.file.path(), false).unwrap()
    }

    fn seed(&self) -> u32 {
        checksum::seed(&self.opened().sb.uuid)
    }

    fn ino(&self, path: &str) -> u32 {
        reader::resolve(&self.opened(), path).unwrap()
    }

    fn inode(&self, ino: u32) -> Inode {
        reader::inode(&self.opened(), ino).unwrap()
    }

    /// Changes a block; with `seal` its checksum fits afterwards.
    fn block(&self, block: u64, seal: bool, change: impl FnOnce(&mut [u8])) {
        let mut data = self.opened().read(block).unwrap();
        change(&mut data);
        if seal {
            seal_block(self.seed(), &mut data);
        }
        self.disk()
            .write_all_at(&data, block << BLOCK_BITS)
            .unwrap();
    }

    fn put_inode(&self, ino: u32, inode: &Inode) {
        let at = (2 << BLOCK_BITS) + (u64::from(ino) - 1) * INODE_SIZE as u64;
        self.disk().write_all_at(inode.as_bytes(), at).unwrap();
    }

    fn edit(&self, path: &str, change: impl FnOnce(&mut Inode)) {
        let ino = self.ino(path);
        let mut inode = self.inode(ino);
        change(&mut inode);
        seal_inode(self.seed(), ino, &mut inode);
        self.put_inode(ino, &inode);
    }

    fn group(&self, change: impl FnOnce(&mut Group)) {
        self.block(1, true, |data| change(Group::mut_from_bytes(data).unwrap()));
    }

    fn dir_block(&self, path: &str) -> u64 {
        let ino = self.ino(path);
        reader::runs(&self.opened(), ino, &self.inode(ino)).unwrap()[0].2
    }

    /// Byte of a name's entry in its directory's block.
    fn entry(&self, dir: &str, name: &str) -> usize {
        let data = self.opened().read(self.dir_block(dir)).unwrap();
        let at = data
            .windows(name.len())
            .position(|bytes| bytes == name.as_bytes());
        at.unwrap() - 8
    }

    fn edit_entry(&self, dir: &str, name: &str, change: impl FnOnce(&mut [u8])) {
        let at = self.entry(dir, name);
        self.block(self.dir_block(dir), true, |data| change(&mut data[at..]));
    }

    fn kinds(&self) -> Vec<&'static str> {
        check(self.file.path(), false)
            .unwrap()
            .findings
            .iter()
            .map(|f| f.kind)
            .collect()
    }
}

type Damage = fn(&Victim);

/// Every kind of damage: the word it is reported by, and how it comes about.
const DAMAGES: [(&str, Damage); 32] = [
    ("superblock", |v| {
        v.disk().write_all_at(&[0x5a; 8], 1100).unwrap()
    }),
    ("superblock", |v| {
        v.disk().write_all_at(&[0; 4096], 0).unwrap()
    }),
    ("spare-superblock", |v| {
        v.disk()
            .write_all_at(&[0; 1024], (2047 << 12) + 1024)
            .unwrap()
    }),
    ("journal", |v| {
        v.disk().write_all_at(&[0; 12], 65 << 12).unwrap()
    }),
    ("group-block", |v| v.block(1, false, |data| data[3000] ^= 4)),
    ("group-block", |v| v.block(1, false, |data| data.fill(0))),
    ("free-blocks", |v| v.group(|g| g.free_blocks = 7.into())),
    ("free-inodes", |v| v.group(|g| g.free_inodes = 7.into())),
    ("directory-count", |v| v.group(|g| g.directories = 9.into())),
    ("orphan-count", |v| v.group(|g| g.orphans = 1.into())),
    ("vector-count", |v| v.group(|g| g.vectors = 0.into())),
    ("block-map", |v| v.group(|g| g.block_map[200] ^= 1)),
    ("block-map", |v| v.group(|g| g.block_map[8] = 0)),
    ("inode-map", |v| v.group(|g| g.inode_map[5] ^= 8)),
    ("inode", |v| {
        let ino = v.ino("/d/hello");
        let mut inode = v.inode(ino);
        inode.uid = 77.into();
        v.put_inode(ino, &inode);
    }),
    ("inode", |v| {
        v.edit("/frag", |inode| inode.mode = 0o070_000.into())
    }),
    ("inode", |v| {
        v.edit("/frag", |inode| inode.size = (1 << 60).into())
    }),
    ("block-count", |v| {
        v.edit("/frag", |inode| inode.blocks = 3.into())
    }),
    ("link-count", |v| {
        v.edit("/d/hello", |inode| inode.links = 5.into())
    }),
    ("link-count", |v| {
        v.edit("/d", |inode| inode.links = 2.into())
    }),
    ("extent", |v| {
        v.edit("/d/hello", |inode| inode.root[0].start = 3.into())
    }),
    ("shared-block", |v| {
        let (_, _, start, _) =
            reader::runs(&v.opened(), v.ino("/d/two"), &v.inode(v.ino("/d/two"))).unwrap()[0];
        v.edit("/d/hello", |inode| inode.root[0].start = start.into());
    }),
    ("extent-node", |v| {
        let node = v.inode(v.ino("/frag")).root[0].start.get();
        v.block(node, false, |data| data[100] ^= 1);
    }),
    ("directory-size", |v| {
        v.edit("/d", |inode| inode.size = 8192.into())
    }),
    ("directory-block", |v| {
        v.block(v.dir_block("/d"), false, |data| data[50] ^= 1)
    }),
    ("directory-entry", |v| {
        v.edit_entry("/d", "two", |entry| entry[4] = 3)
    }),
    ("dangling-name", |v| {
        v.edit_entry("/d", "two", |entry| entry[0] = 200)
    }),
    ("entry-type", |v| {
        v.edit_entry("/d", "two", |entry| entry[7] = 6)
    }),
    ("bad-name", |v| {
        v.edit_entry("/d", "two", |entry| entry[8] = b'/')
    }),
    ("parent", |v| {
        v.edit("/d/e", |inode| inode.parent = 2.into())
    }),
    ("xattr-block", |v| {
        v.block(v.inode(v.ino("/frag")).xattr_block.get(), false, |data| {
            data[40] ^= 1
        });
    }),
    ("vector", |v| {
        v.block(v.inode(v.ino("/d/two")).vector_block.get(), false, |data| {
            data[900] ^= 1
        });
    }),
];

#[test]
fn what_the_kernel_made_is_sound() {
    let victim = Victim::new();
    let report = check(victim.file.path(), false).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(
        (report.inodes, report.orphans, report.exit_code()),
        (8, 0, 0)
    );
    assert_eq!(
        Image::open(victim.file.path(), false).unwrap().label(),
        "fixture"
    );
}

#[test]
fn every_planted_damage_is_found_and_mended() {
    for (number, (kind, damage)) in DAMAGES.iter().enumerate() {
        let victim = Victim::new();
        damage(&victim);
        assert!(
            victim.kinds().contains(kind),
            "{number} {kind}: {:?}",
            victim.kinds()
        );
        let report = check(victim.file.path(), true).unwrap();
        assert_eq!(
            report.exit_code(),
            1,
            "{number} {kind}: {:?}",
            report.findings
        );
        assert_eq!(victim.kinds(), [""; 0], "{number} {kind} is still there");
    }
}

#[test]
fn a_file_that_lost_its_name_is_found_again() {
    let victim = Victim::new();
    let ino = victim.ino("/d/two");
    victim.edit_entry("/d", "two", |entry| entry[..4].fill(0));
    assert!(victim.kinds().contains(&"lost"));
    assert_eq!(check(victim.file.path(), true).unwrap().exit_code(), 1);
    assert_eq!(victim.ino(&format!("/lost+found/#{ino}")), ino);
}

#[test]
fn what_a_repair_takes_is_no_damage() {
    // The directory lost+found needs an inode and a block; only the name is told to be lost.
    let victim = Victim::new();
    victim.edit_entry("/d", "two", |entry| entry[..4].fill(0));
    let report = check(victim.file.path(), true).unwrap();
    let kinds: Vec<_> = report.findings.iter().map(|f| f.kind).collect();
    assert_eq!(kinds, ["lost"]);
    assert_eq!(victim.kinds(), [""; 0]);
    assert_eq!(
        victim.inode(victim.ino("/lost+found")).mode.get(),
        0o040_700
    );
}

#[test]
fn a_lost_directory_comes_back_with_what_is_in_it() {
    let victim = Victim::new();
    let ino = victim.ino("/d");
    let at = victim.entry("/", "d\0");
    victim.block(victim.dir_block("/"), true, |data| data[at..at + 4].fill(0));
    assert_eq!(check(victim.file.path(), true).unwrap().exit_code(), 1);
    assert_eq!(victim.kinds(), [""; 0]);
    victim.ino(&format!("/lost+found/#{ino}/e/second"));
}

#[test]
fn a_lost_root_is_made_anew() {
    let victim = Victim::new();
    victim.put_inode(ROOT_INO, &Inode::new_zeroed());
    assert!(victim.kinds().contains(&"root"));
    assert_eq!(check(victim.file.path(), true).unwrap().exit_code(), 1);
    assert_eq!(victim.kinds(), [""; 0]);
}

#[test]
fn random_damage_never_panics() {
    // A cheap generator with a fixed seed: the test must fail the same way twice.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let blocks = [1u64, 2, 65];
    for _ in 0..60 {
        let victim = Victim::new();
        let dirs = [victim.dir_block("/d"), victim.dir_block("/")];
        for _ in 0..1 + random(6) {
            let all = [blocks[0], blocks[1], blocks[2], dirs[0], dirs[1]];
            let block = all[usize::try_from(random(5)).unwrap()];
            let (at, byte) = (random(4096), random(256).to_le_bytes()[0]);
            let seal = ![2, 65].contains(&block) && random(2) == 0;
            victim.block(block, seal, |data| {
                data[usize::try_from(at).unwrap()] = byte
            });
        }
        check(victim.file.path(), false).unwrap();
        check(victim.file.path(), true).unwrap();
        let left = victim.kinds();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn the_spare_superblock_is_found_on_a_larger_device() {
    // With an older file system's spare superblock at the device's end.
    let victim = Victim::new();
    let mut older = victim.opened().sb;
    older.uuid = [7; 16];
    older.blocks = 65_536.into();
    older.groups = 3.into();
    seal_super(&mut older);
    victim.disk().set_len(65_536 << BLOCK_BITS).unwrap();
    let at = (65_535 << BLOCK_BITS) + SUPER_OFFSET as u64;
    victim.disk().write_all_at(older.as_bytes(), at).unwrap();
    victim.disk().write_all_at(&[0; 4096], 0).unwrap();
    assert_eq!(victim.kinds(), ["superblock"]);
    assert_eq!(check(victim.file.path(), true).unwrap().exit_code(), 1);
    assert_eq!(victim.kinds(), [""; 0]);
}

#[test]
fn nothing_at_all_is_no_file_system() {
    let victim = Victim::new();
    victim.disk().write_all_at(&[0; 4096], 0).unwrap();
    victim.disk().write_all_at(&[0; 4096], 2047 << 12).unwrap();
    assert!(matches!(
        check(victim.file.path(), false),
        Err(Flaw::NoFileSystem(_))
    ));
    let mut other = SuperBlock::new_zeroed();
    seal_super(&mut other);
    victim
        .disk()
        .write_all_at(other.as_bytes(), SUPER_OFFSET as u64)
        .unwrap();
    assert!(check(victim.file.path(), false).is_err());
}
