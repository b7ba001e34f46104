//! The base: Debian's packages as an ext4 file system, by mmdebstrap, without network.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use image::{Package, SECOND_KERNEL_SKU};

use crate::BuildError;
use crate::archive::{Archive, PackageSet};
use crate::request::data::Recipe;
use crate::run::Site;
use crate::source::tree;
use crate::stages::linux;
use crate::store::key::{self, Inputs};
use crate::store::{Entry, Stage};

/// Name of the stage.
pub(crate) const STAGE: &str = "base";
/// The root file system's file in the entry.
pub(crate) const ROOT: &str = "root.ext4";
/// The file in the entry that lists the packages.
const CONTENTS: &str = "contents";
/// The kernel's file in the entry.
pub(crate) const KERNEL: &str = "vmlinuz";
/// Files of the workspace that go into the base.
const HOME: &str = "provision/base";
/// Size of the file system before it is fitted to the disk: room for the largest variant's files.
const SIZE: u64 = 6 << 30;
/// The script mmdebstrap runs in the end.
const CUSTOMIZE: &str = "provision/base/customize.sh";

/// Everything about a base that is decided before it is made.
#[derive(Debug)]
pub(crate) struct Base<'a> {
    pub(crate) workspace: &'a Path,
    pub(crate) recipe: &'a Recipe,
    pub(crate) packages: &'a [String],
    pub(crate) set: &'a PackageSet,
    pub(crate) image_sources: String,
    /// Appended to the kernel's command line.
    pub(crate) kernel_parameters: &'a str,
    /// The release of a second kernel.
    pub(crate) second: Option<&'a str>,
}

impl Base<'_> {
    /// What it is made from besides a kernel compiled for it.
    pub(crate) fn inputs(&self) -> Result<Inputs, BuildError> {
        let home = self.workspace.join(HOME);
        let files = home.join("files");
        let customize = self.workspace.join(CUSTOMIZE);
        let mut inputs = Inputs::default();
        if !self.kernel_parameters.is_empty() {
            inputs = inputs.with("kernel parameters", self.kernel_parameters);
        }
        Ok(inputs
            .with_all(self.set.inputs())
            .with("packages asked for", self.packages.join(" "))
            .with(
                "provision/base/files",
                tree::digest(&files).map_err(BuildError::io("read", files))?,
            )
            .with(
                CUSTOMIZE,
                key::file_digest(&customize).map_err(BuildError::io("read", customize))?,
            )
            .with("recipe.toml [base]", format!("{:?}", self.recipe.base))
            .with("apt sources in the image", &*self.image_sources))
    }

    /// Makes it; the entry has [`ROOT`] and the list of packages.
    pub(crate) async fn make(
        &self,
        site: &Site<'_>,
        stage: &Stage,
        archive: &Archive,
        linux: Option<&Entry>,
    ) -> Result<Entry, BuildError> {
        let uuid = root_uuid(&stage.inputs);
        site.stage(stage, async |result| {
            let work = site.scratch(STAGE)?;
            let debs = work.path().join("debs");
            archive
                .fetch(site, STAGE, self.packages, self.set, &debs)
                .await?;
            if let Some(linux) = linux {
                let (from, to) = (linux.dir.join(linux::PACKAGE), debs.join(OUR_KERNEL));
                fs::copy(&from, to).map_err(BuildError::io("copy", from))?;
            }
            let files = work.path().join("files");
            self.stage_files(&files, &uuid)?;
            // mmdebstrap's root: in unshare mode other user ids have to get there.
            let outside = is_unshared().then(|| site.scratch_outside()).transpose()?;
            let tmp = outside.as_ref().unwrap_or(&work).path();
            fs::set_permissions(tmp, fs::Permissions::from_mode(0o755))
                .map_err(BuildError::io("change", tmp))?;
            for (name, bytes) in [(ROOT, SIZE), (CONTENTS, 0), (KERNEL, 0)] {
                let path = result.join(name);
                let file = fs::File::create(&path).map_err(BuildError::io("make", &path))?;
                // In unshare mode the writer is another user; the directory above is not open to it.
                file.set_len(bytes)
                    .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o666)))
                    .map_err(BuildError::io("change", &path))?;
            }
            let customize = self.workspace.join(CUSTOMIZE);
            let script = tmp.join("customize.sh");
            fs::copy(&customize, &script).map_err(BuildError::io("copy", customize))?;
            let base = &self.recipe.base;
            let command = private_mounts("bash")
                // Descriptors pass where paths do not; see customize.sh. High ones: mmdebstrap
                // makes some of its own, and passes them to a shell that knows one digit only.
                .args([
                    "-c",
                    "exec 97<>\"$1\" 98<>\"$2\" 99<>\"$3\"; shift 3; exec mmdebstrap \"$@\"",
                    "sh",
                ])
                .args([KERNEL, CONTENTS, ROOT].map(|name| result.join(name)))
                .args(arguments(archive, &files, &debs, self.packages, &script))
                .current_dir(tmp)
                .env("HOME", tmp)
                .env("TMPDIR", tmp)
                .env("VEXFS_UNITS", base.enabled_units.join(" "))
                .env("VEXFS_EXCLUDES", base.path_excludes.join(" "))
                .env("VEXFS_KEEP", base.path_includes.join(" "))
                .env("VEXFS_KERNEL", linux.map_or("", |_| OUR_KERNEL))
                .env("VEXFS_UUID", &uuid);
            site.step(STAGE, command).await?;
            for name in [ROOT, CONTENTS, KERNEL] {
                fs::set_permissions(result.join(name), fs::Permissions::from_mode(0o644))
                    .map_err(BuildError::io("change", result.join(name)))?;
            }
            Ok(())
        })
        .await
    }

    /// The files put into the root before any package: those of the repository with their
    /// placeholders filled in, and what follows from the recipe.
    fn stage_files(&self, to: &Path, uuid: &str) -> Result<(), BuildError> {
        let from = self.workspace.join(HOME).join("files");
        tree::copy(&from, to).map_err(BuildError::io("copy", &from))?;
        let base = &self.recipe.base;
        let modules = base.initramfs_modules.join(",");
        let parameters = match self.kernel_parameters {
            "" => String::new(),
            words => format!(" {words}"),
        };
        let second = self
            .second
            .map_or(String::new(), |release| second_entry(release, &parameters));
        for file in FILLED_IN {
            let path = to.join(file);
            let text = fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
            let text = text
                .replace("@SECOND_KERNEL@", &second)
                .replace("@KERNEL_PARAMETERS@", &parameters)
                .replace("@ROOT_UUID@", uuid)
                .replace("@INITRAMFS_MODULES@", &modules);
            fs::write(&path, text).map_err(BuildError::io("write", &path))?;
        }
        let write = |path: &str, text: &str| {
            let path = to.join(path);
            let dir = path.parent().unwrap_or(to);
            fs::create_dir_all(dir)
                .and_then(|()| fs::write(&path, text))
                .map_err(BuildError::io("write", &path))
        };
        write("etc/dpkg/dpkg.cfg.d/vexfs", &dpkg_config(self.recipe))?;
        write("etc/apt/vexfs.sources", &self.image_sources)?;
        let masked = [
            ("etc/systemd/system", &base.masked_units),
            ("etc/systemd/system-generators", &base.masked_generators),
        ];
        for (dir, names) in masked {
            let dir = to.join(dir);
            fs::create_dir_all(&dir).map_err(BuildError::io("make", &dir))?;
            for name in names {
                let path = dir.join(name);
                symlink("/dev/null", &path).map_err(BuildError::io("make", path))?;
            }
        }
        Ok(())
    }
}

