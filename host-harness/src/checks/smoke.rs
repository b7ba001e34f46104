//! The shortest story that uses a file system for what it is for: the first thing `vexfs-images try`
//! asks of a changed module, on a guest that has none loaded.
//!
//! Every step is one request to the agent where that is possible: a program costs a tenth of a second
//! under emulation, a request half a millisecond.

use std::time::Duration;

use agent_protocol::message::{FileKind, MountFlags, MountRequest, UnmountFlags};
use sha2::{Digest, Sha256};

use super::{Check, Start, Tier};
use crate::lab::{Failure, Guest, Lab, SCRATCH};

/// The check. It is in no registry: an image's module is loaded by its service, and other checks ask
/// more of it.
pub const SMOKE: &Check = &Check {
    name: "smoke",
    about: "the module loads, mounts, keeps what is written over a remount, and unloads",
    tier: Tier::Quick,
    start: Start::Settled,
    deadline: Duration::from_secs(60),
    nightly: None,
    story: |lab| Box::pin(smoke(lab)),
    needs: &[],
    variants: &[],
    enforced: false,
    expects: &[],
};

/// Lengths of the files: none, around the edge of a page, many pages with a tail.
const LENGTHS: &[usize] = &[0, 4095, 4097, 300_001];

/// No file of the story is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// A single request's time, at most; the check's own deadline ends it all.
const PATIENCE: Duration = Duration::from_secs(60);

async fn smoke(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let source = lab.source().clone();
    let dir = format!("/mnt/{}", source.fstype);
    let keeps = !source.lacks("persistence");

    lab.step("load");
    lab.load_subject(&guest).await?;
    guest.expect_module(&source.module, true).await?;
    let known = read(&guest, "/proc/filesystems").await?;
    if !known.split_whitespace().any(|word| word == source.fstype) {
        let title = format!("no file system `{}` after loading", source.fstype);
        return Err(Failure::check("module", title, known));
    }

    lab.step("mkfs");
    let mkfs = source.mkfs.join(" ");
    guest
        .sh(&format!(
            "[ -d {dir} ] || mkdir -p {dir}; exec {mkfs} {SCRATCH}"
        ))
        .await?;

    lab.step("mount");
    mount(&guest, lab, &dir).await?;
    expect_names(&guest, &dir, &[]).await?;

    lab.step("write");
    // Two programs, for what the agent does not do itself.
    guest
        .sh(&format!("cd {dir}; mkdir -p deep/er; ln -s deep/er link"))
        .await?;
    let mut names = vec!["deep".to_owned(), "link".to_owned()];
    for length in LENGTHS {
        let name = format!("file-{length}");
        let (path, bytes) = (format!("{dir}/{name}"), content(lab.seed(), *length));
        let put = guest.client().put_file(path, 0o640, &bytes, PATIENCE);
        guest.ask(&format!("write {name}"), put).await?;
        names.push(name);
    }
    if !keeps {
        compare(&guest, lab, &dir).await?;
    }

    lab.step("remount");
    unmount(&guest, &dir).await?;
    lab.point("unmounted", &guest).await?;
    mount(&guest, lab, &dir).await?;

    if keeps {
        lab.step("compare");
        expect_names(&guest, &dir, &names).await?;
        compare(&guest, lab, &dir).await?;
    }

    lab.step("unload");
    unmount(&guest, &dir).await?;
    let unload = guest.client().unload_module(&source.module, PATIENCE);
    guest.ask("unload the module", unload).await?;
    guest.expect_module(&source.module, false).await?;

    lab.step("ledger");
    Ok(())
}

/// Bytes that are the same for the same seed and length, and nowhere else.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = 0u64;
    while bytes.len() < length {
        bytes.extend_from_slice(&Sha256::digest(format!("{seed} {length} {block}")));
        block += 1;
    }
    bytes.truncate(length);
    bytes
}

async fn read(guest: &Guest, file: &str) -> Result<String, Failure> {
    let content = guest.client().get_file(file, LONGEST, PATIENCE);
    let content = guest.ask(&format!("read {file}"), content).await?;
    Ok(String::from_utf8_lossy(&content.bytes).into_owned())
}

