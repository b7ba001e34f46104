//! Links from the report's folder to what it speaks of.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

/// A link to a file that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What to call it.
    pub name: String,
    /// Relative to the report, escaped for an address.
    pub href: String,
}

impl Link {
    /// A link from a page in the folder `from` to `to`; `None` when there is no such file.
    pub fn to(from: &Path, to: &Path, name: &str) -> Option<Link> {
        if !to.is_file() {
            return None;
        }
        Some(Link {
            name: name.to_owned(),
            href: escape(&relative(from, to)),
        })
    }
}

/// The way from a folder to a file, both absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let from: Vec<Component> = from.components().collect();
    let to: Vec<Component> = to.components().collect();
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[shared..].iter().map(|_| Component::ParentDir);
    up.chain(to[shared..].iter().copied()).collect()
}

/// As RFC 3986 has paths: what is not unreserved is escaped, so that no name can be an address with a
/// scheme, a query or a fragment.
fn escape(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(*byte));
            }
            // Writing to a String cannot fail.
            other => write!(out, "%{other:02X}").unwrap_or_default(),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_and_harmless() {
        let way = |to: &str| escape(&relative(Path::new("/o/reports"), Path::new(to)));
        assert_eq!(
            way("/o/reports/dossiers/a/README.md"),
            "dossiers/a/README.md"
        );
        assert_eq!(
            way("/o/images/x/manifest.json"),
            "../images/x/manifest.json"
        );
        assert_eq!(
            way("/o/reports/javascript:alert(1)"),
            "javascript%3Aalert%281%29"
        );
        assert_eq!(Link::to(Path::new("/"), Path::new("/nowhere/x"), "x"), None);
    }
}