/// What a kernel compiled for the image is called among the downloaded packages.
const OUR_KERNEL: &str = "vexfs-kernel.deb";

/// grub.cfg's entry of a second kernel. It boots when the machine asks for it: offset 0x19 of the
/// SMBIOS system information is the SKU number.
fn second_entry(release: &str, parameters: &str) -> String {
    format!(
        "smbios --type 1 --get-string 25 --set wish\n\
         if [ \"$wish\" = \"{SECOND_KERNEL_SKU}\" ]; then set default=1; fi\n\
         menuentry \"VexFS, kernel {release}\" {{\n    linux /boot/vmlinuz-{release} root=UUID=@ROOT_UUID@ ro \
         console=tty0 console=ttyS0,115200 no_timer_check{parameters}\n    initrd /boot/initrd.img-{release}\n}}\n"
    )
}

/// Files with placeholders.
const FILLED_IN: &[&str] = &[
    "boot/grub/grub.cfg",
    "etc/fstab",
    "etc/tiny-initramfs/tiny-initramfs.conf",
];

/// dpkg.cfg(5) of the image: what of every package stays out, in later upgrades too.
fn dpkg_config(recipe: &Recipe) -> String {
    let excludes = recipe.base.path_excludes.iter();
    let includes = recipe.base.path_includes.iter();
    excludes
        .map(|path| format!("path-exclude={path}\n"))
        .chain(includes.map(|path| format!("path-include={path}\n")))
        .collect()
}

/// Whether mmdebstrap works in a user namespace: without root.
fn is_unshared() -> bool {
    !nix::unistd::geteuid().is_root()
}

/// A program whose mounts nobody else sees, so that they go with it whatever kills it
/// (mount_namespaces(7)): as root, mmdebstrap mounts /proc, /sys and /dev in the host's own
/// namespace; in a user namespace it has one of its own.
fn private_mounts(program: &str) -> keeper::Kept {
    if is_unshared() {
        return Site::program(program);
    }
    Site::program("unshare").args(["--mount", "--propagation=private", program])
}

