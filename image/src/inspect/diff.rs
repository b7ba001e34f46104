//! What differs between two trees.

use std::fmt;

use crate::inspect::{Kind, Node, Tree};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Absolute path, or a part of the disk outside the file system.
    pub path: String,
    /// The Debian package it is from.
    pub package: Option<String>,
    /// How it differs.
    pub change: Change,
}

/// How something differs, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only in the first.
    Removed,
    /// Only in the second.
    Added,
    /// In both, and different in these respects: what, in the first, in the second.
    Changed(Vec<(&'static str, String, String)>),
}

/// Everything that differs, by path. Packages of another version come first, under the name of
/// dpkg's state for them.
pub fn diff(a: &Tree, b: &Tree) -> Vec<Difference> {
    let mut differences = packages(a, b);
    if a.boot_area != b.boot_area {
        differences.push(Difference {
            path: "partition table and boot loader".into(),
            package: None,
            change: Change::Changed(vec![("content", short(&a.boot_area), short(&b.boot_area))]),
        });
    }
    let (of_a, of_b) = (a.owners(), b.owners());
    let owner = |path: &str| of_b.of(path).or(of_a.of(path)).map(str::to_owned);
    let paths = a.nodes.keys().chain(b.nodes.keys());
    let mut paths: Vec<&String> = paths.collect();
    paths.sort();
    paths.dedup();
    differences.extend(paths.into_iter().filter_map(|path| {
        let change = match (a.nodes.get(path), b.nodes.get(path)) {
            (Some(_), None) => Change::Removed,
            (None, Some(_)) => Change::Added,
            (Some(a), Some(b)) => {
                let respects = respects(a, b);
                if respects.is_empty() {
                    return None;
                }
                Change::Changed(respects)
            }
            (None, None) => return None,
        };
        Some(Difference {
            path: path.clone(),
            package: owner(path),
            change,
        })
    }));
    differences
}

fn packages(a: &Tree, b: &Tree) -> Vec<Difference> {
    let (of_a, of_b) = (a.packages(), b.packages());
    let mut names: Vec<&str> = of_a.iter().chain(&of_b).map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let version = |of: &[crate::Package], name: &str| {
        let found = of.iter().find(|package| package.name == name);
        found.map(|package| package.version.clone())
    };
    names
        .into_iter()
        .filter_map(|name| {
            let change = match (version(&of_a, name), version(&of_b, name)) {
                (Some(a), Some(b)) if a == b => return None,
                (Some(a), Some(b)) => Change::Changed(vec![("version", a, b)]),
                (Some(_), None) => Change::Removed,
                _ => Change::Added,
            };
            Some(Difference {
                path: format!("package {name}"),
                package: Some(name.to_owned()),
                change,
            })
        })
        .collect()
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

fn respects(a: &Node, b: &Node) -> Vec<(&'static str, String, String)> {
    let mut respects = Vec::new();
    let mut compare = |what, a: String, b: String| {
        if a != b {
            respects.push((what, a, b));
        }
    };
    let owner = |node: &Node| format!("{}:{}", node.uid, node.gid);
    let time = |node: &Node| format!("{}.{:09}", node.modified.0, node.modified.1);
    let kind = |node: &Node| match &node.kind {
        Kind::File { .. } => "file",
        Kind::Folder => "folder",
        Kind::Link { .. } => "link",
        Kind::Special(what) => what,
    };
    let content = |node: &Node| match &node.kind {
        Kind::File { bytes, sha256 } => format!("{bytes} bytes {}", short(sha256)),
        Kind::Link { target } => format!("-> {target}"),
        _ => String::new(),
    };
    compare("type", kind(a).into(), kind(b).into());
    compare("mode", format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    compare("owner", owner(a), owner(b));
    compare("time", time(a), time(b));
    if kind(a) == kind(b) && a.kind != b.kind {
        compare("content", content(a), content(b));
    }
    respects
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.change {
            Change::Removed => write!(f, "gone     {}", self.path)?,
            Change::Added => write!(f, "new      {}", self.path)?,
            Change::Changed(respects) => {
                write!(f, "changed  {}: ", self.path)?;
                for (n, (what, a, b)) in respects.iter().enumerate() {
                    let comma = if n > 0 { "; " } else { "" };
                    write!(f, "{comma}{what} {a} => {b}")?;
                }
            }
        }
        match &self.package {
            Some(package) if !self.path.starts_with("package ") => write!(f, " ({package})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::tree::tests::tree;

    fn said(a: &Tree, b: &Tree) -> Vec<String> {
        diff(a, b).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_is_the_same() {
        let one = tree(&[("/etc/hostname", "a")], &[("kmod", "30")]);
        assert!(diff(&one, &one.clone()).is_empty());
    }

    #[test]
    fn every_respect_is_named_with_its_package() {
        let list = ("/var/lib/dpkg/info/kmod.list", "/bin/kmod\n");
        let a = tree(
            &[list, ("/usr/bin/kmod", "old"), ("/etc/gone", "x")],
            &[("kmod", "30"), ("jq", "1")],
        );
        let mut b = tree(
            &[list, ("/usr/bin/kmod", "newer"), ("/etc/new", "x")],
            &[("kmod", "31"), ("udev", "252")],
        );
        let node = b.nodes.get_mut("/usr/bin/kmod").expect("a node");
        (node.mode, node.uid, node.modified) = (0o4755, 7, (1_700_000_001, 5));
        b.boot_area = "another".into();
        let mut said_all = said(&a, &b);
        let last = said_all.pop().unwrap_or_default();
        assert_eq!(
            said_all,
            [
                "gone     package jq",
                "changed  package kmod: version 30 => 31",
                "new      package udev",
                "changed  partition table and boot loader: content  => another",
                "gone     /etc/gone",
                "new      /etc/new",
            ]
        );
        let start = "changed  /usr/bin/kmod: mode 0644 => 4755; owner 0:0 => 7:0; \
                     time 1700000000.000000000 => 1700000001.000000005; content 3 bytes ";
        assert!(last.starts_with(start), "{last}");
        assert!(
            last.contains(" => 5 bytes ") && last.ends_with(" (kmod)"),
            "{last}"
        );
        let mut link = a.clone();
        link.nodes.get_mut("/etc/gone").expect("a node").kind = Kind::Link {
            target: "/etc/new".into(),
        };
        assert_eq!(said(&a, &link), ["changed  /etc/gone: type file => link"]);
    }
}
