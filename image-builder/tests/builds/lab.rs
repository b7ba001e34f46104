//! A workspace to build in, with fake programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use image::Image;
use image_builder::{BuildEvent, BuildRequest};

/// A test and its name.
pub type Test = (&'static str, fn() -> Result<(), String>);

/// Environment variable that makes this program a builder for the lab it names.
pub const BUILDER: &str = "IMAGE_BUILDER_TEST_LAB";
/// The lock file that suites from the registry are published with: two share a crate.
const SUITE_LOCK: &str = r#"
version = 4
[[package]]
name = "fsx"
version = "0.3.2"
dependencies = ["shared"]
[[package]]
name = "pjdfstest"
version = "0.2.2"
dependencies = ["shared"]
[[package]]
name = "shared"
version = "1.2.3"
source = "registry"
checksum = "00aa"
[[package]]
name = "unused"
version = "9.9.9"
source = "registry"
checksum = "00bb"
"#;
/// Programs the fake stands for.
const FAKED: &[&str] = &[
    "apt-cache",
    "apt-config",
    "apt-get",
    "cargo",
    "debugfs",
    "dpkg-deb",
    "e2fsck",
    "git",
    "grub-mkimage",
    "mcopy",
    "mke2fs",
    "mkfs.vfat",
    "mmd",
    "mmdebstrap",
    "packer",
    "qemu-img",
    "qemu-system-x86_64",
    "resize2fs",
    "rustc",
    "sgdisk",
    "ssh-keygen",
    "unshare",
    "zstd",
];
/// Everything a fake build may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a workspace, a VexFS tree, the fakes, and room for cache and output.
pub struct Lab {
    home: tempfile::TempDir,
}

/// How a build ended.
#[derive(Debug)]
pub struct Ended {
    pub ok: bool,
    /// The exit code that `vexfs-images` would have.
    pub code: Option<i32>,
    pub events: Vec<BuildEvent>,
    /// The error's sentence, or the image's folder.
    pub said: String,
    pub took: Duration,
}

impl Ended {
    /// Names of the stages that ran.
    pub fn ran(&self) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|event| match event {
                BuildEvent::StageStarted { stage, .. } => Some(stage.clone()),
                _ => None,
            })
            .collect()
    }

    /// What was told beside the stages.
    pub fn notes(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Note { text } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Why a stage ran.
    pub fn why(&self, name: &str) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            BuildEvent::StageStarted { stage, why } if stage == name => Some(why.as_str()),
            _ => None,
        })
    }
}

