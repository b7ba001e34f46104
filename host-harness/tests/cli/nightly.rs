//! Dear things, once a night: whole builds, and machines of other people's making.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use super::{Row, copy, expect, out, vexfs_images, workspace};

pub const TESTS: &[Row] = &[
    ("every_disk_format_boots", formats),
    ("a_tree_that_does_not_load_is_told", does_not_load),
    ("a_tree_that_does_not_mount_is_told", does_not_mount),
    ("an_ordinary_user_builds_and_validates", ordinary_user),
];

const NAME: &str = "vexfs-minimal-1.0.0";
/// Until a getty asks for a name, under emulation on a busy host.
const BOOT: Duration = Duration::from_secs(300);

fn cache() -> PathBuf {
    std::env::var_os("VEXFS_CACHE").map_or_else(|| out().join("cache"), Into::into)
}

/// Each form by the driver of its own format, in a plain QEMU without anything of ours.
fn formats() -> Result<(), Failed> {
    let dir = tempfile::tempdir_in(workspace().join("target"))?;
    let mut command = vexfs_images(&["build", "--no-validation", "--format", "raw,vmdk,vhd,gcp"]);
    command
        .arg("--output-dir")
        .arg(dir.path())
        .env("VEXFS_CACHE", cache());
    expect(command, 0, &[])?;
    let images = dir.path().join("images").join(NAME);
    let google = dir.path().join("google");
    fs::create_dir(&google)?;
    let unpacked = Command::new("tar")
        .arg("--extract")
        .arg("--gzip")
        .arg("--file")
        .arg(images.join(format!("{NAME}.gcp.tar.gz")))
        .arg("--directory")
        .arg(&google)
        .status()?;
    assert!(unpacked.success());
    for (file, format) in [
        (images.join(format!("{NAME}.raw")), "raw"),
        (images.join(format!("{NAME}.vmdk")), "vmdk"),
        (images.join(format!("{NAME}.vhd")), "vpc"),
        (google.join("disk.raw"), "raw"),
    ] {
        let console = dir.path().join(format!("console-{format}"));
        boots(&file, format, &console).map_err(|e| format!("{}: {e}", file.display()))?;
        println!("{} boots", file.display());
    }
    Ok(())
}

/// Ends with the test, whatever becomes of it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("QEMU may still run: {error}");
        }
    }
}

