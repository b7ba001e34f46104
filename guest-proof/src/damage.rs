//! Damage that fsck must find: each entry of the table changes a sound file system, made by the kernel
//! and filled by `populate`, in one way, with checksums that fit wherever the damage is not the
//! checksum itself.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use vexctl::fsck::Disk;
use vexctl::mkfs::{seal_block, seal_inode};
use vexctl::ondisk::{
    BLOCK_BITS, GROUP_BLOCKS, Group, INODE_SIZE, INODES_PER_BLOCK, Inode, ROOT_INO,
};
use vexctl::reader;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// A device about to be damaged.
struct Victim {
    disk: Disk,
    file: File,
}

type Done = anyhow::Result<()>;

/// How a damage comes about.
type Damage = fn(&Victim) -> Done;

/// The word fsck must say, and how the damage comes about.
const DAMAGES: &[(&str, Damage)] = &[
    ("superblock", |v| v.bytes(0, 1100, &[0x5a; 8])),
    ("superblock", |v| v.bytes(0, 0, &[0; 4096])),
    ("spare-superblock", |v| v.bytes(v.last(), 1024, &[0; 1024])),
    ("journal", |v| {
        v.bytes(v.disk.sb.journal_start.get(), 0, &[0; 12])
    }),
    ("group-block", |v| v.block(1, false, |data| data[3000] ^= 4)),
    ("group-block", |v| v.block(1, false, |data| data.fill(0))),
    ("free-blocks", |v| v.group(|g| g.free_blocks = 7.into())),
    ("free-inodes", |v| v.group(|g| g.free_inodes = 7.into())),
    ("directory-count", |v| {
        v.group(|g| g.directories = 99.into())
    }),
    ("orphan-count", |v| v.group(|g| g.orphans = 1.into())),
    ("vector-count", |v| v.group(|g| g.vectors = 0.into())),
    ("block-map", |v| v.group(|g| g.block_map[0] = 0)),
    ("inode-map", |v| v.group(|g| g.inode_map[2] ^= 8)),
    ("inode", |v| {
        let ino = v.ino("/d/two")?;
        let mut inode = v.inode(ino)?;
        inode.uid = 77.into();
        v.put_inode(ino, &inode)
    }),
    ("inode", |v| v.edit("/frag", |i| i.mode = 0o070_000.into())),
    ("inode", |v| v.edit("/frag", |i| i.size = (1 << 60).into())),
    ("block-count", |v| v.edit("/frag", |i| i.blocks = 3.into())),
    ("link-count", |v| v.edit("/d/hello", |i| i.links = 5.into())),
    ("link-count", |v| v.edit("/d", |i| i.links = 2.into())),
    ("extent", |v| {
        v.edit("/d/two", |i| i.root[0].start = 3.into())
    }),
    ("shared-block", |v| {
        let start = v.first_block("/d/two")?;
        v.edit("/d/hello", |i| i.root[0].start = start.into())
    }),
    ("extent-node", |v| {
        let node = v.inode(v.ino("/frag")?)?.root[0].start.get();
        v.block(node, false, |data| data[100] ^= 1)
    }),
    ("directory-size", |v| {
        v.edit("/d/e", |i| i.size = 8192.into())
    }),
    ("directory-block", |v| {
        v.block(v.first_block("/d")?, false, |data| data[50] ^= 1)
    }),
    ("directory-entry", |v| {
        v.entry("/d", "two", |entry| entry[4] = 3)
    }),
    ("dangling-name", |v| {
        v.entry("/d", "two", |entry| {
            entry[..4].copy_from_slice(&400u32.to_le_bytes())
        })
    }),
    ("entry-type", |v| v.entry("/d", "two", |entry| entry[7] = 6)),
    ("bad-name", |v| {
        v.entry("/d", "two", |entry| entry[8] = b'/')
    }),
    ("parent", |v| v.edit("/d/e", |i| i.parent = 2.into())),
    ("xattr-block", |v| {
        let block = v.inode(v.ino("/frag")?)?.xattr_block.get();
        v.block(block, false, |data| data[40] ^= 1)
    }),
    ("vector", |v| {
        let block = v.inode(v.ino("/d/two")?)?.vector_block.get();
        v.block(block, false, |data| data[900] ^= 1)
    }),
    ("lost", |v| v.entry("/d", "two", |entry| entry[..4].fill(0))),
    ("lost", |v| v.entry("/", "d", |entry| entry[..4].fill(0))),
    ("root", |v| v.put_inode(ROOT_INO, &Inode::new_zeroed())),
];

