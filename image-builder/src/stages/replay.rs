//! What provisioning changed, done again to the disk it started from.
//!
//! A kernel that runs puts blocks where it likes, and leaves times, journal and deleted files behind:
//! two runs never give the same disk. Here only the outcome is taken from Packer's machine, and
//! debugfs(8) does it to the base in a fixed order, with times no later than the base's own "now". So
//! the same tree gives the same disk, byte by byte, with nothing in it that is not in the tree.
//!
//! Extended attributes are those of the base: what a boot sets (journald's ACLs, by tmpfiles.d) the
//! next boot sets again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use image::inspect::{Disk, Kind, Node, Tree, diff, extract};
use image::sparse;

use crate::BuildError;
use crate::run::Site;

/// How many differences an error names.
const NAMED: usize = 5;

/// Makes the disk at `to`: `base` with the tree that `provisioned` has, and no time in it later than
/// `epoch` (seconds since 1970).
pub(crate) async fn replay(
    site: &Site<'_>,
    stage: &str,
    (base, provisioned): (&Path, &Path),
    epoch: u64,
    (work, to): (&Path, &Path),
) -> Result<(), BuildError> {
    let (before, after) = tokio::try_join!(Tree::of_disk(base), Tree::of_disk(provisioned))?;
    let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
    let wanted = no_later_than(after, epoch);
    let plan = Plan::new(&before, &wanted, epoch);
    let files = work.join("changed");
    fs::create_dir(&files).map_err(BuildError::io("make", &files))?;
    extract(provisioned, plan.files, &files).await?;
    let source = File::open(base).map_err(BuildError::io("open", base))?;
    let target = File::create(to).map_err(BuildError::io("make", to))?;
    source
        .metadata()
        .and_then(|meta| target.set_len(meta.len()))
        .and_then(|()| sparse::copy(&source, &target, 0))
        .map_err(BuildError::io("write", to))?;
    let root = Disk::open(to).await?.root();
    let root = root.map_err(BuildError::io("read", to))?;
    let place = format!("{}?offset={}", to.display(), root.start);
    let script = work.join("replay");
    fs::write(&script, plan.script.join("\n") + "\n").map_err(BuildError::io("write", &script))?;
    // debugfs ends with success whatever became of a command: the trees are compared below.
    let command = Site::program("debugfs")
        .args(["-w", "-f"])
        .args([script.as_path(), Path::new(&place)])
        .env("E2FSPROGS_FAKE_TIME", epoch.to_string())
        // The files to write are named relative to it.
        .current_dir(&files);
    site.step(stage, command).await?;
    let command = Site::program("e2fsck")
        .args(["-f", "-n", &place])
        .env("E2FSPROGS_FAKE_TIME", epoch.to_string());
    site.step(stage, command).await?;
    let differences = diff(&wanted.rooted(), &Tree::of_disk(to).await?.rooted());
    if differences.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = differences
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    Err(BuildError::Replay {
        differences: differences.len(),
        first: named.join("\n"),
        log: site.log(stage),
    })
}

/// The tree with later times moved to the epoch, without devices and sockets: those are made anew by
/// who needs them.
fn no_later_than(mut tree: Tree, epoch: i64) -> Tree {
    let lasts = |node: &Node| !matches!(node.kind, Kind::Special(what) if what != "pipe");
    tree.nodes.retain(|_, node| lasts(node));
    for node in tree.nodes.values_mut() {
        if node.modified >= (epoch, 0) {
            node.modified = (epoch, 0);
        } else {
            // debugfs sets whole seconds.
            node.modified.1 = 0;
        }
    }
    tree
}

/// What there is to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// debugfs(8) commands.
    script: Vec<String>,
    /// Files whose content is written, in the order of their numbers in the script.
    files: Vec<String>,
}

impl Plan {
    fn new(before: &Tree, wanted: &Tree, epoch: i64) -> Plan {
        let mut plan = Plan::default();
        // Their attributes are set in the end: making and removing things in a folder changes it.
        let mut touched = BTreeSet::new();
        let content = |tree: &Tree, path: &str| tree.nodes.get(path).map(|node| node.kind.clone());
        let stays = |path: &str| content(before, path) == content(wanted, path);
        for (path, node) in before.nodes.iter().rev().filter(|(path, _)| !stays(path)) {
            let command = match node.kind {
                Kind::Folder => "rmdir",
                _ => "rm",
            };
            plan.script.push(format!("{command} {}", quoted(path)));
            touched.insert(parent(path).to_owned());
        }
        for (path, node) in wanted.nodes.iter().filter(|(path, _)| !stays(path)) {
            plan.make(path, node);
            touched.insert(parent(path).to_owned());
            touched.insert(path.clone());
        }
        let other = |path: &String| before.nodes.get(path) != wanted.nodes.get(path);
        touched.extend(wanted.nodes.keys().filter(|path| other(path)).cloned());
        for (path, node) in &wanted.nodes {
            if touched.contains(path) {
                plan.attributes(path, node);
            }
            // mke2fs has these from the files it copied, so from when the base was made.
            let path = quoted(path);
            for field in ["atime", "ctime", "crtime"] {
                plan.script.push(format!("sif {path} {field} @{epoch}"));
                plan.script.push(format!("sif {path} {field}_extra 0"));
            }
        }
        plan
    }