fn boots(disk: &Path, format: &str, console: &Path) -> Result<(), String> {
    let qemu = Command::new("qemu-system-x86_64")
        .args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args([
            "-smp",
            "2",
            "-m",
            "1024",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-drive")
        // Nothing is written to the image.
        .arg(format!(
            "file={},format={format},if=virtio,snapshot=on",
            disk.display()
        ))
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut machine = Machine(qemu);
    let since = Instant::now();
    loop {
        let text = fs::read(console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if text.contains("login:") {
            return Ok(());
        }
        if let Some(status) = machine.0.try_wait().map_err(|e| e.to_string())? {
            return Err(format!("QEMU ended with {status}; the console: {text}"));
        }
        if since.elapsed() > BOOT {
            return Err(format!("no login after {BOOT:?}; the console: {text}"));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Builds the in-tree file system with one place changed; the good image that is there must stay.
fn broken(file: &str, (from, to): (&str, &str), words: &[&str]) -> Result<(), Failed> {
    let dir = tempfile::tempdir_in(workspace().join("target"))?;
    let tree = dir.path().join("vexfs");
    copy(&workspace().join("vexfs"), &tree)?;
    let place = tree.join(file);
    let text = fs::read_to_string(&place)?;
    assert!(text.contains(from), "{file} has no `{from}` any more");
    fs::write(&place, text.replacen(from, to, 1))?;
    let build = || {
        let mut command = vexfs_images(&["build", "--no-validation"]);
        command
            .arg("--output-dir")
            .arg(dir.path())
            .env("VEXFS_CACHE", cache());
        command
    };
    expect(build(), 0, &[])?;
    let manifest = dir.path().join("images").join(NAME).join("manifest.json");
    let before = fs::read(&manifest)?;
    let mut command = build();
    command.arg("--vexfs-source").arg(&tree);
    expect(command, 75, words)?;
    assert!(
        fs::read(&manifest)? == before,
        "the earlier image was touched"
    );
    let verify = {
        let mut command = vexfs_images(&["verify"]);
        command.arg(dir.path().join("images").join(NAME));
        command
    };
    expect(verify, 0, &[])?;
    let names: Vec<_> = fs::read_dir(dir.path().join("images"))?.flatten().collect();
    let visible = names
        .iter()
        .filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(visible.count(), 1, "{names:?}");
    Ok(())
}

fn does_not_load() -> Result<(), Failed> {
    broken(
        "super.c",
        (
            "\tvexfs_check_layout();\n",
            "\tvexfs_check_layout();\n\tif (jiffies)\n\t\treturn -EPROTO;\n",
        ),
        &[
            "provision/80-test.sh failed in the guest",
            "could not insert 'vexfs'",
            "Protocol error",
        ],
    )
}

fn does_not_mount() -> Result<(), Failed> {
    broken(
        "mount.c",
        (
            "return get_tree_bdev(fc, vexfs_fill_super);",
            "return jiffies ? -EXDEV : get_tree_bdev(fc, vexfs_fill_super);",
        ),
        &["provision/80-test.sh failed in the guest", "mount: "],
    )
}

/// A user of the host that goes with the test.
struct User {
    name: String,
    home: tempfile::TempDir,
}

impl User {
    /// With ids lent for user namespaces (subuid(5)), or without.
    fn new(purpose: &str, lent: bool) -> Result<User, Failed> {
        let name = format!("vexfs-{purpose}-{}", std::process::id() % 10_000);
        // Not below the workspace: that may be closed to other users.
        let home = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in("/var/tmp")?;
        let mut command = Command::new("useradd");
        command
            .arg("--no-create-home")
            .arg("--home-dir")
            .arg(home.path());
        if lent {
            command.args(["--shell", "/bin/sh"]);
        } else {
            command.args(["--system", "--shell", "/bin/sh"]);
        }
        if Command::new("getent")
            .args(["group", "kvm"])
            .stdout(Stdio::null())
            .status()?
            .success()
        {
            command.args(["--groups", "kvm"]);
        }
        let status = command.arg(&name).status()?;
        assert!(status.success(), "useradd: {status}");
        let user = User { name, home };
        std::os::unix::fs::chown(user.home.path(), Some(user.id("-u")?), Some(user.id("-g")?))?;
        Ok(user)
    }

    fn id(&self, what: &str) -> Result<u32, Failed> {
        let output = Command::new("id").args([what, &self.name]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    /// `vexfs-images` as that user, who has of root's only the Rust toolchain, and that to read: it is
    /// mounted where the user can see it, in a namespace that ends with the program.
    fn vexfs_images(&self, arguments: &[&str]) -> Result<Command, Failed> {
        const AS_USER: &str = "
            user=$1 home=$2 rust=$3 cargo=$4; shift 4
            mkdir -p $home/rust $home/cargo
            mount --bind $rust $home/rust; mount -o remount,bind,ro $home/rust
            mount --bind $cargo $home/cargo; mount -o remount,bind,ro $home/cargo
            exec runuser -u $user -- env -i HOME=$home PATH=$home/rust/bin:$TOOLS:/usr/bin:/bin \
                CARGO_HOME=$home/cargo CARGO_TARGET_DIR=$home/target CARGO_NET_OFFLINE=true VEXFS_CACHE=$home/cache \"$@\"";
        let sysroot = Command::new("rustc")
            .args(["--print", "sysroot"])
            .output()?;
        let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
        let cargo = keeper::find::cargo_home().unwrap_or_default();
        let program = vexfs_images(&[]);
        let tools = std::env::var_os("VEXFS_TOOLS").map_or_else(|| out().join("tools"), Into::into);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-euc", AS_USER, "sh", &self.name])
            .arg(self.home.path())
            .arg(sysroot)
            .arg(cargo)
            .arg(program.get_program())
            .args(arguments)
            .arg("--output-dir")
            .arg(self.home.path().join("out"))
            .env("TOOLS", tools.join("bin"))
            .current_dir(workspace());
        Ok(command)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let removed = Command::new("userdel").arg(&self.name).status();
        if !removed.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("user {} may still be there: {removed:?}", self.name);
        }
    }
}

/// One who has nothing but what every user has; and one who may not have user namespaces.
fn ordinary_user() -> Result<(), Failed> {
    if !nix::unistd::geteuid().is_root() {
        // The whole of this file runs as one then.
        let mut command = vexfs_images(&["ci"]);
        let dir = tempfile::tempdir_in(workspace().join("target"))?;
        command.arg("--output-dir").arg(dir.path());
        command.env("VEXFS_CACHE", dir.path().join("cache"));
        return expect(command, 0, &[" 0 failed"]).map(drop);
    }
    let poor = User::new("poor", false)?;
    let command = poor.vexfs_images(&["build", "--no-validation"])?;
    expect(
        command,
        75,
        &["an ordinary user builds in a user namespace", "/etc/subuid"],
    )?;
    let user = User::new("user", true)?;
    let command = user.vexfs_images(&["ci"])?;
    let output = expect(command, 0, &[" 0 failed"])?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let image = user.home.path().join("out/images").join(NAME);
    let manifest = fs::metadata(image.join("manifest.json"))?;
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&manifest),
        user.id("-u")?
    );
    let left: Vec<_> = fs::read_dir(user.home.path().join("cache/tmp"))?
        .flatten()
        .collect();
    assert!(left.is_empty(), "left: {left:?}");
    Ok(())
}