impl Lab {
    pub fn new() -> Lab {
        let lab = Lab {
            home: tempfile::tempdir().expect("a temporary directory"),
        };
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for part in ["packer", "provision"] {
            copy(&repository.join(part), &lab.path(&format!("work/{part}")));
        }
        for file in [
            "agent-protocol/lib.rs",
            "guest-agent/main.rs",
            "guest-agent/vexfs-agent.service",
            "guest-proof/main.rs",
            "guest-seed/90-vexfs-seed.rules",
            "guest-seed/main.rs",
            "guest-seed/vexfs-seed@.service",
            "vexctl/main.rs",
            "vexctl/Cargo.toml",
            "vexfs/60-vexfs.rules",
            "vexfs/super.c",
            "vexfs/vexfs.conf",
            "vexfs/vexfs.service",
        ] {
            lab.write(&format!("work/{file}"), file);
        }
        for file in ["Cargo.lock", "Cargo.toml"] {
            let text = fs::read_to_string(repository.join(file)).expect("the workspace's");
            lab.write(&format!("work/{file}"), &text);
        }
        fs::create_dir_all(lab.path("bin")).expect("a directory");
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/builds/fake-tool.sh");
        for name in FAKED {
            symlink(&fake, lab.path("bin").join(name)).expect("a link");
        }
        lab.write("fakes/state", "1.0");
        lab.write("fakes/suite.lock", SUITE_LOCK);
        lab
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    /// Writes a file, with its folders.
    pub fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    /// How often a program was called so far.
    pub fn calls(&self, program: &str) -> usize {
        let calls = fs::read_to_string(self.path("fakes/calls")).unwrap_or_default();
        let start = format!("{program} ");
        calls
            .lines()
            .filter(|line| line.starts_with(&start))
            .count()
    }

    /// How often Packer's machine was started.
    pub fn provisioned(&self) -> usize {
        let calls = fs::read_to_string(self.path("fakes/calls")).unwrap_or_default();
        calls
            .lines()
            .filter(|line| line.starts_with("packer build "))
            .count()
    }

    /// The image's folder.
    pub fn image(&self) -> PathBuf {
        self.path("out/images/vexfs-minimal-1.0.0")
    }

    /// A builder as a process, with request fields changed by `changes` (a JSON object).
    pub fn command(&self, changes: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let old = std::env::var("PATH").unwrap_or_default();
        command
            .env(BUILDER, self.home.path())
            .env("CHANGES", changes)
            .env("FAKES", self.path("fakes"))
            .env("CARGO_HOME", self.path("cargo"))
            .env("PATH", format!("{}:{old}", self.path("bin").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Builds with the default request.
    pub fn build(&self) -> Ended {
        self.build_with("{}")
    }

    /// Builds with request fields changed.
    pub fn build_with(&self, changes: &str) -> Ended {
        let since = Instant::now();
        let child = self.command(changes).spawn().expect("a builder");
        let output = child.wait_with_output().expect("its output");
        ended(
            output.status,
            &output.stdout,
            &output.stderr,
            since.elapsed(),
        )
    }

    /// The request a builder makes, for tests that look at the result.
    pub fn open(&self) -> Result<Image, String> {
        Image::open(self.image()).map_err(|error| error.to_string())
    }

    /// What is in the cache's folder for work in progress.
    pub fn in_progress(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("cache/tmp")).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// Waits until a slowed-down program runs, and returns its process id.
    pub fn wait_for_slow(&self, program: &str) -> String {
        let file = self.path(&format!("fakes/slow-{program}"));
        let since = Instant::now();
        loop {
            let pid = fs::read_to_string(&file)
                .unwrap_or_default()
                .trim()
                .to_owned();
            if !pid.is_empty() {
                return pid;
            }
            assert!(since.elapsed() < PATIENCE, "{program} was never called");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Reads a builder's output.
pub fn ended(status: ExitStatus, stdout: &[u8], stderr: &[u8], took: Duration) -> Ended {
    let events = String::from_utf8_lossy(stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    Ended {
        ok: status.success(),
        code: status.code(),
        events,
        said: String::from_utf8_lossy(stderr).trim().to_owned(),
        took,
    }
}

/// The other side of [`Lab::command`].
pub fn be_the_builder(home: &Path) {
    let mut request = BuildRequest::new(home.join("work"));
    request.out_dir = home.join("out");
    request.cache_dir = home.join("cache");
    let mut fields = serde_json::to_value(&request).expect("a value");
    let changes = std::env::var("CHANGES").expect("changes");
    let changes: serde_json::Value = serde_json::from_str(&changes).expect("JSON");
    let changes = changes.as_object().expect("an object");
    let mut cancel_after = None;
    for (name, value) in changes {
        if name == "cancel_after_ms" {
            cancel_after = value.as_u64().map(Duration::from_millis);
        } else {
            fields[name] = value.clone();
        }
    }
    let request: BuildRequest = serde_json::from_value(fields).expect("a request");
    let show = |event: &BuildEvent| {
        println!("{}", serde_json::to_string(event).expect("JSON"));
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let result = runtime.block_on(async {
        let build = image_builder::build(&request, &show);
        tokio::time::timeout(cancel_after.unwrap_or(PATIENCE), build).await
    });
    match result {
        Ok(Ok(image)) => eprintln!("{}", image.dir.display()),
        Ok(Err(error)) => {
            eprintln!("{error}");
            std::process::exit(error.fault().exit_code().into());
        }
        Err(_) => {
            eprintln!("cancelled");
            std::process::exit(2);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).expect("a link"), target).expect("a link");
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// `Err` with a sentence unless the condition holds.
pub fn must(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(sentence()) }
}
