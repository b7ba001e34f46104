//! The file tree of an image.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ext4_view::{Ext4, Ext4Read, FileType, Metadata};
use sha2::{Digest, Sha256};

use crate::inspect::disk::{Disk, Partition};
use crate::{ImageError, Package};

/// Where dpkg keeps what it has installed, and which files each package has.
const STATUS: &str = "/var/lib/dpkg/status";
const INFO: &str = "/var/lib/dpkg/info";
/// Folders that are links into /usr in every image (usrmerge), but not in dpkg's lists.
const MERGED: &[&str] = &["/bin/", "/lib/", "/lib32/", "/lib64/", "/libx32/", "/sbin/"];

/// Everything in an image's root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// By absolute path. Bytes of a name that are no UTF-8 are shown escaped.
    pub nodes: BTreeMap<String, Node>,
    /// SHA-256 in hex of what is on the disk before the root file system: partition table, boot
    /// loader, EFI system partition.
    pub boot_area: String,
    status: String,
    lists: BTreeMap<String, String>,
}

/// One file, folder, link or special file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is, with its content.
    pub kind: Kind,
    /// Permission bits, as `chmod` takes them.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content last changed: seconds since the epoch, and nanoseconds.
    pub modified: (i64, u32),
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Bytes.
        bytes: u64,
        /// SHA-256 in hex.
        sha256: String,
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Link {
        /// Where it points.
        target: String,
    },
    /// A device, pipe or socket.
    Special(&'static str),
}

/// Which package each path is from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<String, String>);

impl Tree {
    /// Reads the tree of a disk image in any format of qemu-img(1) but compressed ones. Nothing is
    /// written and nothing mounted.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the file is no disk with a GPT and an ext4 partition called `root`.
    pub async fn of_disk(path: &Path) -> Result<Tree, ImageError> {
        let disk = Disk::open(path).await?;
        let read = tokio::task::spawn_blocking(move || read(disk)).await;
        read.map_err(io::Error::other)
            .and_then(|tree| tree)
            .map_err(ImageError::io("read", path))
    }

    /// The same without what is outside the file system.
    #[must_use]
    pub fn rooted(mut self) -> Tree {
        self.boot_area.clear();
        self
    }

    /// The Debian packages that are installed, as dpkg's own state says.
    pub fn packages(&self) -> Vec<Package> {
        let mut packages: Vec<Package> = self.status.split("\n\n").filter_map(package).collect();
        packages.sort();
        packages
    }

    /// Which package each path is from, by dpkg's lists.
    pub fn owners(&self) -> Owners {
        let mut owners = BTreeMap::new();
        for (package, list) in &self.lists {
            for path in list.lines() {
                let path = merged(path);
                // Folders are in many lists: the first package by name has them.
                owners.entry(path).or_insert_with(|| package.clone());
            }
        }
        Owners(owners)
    }
}

impl Owners {
    /// The package a path is from.
    pub fn of(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }
}

/// `/lib/x` as it is called since /lib is a link to /usr/lib.
fn merged(path: &str) -> String {
    match MERGED.iter().any(|dir| path.starts_with(dir)) {
        true => format!("/usr{path}"),
        false => path.to_owned(),
    }
}

/// A stanza of dpkg's status file, if the package is installed.
fn package(stanza: &str) -> Option<Package> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            (key == name).then(|| value.to_owned())
        })
    };
    field("Status").filter(|status| status.ends_with(" installed"))?;
    Some(Package {
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture")?,
    })
}

/// The partition, to the reader of its file system.
struct Reader(Disk, Partition);

impl Ext4Read for Reader {
    fn read(
        &mut self,
        start: u64,
        to: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if start + to.len() as u64 > self.1.bytes {
            return Err("behind the partition's end".into());
        }
        Ok(self.0.read_at(self.1.start + start, to)?)
    }
}

/// The root file system of a disk.
///
/// # Errors
/// When it is no disk with a GPT and an ext4 partition called `root`.
pub fn root_of(disk: Disk) -> io::Result<Ext4> {
    let partition = disk.root()?;
    Ext4::load(Box::new(Reader(disk, partition))).map_err(io::Error::other)
}

/// Writes the content of files of a disk into the folder `to`, as `0`, `1` and so on.
///
/// # Errors
/// [`ImageError::Io`] when the disk or a file on it cannot be read.
pub async fn extract(path: &Path, files: Vec<String>, to: &Path) -> Result<(), ImageError> {
    let disk = Disk::open(path).await?;
    let to = to.to_owned();
    let extract = move || {
        let fs = root_of(disk)?;
        for (n, file) in files.iter().enumerate() {
            let content = fs.read(file.as_str()).map_err(io::Error::other)?;
            std::fs::write(to.join(n.to_string()), content)?;
        }
        Ok(())
    };
    let extracted = tokio::task::spawn_blocking(extract).await;
    extracted
        .map_err(io::Error::other)
        .and_then(|done| done)
        .map_err(ImageError::io("read", path))
}

