//! Archives that are old, that break off, that lie.

use std::fs;

use crate::archive::{Archive, Server};
use crate::failures::{real_apt, said};
use crate::lab::{Lab, Test, must};

pub const TRIALS: &[Test] = &[
    ("a_date_gives_the_packages_of_that_date", dated),
    ("a_date_that_is_none_or_has_no_state_is_told", no_such_date),
    (
        "a_mirror_whose_time_is_over_is_refused_without_a_date",
        expired,
    ),
    (
        "a_mirror_that_breaks_off_is_named_and_taken_up_again",
        cut_off,
    ),
    ("a_package_with_a_wrong_checksum_is_refused", wrong_checksum),
    (
        "a_damaged_package_in_the_cache_is_fetched_again",
        damaged_package,
    ),
];

const EXPIRED: &str = "Valid-Until: Mon, 08 Jan 2024 00:00:00 UTC\n";

/// Two states, both long past their time.
fn two_states() -> Result<Archive, String> {
    let archive = Archive::new()?;
    archive.add("20240101T000000Z", "1.0", EXPIRED)?;
    archive.add("20240601T120000Z", "2.0", EXPIRED)?;
    Ok(archive)
}

fn at(archive: &Archive, date: &str) -> String {
    let pattern = format!("file:{}/{{date}}", archive.root().display());
    serde_json::json!({
        "snapshot_date": date,
        "snapshot_mirror": pattern,
        "keyring": archive.keyring(),
    })
    .to_string()
}

/// Versions of systemd-sysv that the provenance of the image in place names.
fn versions(lab: &Lab) -> Result<Vec<&'static str>, String> {
    let file = lab.image().join("vexfs-minimal-1.0.0.provenance.json");
    let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let versions = ["1.0", "2.0"].into_iter();
    Ok(versions
        .filter(|version| text.contains(&format!("systemd-sysv@{version}?")))
        .collect())
}

fn dated() -> Result<(), String> {
    let archive = two_states()?;
    let lab = real_apt();
    for (date, version) in [("2024-01-01", "1.0"), ("20240601T120000Z", "2.0")] {
        let built = lab.build_with(&at(&archive, date));
        must(built.ok, || built.said.clone())?;
        let found = versions(&lab)?;
        must(found == [version], || format!("{date}: {found:?}"))?;
    }
    // The first date again: known without asking, and nothing but the seal is done again.
    let back = lab.build_with(&at(&archive, "2024-01-01"));
    must(back.ok && back.ran() == ["seal"], || {
        format!("ran {:?}: {}", back.ran(), back.said)
    })
}

fn no_such_date() -> Result<(), String> {
    let archive = two_states()?;
    let lab = real_apt();
    said(
        &lab.build_with(&at(&archive, "2023-05-05")),
        &["has no state of 20230505T000000Z", "--snapshot-date"],
    )?;
    said(
        &lab.build_with(&at(&archive, "last week")),
        &["--snapshot-date `last week`", "2024-01-31"],
    )?;
    let without = r#"{"snapshot_date": "2024-01-01", "snapshot_mirror": "http://m/debian"}"#;
    said(&lab.build_with(without), &["--snapshot-mirror", "{date}"])?;
    must(!lab.image().exists(), || "there is an image".into())
}

/// An archive served as a mirror: main and security side by side.
fn served(fields: &str) -> Result<(Archive, Server), String> {
    let archive = Archive::new()?;
    archive.add("debian", "1.0", fields)?;
    archive.add("debian-security", "1.0", fields)?;
    let server = Server::new(archive.root())?;
    Ok((archive, server))
}

fn from(archive: &Archive, server: &Server) -> String {
    serde_json::json!({
        "mirror": format!("{}/debian", server.url()),
        "keyring": archive.keyring(),
    })
    .to_string()
}

fn expired() -> Result<(), String> {
    let (archive, server) = served(EXPIRED)?;
    said(
        &real_apt().build_with(&from(&archive, &server)),
        &["the mirror http://127.0.0.1", "is expired"],
    )
}

fn cut_off() -> Result<(), String> {
    let (archive, server) = served("")?;
    let lab = real_apt();
    server.cut(true);
    let ended = lab.build_with(&from(&archive, &server));
    let url = format!("the mirror {}/debian", server.url());
    said(&ended, &[&url, "--mirror URL"])?;
    must(!lab.image().exists(), || "there is an image".into())?;
    must(lab.in_progress().is_empty(), || {
        format!("left: {:?}", lab.in_progress())
    })?;
    server.cut(false);
    let again = lab.build_with(&from(&archive, &server));
    must(again.ok, || again.said.clone())
}

fn wrong_checksum() -> Result<(), String> {
    let (archive, server) = served("")?;
    let deb = archive.root().join("debian/pool/kmod_1.0_amd64.deb");
    let mut bytes = fs::read(&deb).map_err(|e| e.to_string())?;
    bytes[7] ^= 1;
    fs::write(&deb, bytes).map_err(|e| e.to_string())?;
    let lab = real_apt();
    let ended = lab.build_with(&from(&archive, &server));
    said(&ended, &["kmod_1.0_amd64.deb", "Hash Sum mismatch"])?;
    must(!lab.image().exists(), || "there is an image".into())
}

fn damaged_package() -> Result<(), String> {
    let (archive, server) = served("")?;
    let lab = real_apt();
    let first = lab.build_with(&from(&archive, &server));
    must(first.ok, || first.said.clone())?;
    let deb = lab.path("cache/apt/archives/kmod_1.0_amd64.deb");
    let good = fs::read(&deb).map_err(|e| e.to_string())?;
    let mut bytes = good.clone();
    bytes[7] ^= 1;
    fs::write(&deb, bytes).map_err(|e| e.to_string())?;
    lab.write("work/provision/base/files/etc/hostname", "other");
    let again = lab.build_with(&from(&archive, &server));
    must(again.ok, || again.said.clone())?;
    let told = again
        .notes()
        .iter()
        .any(|note| note.contains("fetched again"));
    must(told, || format!("{:?}", again.events))?;
    let now = fs::read(&deb).map_err(|e| e.to_string())?;
    must(now == good, || "it is still damaged".into())
}
