//! What this host offers and what it lacks: the facts behind `vexfs-images doctor`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keeper::{Kept, room};
use machine::room::{lacks_for_one, ram_folder};
use machine::{MachineSpec, admission, run_parent};

pub use machine::room::RamFolder;

/// A program the project needs: name, how to ask its version, where it comes from, what it is for.
struct Tool {
    program: &'static str,
    ask: &'static [&'static str],
    from: Source,
    purpose: &'static str,
}

#[derive(Clone, Copy)]
enum Source {
    Debian(&'static str),
    Cargo,
    Rustup,
}

use Source::{Cargo, Debian, Rustup};

#[rustfmt::skip]
const TOOLS: &[Tool] = &[
    Tool { program: "qemu-system-x86_64", ask: &["--version"], from: Debian("qemu-system-x86"), purpose: "boots images" },
    Tool { program: "qemu-img", ask: &["--version"], from: Debian("qemu-utils"), purpose: "makes disks and overlays" },
    Tool { program: "packer", ask: &["version"], from: Debian("packer"), purpose: "provisions images" },
    Tool { program: "mmdebstrap", ask: &["--version"], from: Debian("mmdebstrap"), purpose: "makes the base" },
    Tool { program: "mke2fs", ask: &["-V"], from: Debian("e2fsprogs"), purpose: "file systems without mounting" },
    Tool { program: "sgdisk", ask: &["--version"], from: Debian("gdisk"), purpose: "partition table" },
    Tool { program: "mcopy", ask: &["--version"], from: Debian("mtools"), purpose: "EFI partition without mounting" },
    Tool { program: "grub-mkimage", ask: &["--version"], from: Debian("grub2-common"), purpose: "boot loader" },
    Tool { program: "ssh-keygen", ask: &[], from: Debian("openssh-client"), purpose: "Packer's key of one build" },
    Tool { program: "zstd", ask: &["--version"], from: Debian("zstd"), purpose: "compressed images" },
    Tool { program: "make", ask: &["--version"], from: Debian("make"), purpose: "builds modules" },
    Tool { program: "gcc", ask: &["--version"], from: Debian("gcc"), purpose: "links Rust programs" },
    Tool { program: "git", ask: &["--version"], from: Debian("git"), purpose: "names the source's commit" },
    Tool { program: "cargo", ask: &["--version"], from: Rustup, purpose: "builds our programs" },
    Tool { program: "cargo-nextest", ask: &["--version"], from: Cargo, purpose: "runs the tests" },
];

/// What became of looking for one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The program's name.
    pub program: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The first line of what it says of its version; `None` when it is missing.
    pub version: Option<String>,
    /// The command that installs it.
    pub remedy: String,
}

/// Asks every tool for its version.
pub async fn tools() -> Vec<Found> {
    let mut found = Vec::new();
    for tool in TOOLS {
        let version = match keeper::find::program(Path::new(tool.program)) {
            Some(path) => Some(ask(&path, tool.ask).await),
            None => None,
        };
        found.push(Found {
            program: tool.program,
            purpose: tool.purpose,
            version,
            remedy: match tool.from {
                Debian(package) => format!("apt-get install -y {package}"),
                Cargo => "ci/setup".to_owned(),
                Rustup => "install the Rust toolchain with rustup".to_owned(),
            },
        });
    }
    found
}

/// The commands that mend all that is missing, each once; Debian packages in one command.
pub fn remedies(found: &[Found]) -> Vec<String> {
    let mut packages = Vec::new();
    let mut others = Vec::new();
    for missing in found.iter().filter(|f| f.version.is_none()) {
        match missing.remedy.strip_prefix("apt-get install -y ") {
            Some(package) => packages.push(package),
            None if others.contains(&missing.remedy) => {}
            None => others.push(missing.remedy.clone()),
        }
    }
    if !packages.is_empty() {
        others.insert(
            0,
            format!(
                "apt-get install -y --no-install-recommends {}",
                packages.join(" ")
            ),
        );
    }
    others
}

async fn ask(program: &Path, question: &[&str]) -> String {
    if question.is_empty() {
        return program.display().to_string();
    }
    let Ok((mut read, write)) = std::io::pipe() else {
        return "?".to_owned();
    };
    let Ok(again) = write.try_clone() else {
        return "?".to_owned();
    };
    let command = Kept::new(program)
        .args(question.iter().copied())
        .stdout(write)
        .stderr(again);
    let Ok(mut child) = command.spawn().await else {
        return "does not start".to_owned();
    };
    if tokio::time::timeout(Duration::from_secs(10), child.wait())
        .await
        .is_err()
    {
        return "does not answer".to_owned();
    }
    let mut text = Vec::new();
    // Its keeper is gone and all writers with it: this ends.
    if read.read_to_end(&mut text).is_err() {
        return "?".to_owned();
    }
    String::from_utf8_lossy(&text)
        .lines()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("?")
        .to_owned()
}

/// Free space in MiB of the file system that holds `path` or its nearest existing parent, for
/// users without privileges (statvfs(3)).
pub fn free_mib(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|dir| dir.exists())?;
    room::free_mib(there).ok()
}

/// What this host has for machines.
#[derive(Debug, Clone)]
pub struct Room {
    /// Memory, less what a control group keeps from us.
    pub memory: Option<room::Memory>,
    /// Where guests' memory is.
    pub ram: Option<RamFolder>,
    /// Where running machines have their disks, and what is free there in MiB.
    pub run: (PathBuf, Option<u64>),
    /// How many machines of the usual size may run at once.
    pub machines: u64,
    /// What is short for one of them: sentences with figures and remedy.
    pub lacks: Vec<String>,
}

/// Looks at the places a machine writes to.
pub fn room() -> Room {
    let run = run_parent();
    Room {
        memory: room::Memory::here(),
        ram: ram_folder(),
        run: (run.clone(), free_mib(&run)),
        machines: admission::Tickets::here().machines(&MachineSpec::new("one", "image", run)),
        lacks: lacks_for_one(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_for_all_missing_packages() {
        let found = |program, version: Option<&str>, remedy: &str| Found {
            program,
            purpose: "",
            version: version.map(str::to_owned),
            remedy: remedy.to_owned(),
        };
        let all = [
            found("a", None, "apt-get install -y pa"),
            found("b", Some("1"), "apt-get install -y pb"),
            found("c", None, "apt-get install -y pc"),
            found("d", None, "ci/setup"),
            found("e", None, "ci/setup"),
        ];
        assert_eq!(
            remedies(&all),
            [
                "apt-get install -y --no-install-recommends pa pc",
                "ci/setup"
            ]
        );
        assert!(remedies(&all[1..2]).is_empty());
    }
}