/// Mounts, as mount(8) would; with options it is mount(8) that takes them apart.
async fn mount(guest: &Guest, lab: &Lab, dir: &str) -> Result<(), Failure> {
    let source = lab.source();
    if !source.mount_options.is_empty() {
        let mount = source.mount_command(SCRATCH, dir);
        return guest.sh(&format!("exec {mount}")).await.map(drop);
    }
    let request = MountRequest {
        source: SCRATCH.into(),
        target: dir.into(),
        fstype: source.fstype.clone(),
        flags: MountFlags::NONE,
        data: String::new(),
    };
    let mount = guest.client().mount(request, PATIENCE);
    guest.ask("mount", mount).await?;
    let mounts = read(guest, "/proc/mounts").await?;
    let ours = format!(" {dir} {} ", source.fstype);
    match mounts.contains(&ours) {
        true => Ok(()),
        false => Err(Failure::check(
            "mount",
            format!("nothing of type {} is mounted on {dir}", source.fstype),
            mounts,
        )),
    }
}

async fn unmount(guest: &Guest, dir: &str) -> Result<(), Failure> {
    let unmount = guest
        .client()
        .unmount(dir, UnmountFlags::default(), PATIENCE);
    guest.ask("unmount", unmount).await
}

/// Exactly these names are there, and what a fresh file system may have.
async fn expect_names(guest: &Guest, dir: &str, names: &[String]) -> Result<(), Failure> {
    let list = guest.client().list(dir, PATIENCE);
    let mut seen: Vec<String> = guest
        .ask("list the mount", list)
        .await?
        .iter()
        .map(|entry| entry.name.to_string())
        .filter(|name| name != "lost+found")
        .collect();
    seen.sort();
    let mut wanted = names.to_vec();
    wanted.sort();
    match seen == wanted {
        true => Ok(()),
        false => Err(Failure::check(
            "content",
            format!(
                "the root directory has `{}`, not `{}`",
                seen.join(" "),
                wanted.join(" ")
            ),
            String::new(),
        )),
    }
}

/// Every file is as it was written, the link points where it did, the directory is one.
async fn compare(guest: &Guest, lab: &Lab, dir: &str) -> Result<(), Failure> {
    let differs = |name: &str, what: String| {
        Failure::check("content", format!("{name} {what}"), String::new())
    };
    for length in LENGTHS {
        let name = format!("file-{length}");
        let get = guest
            .client()
            .get_file(format!("{dir}/{name}"), LONGEST, PATIENCE);
        let got = guest.ask(&format!("read {name}"), get).await?;
        let wanted = content(lab.seed(), *length);
        if got.bytes.len() != wanted.len() {
            let what = format!("has {} bytes, {length} were written", got.bytes.len());
            return Err(differs(&name, what));
        }
        if let Some(at) = wanted.iter().zip(&got.bytes).position(|(a, b)| a != b) {
            let what = format!("is not what was written, from byte {at} on");
            return Err(differs(&name, what));
        }
        if got.mode != 0o640 {
            let what = format!("has mode {:o}, it was given 640", got.mode);
            return Err(differs(&name, what));
        }
    }
    for (name, kind) in [
        ("link", FileKind::Symlink),
        ("deep/er", FileKind::Directory),
    ] {
        let stat = guest
            .client()
            .stat(format!("{dir}/{name}"), false, PATIENCE);
        let stat = guest.ask(&format!("stat {name}"), stat).await?;
        let target = stat.link_target.map(|target| target.to_string());
        if stat.kind != kind || target.is_some_and(|target| target != "deep/er") {
            return Err(differs(name, "is not what was made".to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_seed_and_length() {
        assert_eq!(content(1, 4097).len(), 4097);
        assert_eq!(content(1, 100), content(1, 100));
        assert_ne!(content(1, 100), content(2, 100));
        assert_ne!(content(1, 100)[..], content(1, 101)[..100]);
    }
}