/// mmdebstrap's command line.
fn arguments(
    archive: &Archive,
    files: &Path,
    debs: &Path,
    packages: &[String],
    customize: &Path,
) -> Vec<String> {
    let mode = if is_unshared() { "unshare" } else { "root" };
    // apt's patterns and apt itself are in the variant.
    let include: Vec<_> = packages
        .iter()
        .filter(|name| !name.starts_with('?') && *name != "apt")
        .map(String::as_str)
        .collect();
    let put = |from: &Path, to: &str, copy: &str| {
        let from = from.display();
        if is_unshared() {
            // Through mmdebstrap, which stays with one foot outside the user namespace.
            format!("--setup-hook=sync-in '{from}' {to}")
        } else {
            format!("--setup-hook={copy} '{from}/.' \"$1{to}\"")
        }
    };
    vec![
        "--verbose".into(),
        format!("--mode={mode}"),
        "--variant=apt".into(),
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr".into(),
        format!("--include={}", include.join(",")),
        // The packages are in place and stay until our own cleaning, which has to come before the
        // file system is made.
        "--skip=download/empty,essential/unlink,cleanup".into(),
        "--setup-hook=mkdir -p \"$1/var/cache/apt/archives\"".into(),
        put(files, "/", "cp -a"),
        put(&archive.lists(), "/var/lib/apt/lists", "cp -a"),
        // Only read, and by far the largest: hard links do.
        put(debs, "/var/cache/apt/archives", "cp -al"),
        // With its caches there, mmdebstrap takes the lists for updated and does not go to the
        // network. fsync(2) for every file of a root that is thrown away on failure is for nothing.
        "--setup-hook=chown -R 0:0 \"$1/etc\" \"$1/boot\" \"$1/var\"; \
         APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-cache gencaches; \
         echo force-unsafe-io >\"$1/etc/dpkg/dpkg.cfg.d/vexfs-build\""
            .into(),
        format!("--customize-hook={} \"$1\"", customize.display()),
        "--format=null".into(),
        "bookworm".into(),
        "/dev/null".into(),
        archive.sources_list().display().to_string(),
    ]
}

/// The root file system's UUID: the same for the same base.
pub(crate) fn root_uuid(inputs: &Inputs) -> String {
    uuid(&inputs.key(), "root")
}

/// A UUID (version 8 of RFC 9562: of our own making) from a key and a purpose.
pub(crate) fn uuid(key: &str, purpose: &str) -> String {
    let hex = key::digest(format!("{purpose} {key}"));
    format!(
        "{}-{}-8{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}

/// Leaves the base's kernel at `<cache>/kernel/vmlinuz-<release>`, for whoever boots it directly.
pub(crate) fn publish_kernel(
    site: &Site<'_>,
    entry: &Entry,
    release: &str,
) -> Result<(), BuildError> {
    let dir = site.cache.join("kernel");
    let to = dir.join(format!("vmlinuz-{release}"));
    if to.is_file() {
        return Ok(());
    }
    let from = entry.dir.join(KERNEL);
    // Builds side by side may all do this.
    let copy = || {
        fs::create_dir_all(&dir)?;
        let partial = tempfile::Builder::new()
            .prefix(".vmlinuz-")
            .tempfile_in(&dir)?;
        fs::copy(&from, partial.path())?;
        fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o644))?;
        partial.persist(&to).map_err(|error| error.error)
    };
    copy().map(drop).map_err(BuildError::io("copy", from))
}

/// What is in a base.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Seconds since the epoch that stand for "now" in it.
    pub(crate) epoch: u64,
    pub(crate) packages: Vec<Package>,
}

/// Reads what is in a base.
pub(crate) fn contents(entry: &Entry) -> Result<Contents, BuildError> {
    let path = entry.dir.join(CONTENTS);
    let text = fs::read_to_string(&path).map_err(BuildError::io("read", path))?;
    Ok(parse_contents(&text))
}

/// `name<TAB>version<TAB>architecture` for each package and `epoch<TAB>seconds`, one line each.
fn parse_contents(text: &str) -> Contents {
    let mut contents = Contents::default();
    for line in text.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["epoch", seconds] => contents.epoch = seconds.parse().unwrap_or(0),
            [name, version, architecture] => contents.packages.push(Package {
                name: name.into(),
                version: version.into(),
                architecture: architecture.into(),
            }),
            _ => {}
        }
    }
    contents.packages.sort();
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_follows_from_the_key() {
        let one = uuid("abc", "root");
        assert_eq!(one, uuid("abc", "root"));
        assert_ne!(one, uuid("abc", "disk"));
        assert_ne!(one, uuid("abd", "root"));
        let lengths: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn a_second_kernel_has_an_entry_that_a_machine_can_ask_for() {
        let entry = second_entry("6.1.9-vexfs-debug", " quiet");
        assert!(entry.contains("--get-string 25"), "{entry}");
        assert!(entry.contains("linux /boot/vmlinuz-6.1.9-vexfs-debug root=UUID=@ROOT_UUID@ ro"));
        assert!(
            entry
                .contains("no_timer_check quiet\n    initrd /boot/initrd.img-6.1.9-vexfs-debug\n}")
        );
    }

    #[test]
    fn the_package_list_is_read_and_sorted() {
        let contents = parse_contents("zlib1g\t1:1.2\tamd64\nadduser\t3.1\tall\n\nepoch\t17\n");
        assert_eq!(contents.epoch, 17);
        let packages = contents.packages;
        let names: Vec<_> = packages.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["adduser", "zlib1g"]);
        assert_eq!(packages[1].version, "1:1.2");
    }
}
