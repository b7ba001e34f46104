//! Which QEMU there is. The only place that knows its version.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use keeper::Kept;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::sync::OnceCell;

use super::MachineError;

/// The emulator for our guests.
const PROGRAM: &str = "qemu-system-x86_64";

/// A QEMU that can be started.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// Its path.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
    /// Whether it was built with seccomp, so that `-sandbox` works.
    pub sandbox: bool,
}

/// A version of QEMU, as it prints it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Major, minor, micro.
    pub number: (u32, u32, u32),
    /// The distribution's name for the package, if any: two builds of one version need not be able
    /// to read each other's snapshots.
    pub package: String,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor, micro) = self.number;
        write!(f, "{major}.{minor}.{micro}")?;
        if !self.package.is_empty() {
            write!(f, " ({})", self.package)?;
        }
        Ok(())
    }
}

impl Version {
    /// Reads the first line of `qemu-system-x86_64 --version`.
    pub fn parse(text: &str) -> Option<Version> {
        let rest = text
            .strip_prefix("QEMU emulator version ")?
            .lines()
            .next()?;
        let (number, package) = rest.split_once(" (").unwrap_or((rest, ""));
        let mut parts = number.trim().split('.').map(str::parse);
        let mut next = || parts.next()?.ok();
        Some(Version {
            number: (next()?, next()?, next()?),
            package: package.trim_end_matches(')').to_owned(),
        })
    }
}

impl Qemu {
    /// The QEMU in `PATH`, or the one `VEXFS_QEMU` names. Asked once per process.
    ///
    /// # Errors
    /// [`MachineError::NoQemu`] with the package to install, [`MachineError::OddQemu`] if it does
    /// not work.
    pub async fn find() -> Result<&'static Qemu, MachineError> {
        static FOUND: OnceCell<Qemu> = OnceCell::const_new();
        let name = std::env::var_os("VEXFS_QEMU").unwrap_or_else(|| PROGRAM.into());
        FOUND.get_or_try_init(|| Qemu::ask(name)).await
    }

    async fn ask(name: OsString) -> Result<Qemu, MachineError> {
        let missing = || MachineError::NoQemu {
            program: name.to_string_lossy().into_owned(),
        };
        let program = keeper::find::program(Path::new(&name)).ok_or_else(missing)?;
        // A QEMU without seccomp refuses the option before it gets to the version.
        let with = output(Kept::new(&program).args(["-sandbox", "on", "--version"])).await;
        let (text, sandbox) = match with {
            Ok(text) if text.starts_with("QEMU") => (text, true),
            _ => {
                let text = output(Kept::new(&program).arg("--version")).await;
                let text = text.map_err(|error| MachineError::OddQemu {
                    program: program.display().to_string(),
                    why: error.to_string(),
                })?;
                (text, false)
            }
        };
        let version = Version::parse(&text).ok_or_else(|| MachineError::OddQemu {
            program: program.display().to_string(),
            why: format!("it prints {:?}", text.lines().next().unwrap_or_default()),
        })?;
        Ok(Qemu {
            program,
            version,
            sandbox,
        })
    }
}

/// What a short program prints on standard output.
async fn output(command: Kept) -> io::Result<String> {
    let (read, write) = io::pipe()?;
    let mut child = command.stdout(write).spawn().await?;
    let mut text = Vec::new();
    tokio::net::unix::pipe::Receiver::from_owned_fd(read.into())?
        .take(64 << 10)
        .read_to_end(&mut text)
        .await?;
    child.wait().await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright";
        let version = Version::parse(debian).expect("parses");
        assert_eq!(version.number, (7, 2, 22));
        assert_eq!(
            version.to_string(),
            "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)"
        );
        assert_eq!(
            Version::parse("QEMU emulator version 10.0.2\n")
                .expect("parses")
                .number,
            (10, 0, 2)
        );
        assert_eq!(Version::parse("bash: qemu: not found"), None);
    }
}