    fn make(&mut self, path: &str, node: &Node) {
        let (folder, name) = (parent(path), path.rsplit('/').next().unwrap_or(path));
        let command = match &node.kind {
            Kind::Folder => format!("mkdir {}", quoted(path)),
            Kind::Link { target } => format!("symlink {} {}", quoted(path), quoted(target)),
            Kind::File { .. } => {
                let number = self.files.len();
                self.files.push(path.to_owned());
                self.script.push(format!("cd {}", quoted(folder)));
                format!("write {number} {}", quoted(name))
            }
            Kind::Special("pipe") => format!("mknod {} p", quoted(path)),
            Kind::Special(_) => return,
        };
        self.script.push(command);
    }

    fn attributes(&mut self, path: &str, node: &Node) {
        let kind = match node.kind {
            Kind::File { .. } => 0o100_000,
            Kind::Folder => 0o040_000,
            Kind::Link { .. } => 0o120_000,
            Kind::Special(_) => 0o010_000,
        };
        let path = quoted(path);
        let mut set = |field: &str, value: String| {
            self.script.push(format!("sif {path} {field} {value}"));
        };
        set("mode", format!("0{:o}", kind | u32::from(node.mode)));
        set("uid", node.uid.to_string());
        set("gid", node.gid.to_string());
        set("mtime", format!("@{}", node.modified.0));
        set("mtime_extra", "0".into());
    }
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        None | Some(("", _)) => "/",
        Some((parent, _)) => parent,
    }
}

/// A word for debugfs: in quotes, quotes in it doubled (libss).
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: i64 = 1_700_000_000;

    fn node(kind: Kind, mode: u16, modified: i64) -> Node {
        Node {
            kind,
            mode,
            uid: 0,
            gid: 0,
            modified: (modified, 0),
        }
    }

    fn file(content: &str) -> Kind {
        Kind::File {
            bytes: content.len() as u64,
            sha256: content.into(),
        }
    }

    fn tree(nodes: &[(&str, Node)]) -> Tree {
        let nodes = nodes.iter().map(|(p, n)| ((*p).to_owned(), n.clone()));
        let mut tree = Tree::default();
        tree.nodes.extend(nodes);
        tree
    }

    #[test]
    fn only_what_changed_is_done_and_folders_get_their_times_back() {
        let old = |kind| node(kind, 0o644, EPOCH - 9);
        let folder = node(Kind::Folder, 0o755, EPOCH);
        let before = tree(&[
            ("/", folder.clone()),
            ("/etc", folder.clone()),
            ("/etc/same", old(file("a"))),
            ("/etc/x y", old(file("a"))),
            ("/gone", folder.clone()),
            ("/gone/file", old(file("a"))),
        ]);
        let late = node(file("b"), 0o600, EPOCH + 50);
        let after = tree(&[
            ("/", node(Kind::Folder, 0o755, EPOCH + 50)),
            ("/etc", folder.clone()),
            ("/etc/same", old(file("a"))),
            ("/etc/x y", late),
            ("/new", folder.clone()),
            (
                "/new/link",
                old(Kind::Link {
                    target: "\"x".into(),
                }),
            ),
        ]);
        let wanted = no_later_than(after, EPOCH);
        let plan = Plan::new(&before, &wanted, EPOCH);
        assert_eq!(plan.files, ["/etc/x y"]);
        let made: Vec<_> = plan
            .script
            .iter()
            .filter(|line| !line.starts_with("sif"))
            .collect();
        assert_eq!(
            made,
            [
                "rm \"/gone/file\"",
                "rmdir \"/gone\"",
                "rm \"/etc/x y\"",
                "cd \"/etc\"",
                "write 0 \"x y\"",
                "mkdir \"/new\"",
                "symlink \"/new/link\" \"\"\"x\"",
            ]
        );
        let set: BTreeSet<_> = plan
            .script
            .iter()
            .filter_map(|line| line.strip_prefix("sif \"")?.split_once("\" m"))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(
            set.into_iter().collect::<Vec<_>>(),
            ["/", "/etc", "/etc/x y", "/new", "/new/link"]
        );
        let has = |line: &str| plan.script.iter().any(|l| l == line);
        assert!(has("sif \"/etc/x y\" mode 0100600"), "{:?}", plan.script);
        assert!(has("sif \"/etc/x y\" mtime @1700000000"));
        assert!(has("sif \"/new/link\" mtime @1699999991"));
        let nothing = Plan::new(&before, &before, EPOCH);
        assert!(nothing.files.is_empty());
        let times = |line: &String| line.starts_with("sif") && line.contains("time");
        assert!(nothing.script.iter().all(times), "{:?}", nothing.script);
    }
}
