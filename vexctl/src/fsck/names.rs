//! Directories: their blocks, the names in them, and that every file has the links it counts.

use super::{Check, Known};
use crate::image::Flaw;
use crate::mkfs::Identity;
use crate::ondisk::{BLOCK_SIZE, DIR_MAGIC, DirentHead, Header, ORPHAN_FL, ROOT_INO};
use std::collections::HashSet;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const FIRST: usize = 32;

/// One entry as it lies in its block.
pub(super) struct Entry {
    pub(super) at: usize,
    pub(super) ino: u32,
    pub(super) rec_len: usize,
    kind: u8,
    pub(super) name: Vec<u8>,
}

impl Entry {
    /// Bytes it needs.
    fn used(&self) -> usize {
        match self.ino {
            0 => 0,
            _ => (self.name.len() + 15) & !7,
        }
    }

    /// Bytes another entry could have.
    pub(super) fn room(&self) -> usize {
        self.rec_len - self.used()
    }
}

/// Puts a name into the room of `spot`, an entry of the block `data`.
pub(super) fn put(data: &mut [u8], spot: &Entry, ino: u32, kind: u8, name: &[u8]) {
    let short = |n: usize| u16::try_from(n).unwrap_or(0).to_le_bytes();
    let at = spot.at + spot.used();
    if spot.used() > 0 {
        data[spot.at + 4..spot.at + 6].copy_from_slice(&short(spot.used()));
    }
    data[at..at + 4].copy_from_slice(&ino.to_le_bytes());
    data[at + 4..at + 6].copy_from_slice(&short(spot.room()));
    data[at + 6] = u8::try_from(name.len()).unwrap_or(0);
    data[at + 7] = kind;
    data[at + 8..at + 8 + name.len()].copy_from_slice(name);
}

/// The entries of a block; `Err` with the place from which on it makes no sense.
pub(super) fn parse(data: &[u8], most: u32) -> Result<Vec<Entry>, (Vec<Entry>, usize)> {
    let mut entries = Vec::new();
    let mut at = FIRST;
    while at < BLOCK_SIZE {
        let Ok((head, rest)) = DirentHead::ref_from_prefix(&data[at..]) else {
            return Err((entries, at));
        };
        let (ino, rec_len, length) = (
            head.ino.get(),
            usize::from(head.rec_len.get()),
            usize::from(head.name_len),
        );
        let used = if ino == 0 { 16 } else { (length + 15) & !7 };
        if rec_len < used.max(16)
            || rec_len % 8 != 0
            || at + rec_len > BLOCK_SIZE
            || (ino != 0 && (length == 0 || ino > most))
        {
            return Err((entries, at));
        }
        let name = if ino == 0 {
            Vec::new()
        } else {
            rest[..length].to_vec()
        };
        entries.push(Entry {
            at,
            ino,
            rec_len,
            kind: head.kind,
            name,
        });
        at += rec_len;
    }
    Ok(entries)
}

pub(super) fn empty_block(block: u64, owner: u32, generation: u32) -> Vec<u8> {
    let mut data = vec![0; BLOCK_SIZE];
    let mut header = Header::new_zeroed();
    header.magic = DIR_MAGIC.into();
    header.block = block.into();
    header.owner = owner.into();
    header.generation = generation.into();
    data[..32].copy_from_slice(header.as_bytes());
    let room = u16::try_from(BLOCK_SIZE - FIRST).unwrap_or(0);
    data[FIRST + 4..FIRST + 6].copy_from_slice(&room.to_le_bytes());
    data
}

impl Check {
    /// Walks all directories that can be reached from `top`, which `seen` does not hold yet.
    pub(super) fn walk(&mut self, top: u32, seen: &mut HashSet<u32>) -> Result<(), Flaw> {
        seen.insert(top);
        let mut waiting = vec![top];
        while let Some(dir) = waiting.pop() {
            let below = self.directory(dir, seen)?;
            waiting.extend(below);
        }
        Ok(())
    }

    /// Walks everything from the root, reconnects what has no name, and counts links.
    pub(super) fn names(&mut self) -> Result<(), Flaw> {
        let mut seen = HashSet::new();
        self.walk(ROOT_INO, &mut seen)?;
        self.lost(&mut seen)?;
        self.links();
        Ok(())
    }

    /// Checks one directory; returns the directories found in it for the first time.
    fn directory(&mut self, dir: u32, seen: &mut HashSet<u32>) -> Result<Vec<u32>, Flaw> {
        let Some(known) = self.known.get(&dir).cloned() else {
            return Ok(Vec::new());
        };
        let (mut below, mut names) = (Vec::new(), HashSet::new());
        for &block in &known.dir_blocks {
            let read = self
                .disk
                .read_checked(block, DIR_MAGIC, dir, known.generation);
            let mut data = match read {
                Ok(data) => data,
                Err(flaw) => {
                    if !self.found("directory-block", format!("directory {dir}: {flaw}")) {
                        continue;
                    }
                    empty_block(block, dir, known.generation)
                }
            };
            let most = self.groups * self.group_inodes;
            let entries = match parse(&data, most) {
                Ok(entries) => entries,
                Err((entries, at)) => {
                    let what =
                        format!("directory {dir}: block {block} makes no sense from byte {at}");
                    if self.found("directory-entry", what) {
                        close_at(&mut data, entries.last(), at);
                    }
                    entries
                }
            };
            for entry in entries.iter().filter(|entry| entry.ino != 0) {
                let keep = self.entry(dir, entry, &mut names, seen, &mut below, &mut data);
                if !keep && self.repair {
                    data[entry.at..entry.at + 4].fill(0);
                }
            }
            if self.repair && data != self.disk.read(block)? {
                self.disk.write_sealed(block, data);
            }
        }
        Ok(below)
    }

