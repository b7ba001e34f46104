//! Several variants at once, and the cache as its user handles it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;
use nix::fcntl::{Flock, FlockArg};

use super::{Row, expect, out, vexfs_images};

pub const TESTS: &[Row] = &[
    ("a_variant_that_fails_does_not_stop_the_others", one_fails),
    ("clean_all_empties_the_cache", clean_all),
    (
        "clean_all_fails_when_something_cannot_be_removed",
        clean_all_unable,
    ),
    (
        "clean_all_fails_while_a_build_uses_the_cache",
        clean_all_busy,
    ),
];

/// Two side by side: one is built, the other does not exist. All of the good one's stages are in the
/// cache.
fn one_fails() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let mut command = vexfs_images(&["build", "--no-validation", "--verbose", "--parallel", "2"]);
    command
        .args(["--variants", "maximal,minimal", "--output-dir"])
        .arg(dir.path());
    if std::env::var_os("VEXFS_CACHE").is_none() {
        command.env("VEXFS_CACHE", out().join("cache"));
    }
    let output = expect(
        command,
        2,
        &[
            "note  maximal: not built: no variant `maximal`",
            "image maximal was not built",
            "  same  minimal: base",
            "  done  minimal: seal",
        ],
    )?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Whatever a stage prints can be told apart.
    let prefixed = |line: &str| ["minimal: ", "maximal: "].iter().any(|p| line.contains(p));
    let indented = |line: &&str| line.starts_with("        ");
    for line in said.lines().filter(indented) {
        assert!(prefixed(line), "whose is it? {line}");
    }
    assert!(
        dir.path()
            .join("images/vexfs-minimal-1.0.0/manifest.json")
            .is_file()
    );
    assert!(!dir.path().join("images/vexfs-maximal-1.0.0").exists());
    Ok(())
}

/// A cache with something of every kind in it.
fn cache(dir: &Path) -> Result<std::path::PathBuf, Failed> {
    let cache = dir.join("cache");
    for file in [
        "base/0123/root.ext4",
        "builder/0123/root/usr/bin/gcc",
        "apt/archives/kmod_1.0_amd64.deb",
        "ccache/0/1/object",
        "sources/tree/super.c",
        "tools.json",
    ] {
        let path = cache.join(file);
        fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        fs::write(path, file)?;
    }
    Ok(cache)
}

fn clean(cache: &Path) -> Command {
    let mut command = vexfs_images(&["clean", "--all"]);
    command.env("VEXFS_CACHE", cache);
    command
}

fn clean_all() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let cache = cache(dir.path())?;
    expect(clean(&cache), 0, &[])?;
    let left: Vec<_> = fs::read_dir(&cache)?.flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "left: {left:?}");
    expect(clean(&dir.path().join("none")), 0, &[]).map(drop)
}

/// A mount inside the cache, where only this test's program sees it.
fn clean_all_unable() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let cache = cache(dir.path())?;
    let plain = clean(&cache);
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args([
            "sh",
            "-euc",
            "mount -t tmpfs none \"$1\"; shift; exec \"$@\"",
            "sh",
        ])
        .arg(cache.join("builder/0123/root/usr"))
        .arg(plain.get_program())
        .args(plain.get_args())
        .env("VEXFS_CACHE", &cache)
        .current_dir(super::workspace())
        .process_group(0);
    let builder = cache.join("builder").display().to_string();
    expect(command, 75, &["is not empty", &builder, "busy"])?;
    assert!(
        !cache.join("base").exists(),
        "it gave up at the first trouble"
    );
    Ok(())
}

fn clean_all_busy() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let cache = cache(dir.path())?;
    let lock = cache.join("base/0123.lock");
    let held = Flock::lock(fs::File::create(&lock)?, FlockArg::LockSharedNonblock)
        .map_err(|(_, error)| error)?;
    let name = lock.display().to_string();
    expect(clean(&cache), 75, &["is in use", &name, "try again"])?;
    assert!(
        cache.join("base/0123/root.ext4").is_file(),
        "removed although in use"
    );
    drop(held);
    expect(clean(&cache), 0, &[]).map(drop)
}