/// Plants damage `number`, or lists all: number, and the word.
pub fn run(device: &Path, number: Option<usize>) -> anyhow::Result<()> {
    let Some(number) = number else {
        for (number, (kind, _)) in DAMAGES.iter().enumerate() {
            println!("{number} {kind}");
        }
        return Ok(());
    };
    let (kind, plant) = DAMAGES.get(number).context("there is no such damage")?;
    let victim = Victim {
        disk: Disk::open(device, false)?,
        file: OpenOptions::new().write(true).open(device)?,
    };
    plant(&victim).with_context(|| format!("cannot plant {number}, {kind}"))?;
    Ok(victim.file.sync_all()?)
}

impl Victim {
    fn last(&self) -> u64 {
        self.disk.sb.blocks.get() - 1
    }

    fn bytes(&self, block: u64, at: u64, bytes: &[u8]) -> Done {
        Ok(self.file.write_all_at(bytes, (block << BLOCK_BITS) + at)?)
    }

    /// Changes a block; with `sealed` its checksum fits afterwards.
    fn block(&self, block: u64, sealed: bool, change: impl FnOnce(&mut [u8])) -> Done {
        let mut data = self.disk.read(block)?;
        change(&mut data);
        if sealed {
            seal_block(self.disk.seed(), &mut data);
        }
        self.bytes(block, 0, &data)
    }

    fn group(&self, change: impl FnOnce(&mut Group)) -> Done {
        self.block(1, true, |data| {
            if let Ok(group) = Group::mut_from_bytes(data) {
                change(group);
            }
        })
    }

    fn ino(&self, path: &str) -> anyhow::Result<u32> {
        Ok(reader::resolve(&self.disk, path)?)
    }

    fn inode(&self, ino: u32) -> anyhow::Result<Inode> {
        Ok(reader::inode(&self.disk, ino)?)
    }

    fn put_inode(&self, ino: u32, inode: &Inode) -> Done {
        let per_group = self.disk.sb.group_inodes.get();
        let (group, index) = ((ino - 1) / per_group, (ino - 1) % per_group);
        let block = u64::from(group) * GROUP_BLOCKS + 2 + u64::from(index / INODES_PER_BLOCK);
        let at = u64::from(index % INODES_PER_BLOCK) * INODE_SIZE as u64;
        self.bytes(block, at, inode.as_bytes())
    }

    fn edit(&self, path: &str, change: impl FnOnce(&mut Inode)) -> Done {
        let ino = self.ino(path)?;
        let mut inode = self.inode(ino)?;
        change(&mut inode);
        seal_inode(self.disk.seed(), ino, &mut inode);
        self.put_inode(ino, &inode)
    }

    fn first_block(&self, path: &str) -> anyhow::Result<u64> {
        let ino = self.ino(path)?;
        let runs = reader::runs(&self.disk, ino, &self.inode(ino)?)?;
        Ok(runs.first().context("it has no blocks")?.2)
    }

    /// Changes the entry of a name: number, length, name length, type, name.
    fn entry(&self, dir: &str, name: &str, change: impl FnOnce(&mut [u8])) -> Done {
        let block = self.first_block(dir)?;
        let data = self.disk.read(block)?;
        let mut at = 32;
        while data.get(at + 8..at + 8 + name.len()) != Some(name.as_bytes())
            || usize::from(data[at + 6]) != name.len()
        {
            let step = usize::from(u16::from_le_bytes([data[at + 4], data[at + 5]]));
            at += step;
            anyhow::ensure!(
                step > 0 && at + 8 < data.len(),
                "{dir} has no {name} in its first block"
            );
        }
        self.block(block, true, |data| change(&mut data[at..]))
    }
}