    fn entry(
        &mut self,
        dir: u32,
        entry: &Entry,
        names: &mut HashSet<Vec<u8>>,
        seen: &mut HashSet<u32>,
        below: &mut Vec<u32>,
        data: &mut [u8],
    ) -> bool {
        let (ino, shown) = (entry.ino, String::from_utf8_lossy(&entry.name).into_owned());
        if entry.name.contains(&b'/')
            || entry.name.contains(&0)
            || matches!(&entry.name[..], b"." | b"..")
        {
            self.found(
                "bad-name",
                format!("directory {dir}: `{shown}` cannot be a name"),
            );
            return false;
        }
        if !names.insert(entry.name.clone()) {
            self.found(
                "double-name",
                format!("directory {dir}: `{shown}` is there twice"),
            );
            return false;
        }
        let Some(known) = self.known.get(&ino).cloned() else {
            self.found(
                "dangling-name",
                format!("directory {dir}: `{shown}` names inode {ino}, which is not in use"),
            );
            return false;
        };
        if known.orphan && known.links == 0 {
            self.found(
                "dangling-name",
                format!("directory {dir}: `{shown}` names inode {ino}, which is deleted"),
            );
            return false;
        }
        let kind = u8::try_from(known.mode >> 12).unwrap_or(0);
        if entry.kind != kind
            && self.found(
                "entry-type",
                format!("directory {dir}: `{shown}` has the wrong type"),
            )
        {
            data[entry.at + 7] = kind;
        }
        if known.is_dir() {
            if !seen.insert(ino) {
                self.found(
                    "directory-loop",
                    format!("directory {ino} has two names; `{shown}` in {dir} is one too many"),
                );
                return false;
            }
            below.push(ino);
            if known.parent != dir {
                let what = format!(
                    "directory {ino} says its parent is {}, not {dir}",
                    known.parent
                );
                if self.found("parent", what) {
                    self.edit(ino, |inode| inode.parent = dir.into());
                }
            }
            if let Some(parent) = self.known.get_mut(&dir) {
                parent.subdirectories += 1;
            }
        }
        if let Some(known) = self.known.get_mut(&ino) {
            known.names += 1;
        }
        true
    }

    /// Changes an inode; a read error leaves it, and the finding will come again.
    pub(super) fn edit(&mut self, ino: u32, change: impl FnOnce(&mut crate::ondisk::Inode)) {
        if let Ok(mut inode) = self.read_inode(ino) {
            change(&mut inode);
            let _ = self.write_inode(ino, &inode);
        }
    }

    /// Link counts.
    fn links(&mut self) {
        let all: Vec<(u32, Known)> = self.known.iter().map(|(i, k)| (*i, k.clone())).collect();
        for (ino, known) in all {
            if known.orphan && known.links == 0 {
                continue;
            }
            let want = if known.is_dir() {
                2 + known.subdirectories
            } else {
                known.names
            };
            if known.links != want && want > 0 {
                let what = format!("inode {ino} counts {} links and has {want}", known.links);
                if self.found("link-count", what) {
                    self.edit(ino, |inode| inode.links = want.into());
                }
            }
        }
    }

    /// An empty root directory in place of one that is gone.
    pub(super) fn make_root(&mut self) -> Result<(), Flaw> {
        let id = Identity {
            uuid: self.disk.sb.uuid,
            label: String::new(),
            time: 0,
            uid: 0,
            gid: 0,
        };
        let root = crate::mkfs::root_inode(self.disk.seed(), &id);
        self.write_inode(ROOT_INO, &root)?;
        self.known.insert(
            ROOT_INO,
            Known {
                mode: root.mode.get(),
                links: 2,
                parent: ROOT_INO,
                orphan: root.flags.get() & ORPHAN_FL != 0,
                ..Known::default()
            },
        );
        Ok(())
    }
}

/// Ends a block's entries at `at`, giving the rest to the last good one.
fn close_at(data: &mut [u8], last: Option<&Entry>, at: usize) {
    match last {
        Some(last) => {
            let rec_len = u16::try_from(BLOCK_SIZE - last.at).unwrap_or(0);
            data[last.at + 4..last.at + 6].copy_from_slice(&rec_len.to_le_bytes());
        }
        None => {
            data[at..at + 8].fill(0);
            let rec_len = u16::try_from(BLOCK_SIZE - at).unwrap_or(0);
            data[at + 4..at + 6].copy_from_slice(&rec_len.to_le_bytes());
        }
    }
}
