//! Content keys: what goes into a stage, and what changed since it last ran.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How many changed inputs a reason names before it counts the rest.
const NAMED: usize = 3;

/// Everything that goes into a stage, by name. The key is the digest of names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// Adds one input; the same name twice keeps the last value.
    pub(crate) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Inputs {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Adds many.
    pub(crate) fn with_all<N: Into<String>, V: Into<String>>(
        self,
        inputs: impl IntoIterator<Item = (N, V)>,
    ) -> Inputs {
        inputs
            .into_iter()
            .fold(self, |all, (name, value)| all.with(name, value))
    }

    /// The content key, in hex. Lengths are part of what is hashed: no two sets run together.
    pub(crate) fn key(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, value) in &self.0 {
            for part in [name, value] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hex::encode(hasher.finalize())
    }

    /// Names of inputs that differ from `old`, with what happened to them.
    pub(crate) fn changes(&self, old: &Inputs) -> Vec<String> {
        let mut changes = Vec::new();
        for (name, value) in &self.0 {
            match old.0.get(name) {
                None => changes.push(format!("new: {name}")),
                Some(was) if was != value => changes.push(if was.len() + value.len() < 60 {
                    format!("{name}: {was} -> {value}")
                } else {
                    format!("changed: {name}")
                }),
                Some(_) => {}
            }
        }
        let gone = old.0.keys().filter(|name| !self.0.contains_key(*name));
        changes.extend(gone.map(|name| format!("gone: {name}")));
        changes
    }

    /// Why a stage with these inputs has to run, given the inputs of earlier runs.
    pub(crate) fn why<'a>(&self, earlier: impl Iterator<Item = &'a Inputs>) -> String {
        let nearest = earlier.map(|old| self.changes(old)).min_by_key(Vec::len);
        let Some(changes) = nearest else {
            return "nothing of it in the cache".into();
        };
        let mut why = changes[..changes.len().min(NAMED)].join("; ");
        if changes.len() > NAMED {
            why += &format!("; and {} more", changes.len() - NAMED);
        }
        why
    }
}

/// SHA-256 of bytes, in hex.
pub(crate) fn digest(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 of a small file, in hex.
pub(crate) fn file_digest(path: &Path) -> std::io::Result<String> {
    std::fs::read(path).map(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(pairs: &[(&str, &str)]) -> Inputs {
        Inputs::default().with_all(pairs.iter().copied())
    }

    #[test]
    fn the_key_depends_on_every_name_and_value_and_not_on_order() {
        let ab = inputs(&[("a", "1"), ("b", "2")]);
        assert_eq!(ab.key(), inputs(&[("b", "2"), ("a", "1")]).key());
        for other in [
            inputs(&[("a", "1"), ("b", "3")]),
            inputs(&[("a", "1"), ("c", "2")]),
            inputs(&[("a", "1")]),
            inputs(&[("a", "1b"), ("", "2")]),
        ] {
            assert_ne!(ab.key(), other.key(), "{other:?}");
        }
    }

    #[test]
    fn the_reason_compares_with_the_nearest_earlier_run() {
        let now = inputs(&[("kernel", "6.1-57"), ("size", "8G")]);
        assert_eq!(now.why([].iter()), "nothing of it in the cache");
        let far = inputs(&[("kernel", "6.1-55"), ("size", "9G")]);
        let near = inputs(&[("kernel", "6.1-56"), ("size", "8G")]);
        assert_eq!(
            now.why([&far, &near].into_iter()),
            "kernel: 6.1-56 -> 6.1-57"
        );
    }

    #[test]
    fn long_values_are_not_printed_and_many_changes_are_counted() {
        let old = inputs(&[("a", &"x".repeat(64)), ("b", "1"), ("c", "1"), ("d", "1")]);
        let now = inputs(&[("a", &"y".repeat(64)), ("b", "2"), ("c", "2"), ("e", "2")]);
        assert_eq!(
            now.why([&old].into_iter()),
            "changed: a; b: 1 -> 2; c: 1 -> 2; and 2 more"
        );
    }
}
