//! Whose fault it is that there is no image: what a program that waits for one has to know.

use std::io;
use std::os::unix::process::ExitStatusExt;

use image::ImageError;
use keeper::Failure;

use crate::BuildError;

/// Whose fault it is that a build ended without an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// What was asked for cannot be: a word of the command line, or a data file.
    Request,
    /// The VexFS tree is not one, or does not compile.
    Tree,
    /// The machine that was provisioned broke, or something in it did not hold.
    Guest,
    /// This host, or one it depends on, did not do its part; another time it may.
    Host,
    /// The builder itself went wrong.
    Ours,
}

impl Fault {
    /// The exit code that tells it: 2 for what was asked for and the tree, 1 for the guest, and of
    /// sysexits.h 75 (`EX_TEMPFAIL`) for the host and 70 (`EX_SOFTWARE`) for us.
    pub fn exit_code(self) -> u8 {
        match self {
            Fault::Request | Fault::Tree => 2,
            Fault::Guest => 1,
            Fault::Host => 75,
            Fault::Ours => 70,
        }
    }
}

/// What programs print when it is the host, or a network beyond it, that fails them: errno's words, and those of
/// apt, cargo, curl, git and QEMU.
const OF_THE_HOST: &[&str] = &[
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "cannot set up guest memory",
    "Resource temporarily unavailable",
    "Too many open files",
    "Read-only file system",
    "Input/output error",
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Could not resolve host",
    "Connection refused",
    "Connection reset by peer",
    "Connection timed out",
    "Network is unreachable",
    "spurious network error",
    "Timeout was reached",
    "ssh: handshake failed",
];

impl BuildError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            BuildError::UnknownVariant { .. }
            | BuildError::DataFile { .. }
            | BuildError::BadRequest { .. }
            | BuildError::Packages { .. }
            | BuildError::NoSnapshot { .. } => Fault::Request,
            BuildError::MissingSource { .. }
            | BuildError::SourceRefused { .. }
            | BuildError::SourceBuild { .. }
            | BuildError::KernelConfig { .. } => Fault::Tree,
            BuildError::NoBoot { .. } | BuildError::Provision { .. } => Fault::Guest,
            BuildError::MissingTools { .. }
            | BuildError::SourceFetch { .. }
            | BuildError::NoMirror { .. }
            | BuildError::Mirror { .. }
            | BuildError::NoSpace { .. }
            | BuildError::NoMemory { .. }
            | BuildError::DiskFull { .. }
            | BuildError::NoNamespaces { .. }
            | BuildError::CacheBusy { .. }
            | BuildError::CacheLeft { .. }
            | BuildError::NoSsh { .. } => Fault::Host,
            BuildError::BadImage(error) => Fault::from(error),
            BuildError::Replay { .. } => Fault::Ours,
            BuildError::Step { source, .. } => of_a_step(source),
            BuildError::Io { source, .. } => of_io(source),
        }
    }
}

impl From<&ImageError> for Fault {
    fn from(error: &ImageError) -> Fault {
        match error {
            ImageError::DataFile { .. } => Fault::Request,
            ImageError::Io { source, .. } => of_io(source),
            // What the disk has is not what was put there.
            _ => Fault::Host,
        }
    }
}

/// A program that could not be started, or that somebody killed (the OOM killer, an administrator), tells of the
/// host; one that ended by itself does so only with its words. A crash (SIGSEGV, SIGABRT) is nobody's wish.
fn of_a_step(failure: &Failure) -> Fault {
    use nix::libc::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGXCPU, SIGXFSZ};
    match failure {
        Failure::Start { .. } => Fault::Host,
        Failure::Ended { status, tail, .. } => {
            // A shell or nice(1) between us and the program says 128 more than the signal.
            let code = status.code().filter(|code| *code > 128);
            let signal = status.signal().or(code.map(|code| code - 128));
            let wished = [SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGXCPU, SIGXFSZ];
            let killed = signal.is_some_and(|signal| wished.contains(&signal));
            match killed || OF_THE_HOST.iter().any(|words| tail.contains(words)) {
                true => Fault::Host,
                false => Fault::Ours,
            }
        }
    }
}

/// A file that is not there was named by somebody (a key, a checkout): what stages make is looked at when it is
/// made. One that is not what it must be is ours; all else (rights, disks, descriptors, memory) is the host's.
fn of_io(error: &io::Error) -> Fault {
    use io::ErrorKind::{
        AlreadyExists, DirectoryNotEmpty, InvalidData, InvalidInput, IsADirectory, NotADirectory,
        NotFound, UnexpectedEof,
    };
    match error.kind() {
        NotFound | IsADirectory | NotADirectory => Fault::Request,
        AlreadyExists | InvalidData | InvalidInput | UnexpectedEof | DirectoryNotEmpty => {
            Fault::Ours
        }
        _ => Fault::Host,
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;

    fn step(wait_status: i32, tail: &str) -> Fault {
        let source = Failure::Ended {
            program: "mke2fs".into(),
            status: ExitStatus::from_raw(wait_status),
            tail: tail.into(),
            log: "/l".into(),
        };
        BuildError::Step {
            stage: "disk".into(),
            source,
        }
        .fault()
    }

    #[test]
    fn a_programs_end_says_whose_fault_it_is() {
        for (what, wait_status, tail, fault) in [
            ("killed", 9, "", Fault::Host),
            ("killed below a shell", 137 << 8, "", Fault::Host),
            ("asked to end", 15, "", Fault::Host),
            ("crashed", 11, "", Fault::Ours),
            ("its own error", 1 << 8, "mke2fs: bad magic", Fault::Ours),
            (
                "no memory",
                1 << 8,
                "fork: Cannot allocate memory",
                Fault::Host,
            ),
            (
                "no network",
                101 << 8,
                "error: failed to get `x`\n  Could not resolve host: m",
                Fault::Host,
            ),
        ] {
            assert_eq!(step(wait_status, tail), fault, "{what}");
        }
        let start = BuildError::Step {
            stage: "image".into(),
            source: Failure::Start {
                program: "packer".into(),
                source: io::ErrorKind::OutOfMemory.into(),
            },
        };
        assert_eq!(start.fault(), Fault::Host);
    }

    #[test]
    fn a_files_error_says_whose_fault_it_is() {
        let fault = |kind: io::ErrorKind| BuildError::io("write", "/f")(kind.into()).fault();
        assert_eq!(fault(io::ErrorKind::StorageFull), Fault::Host);
        assert_eq!(fault(io::ErrorKind::PermissionDenied), Fault::Host);
        assert_eq!(fault(io::ErrorKind::ReadOnlyFilesystem), Fault::Host);
        assert_eq!(fault(io::ErrorKind::NotFound), Fault::Request);
        assert_eq!(fault(io::ErrorKind::InvalidData), Fault::Ours);
    }

    #[test]
    fn each_fault_has_its_exit_code() {
        let codes = [
            Fault::Request,
            Fault::Tree,
            Fault::Guest,
            Fault::Host,
            Fault::Ours,
        ]
        .map(Fault::exit_code);
        assert_eq!(codes, [2, 2, 1, 75, 70]);
    }
}
