//! Images of a few megabytes that look like real ones to a publisher, and what a reader finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;
use publisher::{Content, Destination, ImageFiles, Index, Options, PublishError, Published, Tally};
use sha2::{Digest, Sha256};

/// Size of a disk: large enough that a transfer can be cut in the middle.
const DISK: usize = 3 << 20;

/// A folder to work in.
pub struct World {
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Result<World, Failed> {
        let dir = tempfile::tempdir()?;
        Ok(World { dir })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> PathBuf {
        self.path("publish.log")
    }

    pub fn options(&self) -> Options {
        Options {
            keep_last: None,
            ssh_config: None,
            registries_conf: None,
            log: self.log(),
            scratch: self.path("scratch"),
            now: 1_700_000_000,
        }
    }

    /// A bundle with one image of that version. Images of different `salt` differ in a few blocks.
    pub fn bundle(&self, version: &str, salt: u8, passed: bool) -> Result<Bundle, Failed> {
        let name = format!("vexfs-minimal-{version}");
        let image = self.path(&format!("images-{salt}")).join(&name);
        fs::create_dir_all(&image)?;
        let disk = image.join(format!("{name}.qcow2"));
        fs::write(&disk, content(salt))?;
        let zst = image.join(format!("{name}.qcow2.zst"));
        must(
            Command::new("zstd")
                .args(["-q", "-f"])
                .arg(&disk)
                .arg("-o")
                .arg(&zst),
        )?;
        fs::write(image.join("manifest.json"), format!("{{\"salt\":{salt}}}"))?;
        fs::write(image.join(".verified.json"), "not for others")?;
        let mut known = BTreeMap::new();
        for path in [&disk, &zst] {
            known.insert(leaf(path), hex::encode(Sha256::digest(fs::read(path)?)));
        }
        let junit = self.path("junit.xml");
        fs::write(&junit, "<testsuites/>")?;
        let content = Content {
            images: vec![ImageFiles {
                dir: image.clone(),
                variant: "minimal".into(),
                version: version.into(),
                kernel: "6.1.0".into(),
                disk: leaf(&disk),
                compressed: leaf(&zst),
                known,
                checks: Tally {
                    passed: 14,
                    failed: usize::from(!passed),
                    skipped: 0,
                },
                passed,
            }],
            reports: vec![junit],
            made: "2026-01-31 12:00:00 UTC".into(),
            ..Content::default()
        };
        let dir = self.path("bundle");
        let index = block_on(publisher::bundle(&content, &dir, &self.log()))?;
        Ok(Bundle {
            index,
            dir,
            disk,
            content,
        })
    }
}

/// A bundle on disk.
pub struct Bundle {
    pub index: Index,
    pub dir: PathBuf,
    /// The image's own disk.
    pub disk: PathBuf,
    pub content: Content,
}

impl Bundle {
    pub fn release(&self) -> String {
        self.index.images[0].release()
    }

    pub fn publish(&self, to: &str, options: &Options) -> Result<Published, PublishError> {
        let place: Destination = to.parse()?;
        let all = block_on(publisher::publish(&self.index, &self.dir, &place, options))?;
        Ok(all.into_iter().next().expect("one image"))
    }
}

/// Bytes that zstd cannot make small, the same but for a few blocks whatever the salt.
fn content(salt: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DISK);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while bytes.len() < DISK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    for block in 0..8 {
        bytes[block * 300_000..][..64].fill(salt);
    }
    bytes
}

pub fn leaf(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future)
}

/// `sha256sum -c` in a release, and no names a reader should not see.
pub fn whole(release: &Path) -> Result<(), Failed> {
    let checked = Command::new("sha256sum")
        .args(["--quiet", "-c", "SHA256SUMS"])
        .current_dir(release)
        .output()?;
    if !checked.status.success() {
        return Err(String::from_utf8_lossy(&checked.stdout).into_owned().into());
    }
    let index = fs::read(release.join("index.json"))?;
    let index: Index = serde_json::from_slice(&index)?;
    assert!(index.files.len() >= 4, "{:?}", index.files);
    for file in &index.files {
        assert!(
            release.join(&file.name).is_file(),
            "{} is missing",
            file.name
        );
    }
    Ok(())
}

/// What is in a folder, sorted, without the lock.
pub fn names(dir: &Path) -> Result<Vec<String>, Failed> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != ".lock");
    names.sort();
    Ok(names)
}

/// A server that ci/setup has unpacked, to be started with its libraries.
pub fn unpacked(program: &str) -> Command {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tools = std::env::var_os("VEXFS_TOOLS").map_or(workspace.join("out/tools"), PathBuf::from);
    let root = tools.join("unpacked");
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|dir| root.join(dir));
    let mut command = Command::new(root.join(program));
    command.env(
        "LD_LIBRARY_PATH",
        std::env::join_paths(libraries).unwrap_or_default(),
    );
    command
}

/// A command that must end well.
pub fn must(command: &mut Command) -> Result<Vec<u8>, Failed> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
