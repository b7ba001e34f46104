//! What an image says of itself to others: two bills of materials, and where it comes from.
//!
//! The documents are pure: each follows from the [`Record`] alone, and holds no time but the image's own,
//! so that the same inputs give the same documents. [`verify()`] holds them against the image.

mod cyclonedx;
mod provenance;
mod spdx;
mod verify;

use std::collections::BTreeMap;

use image::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::key::Inputs;

pub use verify::{Finding, sign, verify};

/// Makes a document.
type Make = fn(&Record<'_>) -> Value;

/// The documents' file names end with these, after the image's name.
pub(crate) const DOCUMENTS: [(&str, Make); 3] = [
    (".spdx.json", spdx::document),
    (".cdx.json", cyclonedx::document),
    (".provenance.json", provenance::document),
];

/// All that is known of an image once its files are there.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// The image's name, `vexfs-minimal-1.0.0`.
    pub(crate) name: &'a str,
    pub(crate) manifest: &'a Manifest,
    pub(crate) ingredients: &'a Ingredients,
}

/// What it was made from, with digests.
#[derive(Debug, Default)]
pub(crate) struct Ingredients {
    /// Debian packages by role (`base`, `builder`): file name and SHA-256.
    pub(crate) debs: BTreeMap<&'static str, Vec<Deb>>,
    /// Rust crates in our programs.
    pub(crate) crates: Vec<Crate>,
    /// The inputs of each stage.
    pub(crate) stages: Vec<(&'static str, Inputs)>,
}

/// A Debian package's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deb {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
}

/// A Rust crate from a registry, as `Cargo.lock` has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Of the crate's file.
    pub(crate) sha256: String,
}

/// The package URL of a Debian package (github.com/package-url/purl-spec, type deb).
fn debian_url(name: &str, version: &str, architecture: Option<&str>) -> String {
    let version = percent(version);
    match architecture {
        Some(arch) => format!(
            "pkg:deb/debian/{}@{version}?arch={arch}&distro=bookworm",
            percent(name)
        ),
        None => format!("pkg:deb/debian/{}@{version}?distro=bookworm", percent(name)),
    }
}

fn cargo_url(of: &Crate) -> String {
    format!("pkg:cargo/{}@{}", of.name, percent(&of.version))
}

/// Percent-encodes what a package URL gives a meaning to.
fn percent(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '+' => "%2B".into(),
            ':' => "%3A".into(),
            '~' => "~".into(),
            c => String::from(c),
        })
        .collect()
}

/// `2026-01-31T12:00:00Z` of seconds since the epoch: the proleptic Gregorian calendar by Howard
/// Hinnant's `civil_from_days`.
pub(crate) fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_date_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn a_package_url_is_encoded() {
        assert_eq!(
            debian_url("libstdc++6", "1:12.2-14+deb12u1", Some("amd64")),
            "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2-14%2Bdeb12u1?arch=amd64&distro=bookworm"
        );
    }
}