fn read(disk: Disk) -> io::Result<Tree> {
    let partition = disk.root()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < partition.start {
        let count = buffer.len().min((partition.start - at) as usize);
        disk.read_at(at, &mut buffer[..count])?;
        hasher.update(&buffer[..count]);
        at += count as u64;
    }
    let fs = Ext4::load(Box::new(Reader(disk, partition))).map_err(io::Error::other)?;
    let mut tree = Tree {
        boot_area: hex::encode(hasher.finalize()),
        ..Tree::default()
    };
    let root = ext4_view::PathBuf::new("/");
    let meta = fs.metadata(&root).map_err(io::Error::other)?;
    walk(&fs, root, &meta, &mut tree).map_err(io::Error::other)?;
    Ok(tree)
}

/// `meta` comes with the entry: to look a path up costs a checksum of every folder on its way.
fn walk(
    fs: &Ext4,
    path: ext4_view::PathBuf,
    meta: &Metadata,
    tree: &mut Tree,
) -> Result<(), ext4_view::Ext4Error> {
    let shown = path.display().to_string();
    let kind = match meta.file_type() {
        FileType::Directory => {
            for entry in fs.read_dir(&path)? {
                let entry = entry?;
                let name = entry.file_name();
                if name != "." && name != ".." {
                    walk(fs, path.join(name), &entry.metadata()?, tree)?;
                }
            }
            Kind::Folder
        }
        FileType::Regular => {
            let content = fs.read(&path)?;
            tree.note(&shown, &content);
            Kind::File {
                bytes: meta.len(),
                sha256: hex::encode(Sha256::digest(&content)),
            }
        }
        FileType::Symlink => Kind::Link {
            target: fs.read_link(&path)?.display().to_string(),
        },
        FileType::BlockDevice => Kind::Special("block device"),
        FileType::CharacterDevice => Kind::Special("character device"),
        FileType::Fifo => Kind::Special("pipe"),
        FileType::Socket => Kind::Special("socket"),
    };
    let modified = meta.modified();
    tree.nodes.insert(
        shown,
        Node {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            modified: (modified.seconds(), modified.nanoseconds()),
        },
    );
    Ok(())
}

impl Tree {
    /// Keeps what dpkg has to say.
    fn note(&mut self, path: &str, content: &[u8]) {
        let text = || String::from_utf8_lossy(content).into_owned();
        if path == STATUS {
            self.status = text();
        }
        let list = path
            .strip_prefix(INFO)
            .and_then(|name| name.strip_prefix('/')?.strip_suffix(".list"));
        if let Some(name) = list {
            // `libc6:amd64`
            let name = name.split(':').next().unwrap_or(name);
            self.lists.insert(name.to_owned(), text());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A tree of these files, for tests of what is made of trees.
    pub(crate) fn tree(files: &[(&str, &str)], packages: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, content) in files {
            tree.note(path, content.as_bytes());
            let node = Node {
                kind: Kind::File {
                    bytes: content.len() as u64,
                    sha256: hex::encode(Sha256::digest(content)),
                },
                mode: 0o644,
                uid: 0,
                gid: 0,
                modified: (1_700_000_000, 0),
            };
            tree.nodes.insert((*path).to_owned(), node);
        }
        tree.status = packages
            .iter()
            .map(|(name, version)| {
                format!(
                    "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
                )
            })
            .collect();
        tree
    }

    #[test]
    fn dpkg_says_what_is_installed_and_whose_a_file_is() {
        let tree = tree(
            &[
                ("/var/lib/dpkg/info/kmod.list", "/.\n/bin\n/bin/kmod\n"),
                (
                    "/var/lib/dpkg/info/libc6:amd64.list",
                    "/lib/x.so\n/usr/share/y\n",
                ),
            ],
            &[("kmod", "30"), ("libc6", "2.36")],
        );
        let owners = tree.owners();
        assert_eq!(owners.of("/usr/bin/kmod"), Some("kmod"));
        assert_eq!(owners.of("/usr/lib/x.so"), Some("libc6"));
        assert_eq!(owners.of("/usr/share/y"), Some("libc6"));
        assert_eq!(owners.of("/etc/hostname"), None);
        let names: Vec<_> = tree.packages().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["kmod", "libc6"]);
        assert!(package("Package: x\nStatus: deinstall ok config-files\nVersion: 1").is_none());
    }
}
