//! A folder of this host or behind SSH, worked on by small shell scripts: the same for both, so that
//! what a test shows of one holds for the other. The place needs a POSIX shell and coreutils, no
//! program of ours.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keeper::Kept;

use crate::index::sha256;
use crate::{Destination, FileEntry, PublishError, run};

/// How often a broken transfer is taken up again, and how long after the first break.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Keeps everybody else from publishing below $1 until standard input ends.
const LOCK: &str = "mkdir -p \"$1\"; exec 9>\"$1/.lock\"; \
    if flock -n 9; then echo held; cat >/dev/null; else echo busy; fi";
/// Says of each file below $1 how much of it is there, and its digest: whole, or the part a broken
/// transfer left.
const LOOK: &str = "cd \"$1\" 2>/dev/null || exit 0; shift; for name; do \
    for it in \"$name\" \"$name.part\"; do if [ -f \"$it\" ]; then \
    echo \"$(wc -c <\"$it\") $(sha256sum <\"$it\" | cut -d' ' -f1) $it\"; break; fi; done; done";
/// Appends standard input to $2.part below $1, after its first $3 bytes, and gives it its name if it is
/// $4 bytes of digest $5 then. A part that is short stays: there is more to come.
const SEND: &str = "mkdir -p \"$1\"; cd \"$1\"; part=$2.part; mkdir -p \"$(dirname \"$part\")\"; \
    [ -f \"$part\" ] || : >\"$part\"; truncate -s \"$3\" \"$part\"; cat >>\"$part\"; sync \"$part\"; \
    bytes=$(wc -c <\"$part\"); if [ \"$bytes\" -lt \"$4\" ]; then echo \"short $bytes\"; exit; fi; \
    sum=$(sha256sum <\"$part\" | cut -d' ' -f1); if [ \"$sum\" = \"$5\" ]; then \
    chmod a+r \"$part\"; mv -f \"$part\" \"$2\"; echo sent; else rm -f \"$part\"; echo \"wrong $sum\"; fi";

/// A folder somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    ssh: Option<Ssh>,
    root: PathBuf,
    /// How it is called in messages.
    pub(crate) name: String,
    log: PathBuf,
}

#[derive(Debug, Clone)]
struct Ssh {
    host: String,
    port: Option<u16>,
    config: Option<PathBuf>,
}

/// What is there of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum There {
    Nothing,
    /// So many bytes of this digest, not yet under its name.
    Part(u64, String),
    /// Under its name.
    File(u64, String),
}

/// What bringing files took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Files that had to be sent.
    pub(crate) sent: usize,
    /// Files that were there already, with the right digest.
    pub(crate) same: usize,
    /// Bytes sent.
    pub(crate) bytes: u64,
    /// Bytes that an earlier, broken transfer had brought.
    pub(crate) resumed: u64,
}

/// Held as long as it lives.
pub(crate) struct Lock {
    _holder: keeper::Child,
    _open: std::io::PipeWriter,
}

impl Folder {
    /// The folder of a destination that is one.
    pub(crate) fn of(place: &Destination, ssh_config: Option<&Path>, log: &Path) -> Option<Folder> {
        let (ssh, root) = match place {
            Destination::Folder(path) | Destination::OciLayout(path) => (None, path.clone()),
            Destination::Ssh { host, port, folder } => {
                let ssh = Ssh {
                    host: host.clone(),
                    port: *port,
                    config: ssh_config.map(Path::to_owned),
                };
                (Some(ssh), folder.clone())
            }
            Destination::OciRegistry(_) => return None,
        };
        Some(Folder {
            ssh,
            root,
            name: place.to_string(),
            log: log.to_owned(),
        })
    }

    /// The same, further down.
    pub(crate) fn join(&self, below: &str) -> Folder {
        Folder {
            root: self.root.join(below),
            ..self.clone()
        }
    }

    /// Its path, if it is one of this host.
    pub(crate) fn here(&self) -> Option<&Path> {
        self.ssh.is_none().then_some(self.root.as_path())
    }

    /// The command that runs a script there, with the folder as its first argument.
    fn command(&self, script: &str, arguments: &[&str]) -> Kept {
        let root = self.root.to_string_lossy().into_owned();
        let words = ["sh", "-euc", script, "sh", &root];
        let words = words.into_iter().chain(arguments.iter().copied());
        let Some(ssh) = &self.ssh else {
            let mut words = words;
            let program = words.next().unwrap_or("sh");
            return Kept::new(program).args(words).env("LC_ALL", "C");
        };
        // Nobody is there to answer a question; whom to trust is ssh_config's.
        let mut command =
            Kept::new("ssh").args(["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15"]);
        if let Some(config) = &ssh.config {
            command = command.arg("-F").arg(config);
        }
        if let Some(port) = ssh.port {
            command = command.arg("-p").arg(port.to_string());
        }
        let line: Vec<String> = words.map(quoted).collect();
        command.arg("--").arg(&ssh.host).arg(line.join(" "))
    }

    /// Runs a script there and returns what it prints.
    pub(crate) async fn run(
        &self,
        doing: &str,
        script: &str,
        arguments: &[&str],
    ) -> Result<String, PublishError> {
        let command = self.command(script, arguments);
        let said = run::output(command, &self.doing(doing), &self.log).await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    fn doing(&self, doing: &str) -> String {
        format!("{doing} at {}", self.name)
    }

    /// Keeps other runs from publishing `variant` below this folder.
    pub(crate) async fn lock(&self, variant: &str) -> Result<Lock, PublishError> {
        let doing = self.doing("take the lock");
        let failed = |said: String| PublishError::Program {
            doing: doing.clone(),
            said,
        };
        let system = |error: std::io::Error| failed(error.to_string());
        let (theirs, open) = std::io::pipe().map_err(system)?;
        let (answer, told) = std::io::pipe().map_err(system)?;
        let mut err = tempfile::tempfile().map_err(system)?;
        let command = self
            .command(LOCK, &[])
            .stdin(File::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(told)
            .stderr(err.try_clone().map_err(system)?);
        let holder = command.spawn().await.map_err(system)?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(answer).read_line(&mut line).map(|_| line)
        });
        let line = line
            .await
            .map_err(|e| failed(e.to_string()))?
            .map_err(system)?;
        match line.trim() {
            "held" => Ok(Lock {
                _holder: holder,
                _open: open,
            }),
            "busy" => Err(PublishError::Busy {
                variant: variant.to_owned(),
                place: self.name.clone(),
            }),
            _ => {
                let mut said = String::new();
                let read = err
                    .rewind()
                    .and_then(|()| std::io::Read::read_to_string(&mut err, &mut said));
                read.map_err(system)?;
                Err(failed(said.trim().to_owned()))
            }
        }
    }

    /// What there is of each of these files.
    async fn look(&self, files: &[&FileEntry]) -> Result<Vec<There>, PublishError> {
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        let said = self.run("look at what is", LOOK, &names).await?;
        Ok(names.iter().map(|name| there(&said, name)).collect())
    }

    /// Brings files, each with the path it has here: what is there already with the right digest
    /// stays, what a broken transfer left is gone on with, and each appears under its name only when
    /// its digest, computed there, is right.
    pub(crate) async fn bring(
        &self,
        files: &[(FileEntry, PathBuf)],
    ) -> Result<Brought, PublishError> {
        let mut brought = Brought::default();
        let entries: Vec<&FileEntry> = files.iter().map(|(entry, _)| entry).collect();
        let mut there = self.look(&entries).await?;
        for ((entry, path), mut is) in files.iter().zip(there.drain(..)) {
            let mut tries = 1;
            loop {
                let end = match self.send(entry, path, &is, &mut brought).await {
                    Ok(true) => break,
                    Ok(false) => None,
                    // What is wrong at one end is wrong again.
                    Err(error @ PublishError::Digest { .. } | error @ PublishError::Io { .. }) => {
                        return Err(error);
                    }
                    Err(error) => Some(error),
                };
                if tries == TRIES {
                    return Err(end.unwrap_or_else(|| PublishError::Program {
                        doing: self.doing(&format!("bring {}", entry.name)),
                        said: format!("the transfer broke off {TRIES} times"),
                    }));
                }
                tokio::time::sleep(PAUSE * 2_u32.pow(tries)).await;
                tries += 1;
                let seen = self.look(&[entry]).await;
                is = seen.ok().and_then(|mut seen| seen.pop()).unwrap_or(is);
            }
        }
        Ok(brought)
    }

    /// One try; false when it broke off half-way.
    async fn send(
        &self,
        entry: &FileEntry,
        path: &Path,
        is: &There,
        brought: &mut Brought,
    ) -> Result<bool, PublishError> {
        let mut file = File::open(path).map_err(PublishError::io("open", path))?;
        let offset = match is {
            There::File(bytes, sum) if *bytes == entry.bytes && *sum == entry.sha256 => {
                brought.same += 1;
                return Ok(true);
            }
            There::Part(bytes, sum) if *bytes <= entry.bytes => {
                // It may be the part of another file of this name.
                let ours = sha256(&mut file, *bytes).map_err(PublishError::io("read", path))?;
                if ours == *sum { *bytes } else { 0 }
            }
            _ => 0,
        };
        file.seek(SeekFrom::Start(offset))
            .map_err(PublishError::io("read", path))?;
        let numbers = [offset, entry.bytes].map(|number| number.to_string());
        let command = self
            .command(
                SEND,
                &[&entry.name, &numbers[0], &numbers[1], &entry.sha256],
            )
            .stdin(file);
        let doing = self.doing(&format!("bring {}", entry.name));
        let said = run::output(command, &doing, &self.log).await?;
        let said = String::from_utf8_lossy(&said);
        match said.trim().split_once(' ').unwrap_or((said.trim(), "")) {
            ("sent", _) => {
                brought.sent += 1;
                brought.resumed += offset;
                brought.bytes += entry.bytes - offset;
                Ok(true)
            }
            ("wrong", is) => Err(PublishError::Digest {
                name: entry.name.clone(),
                place: self.name.clone(),
                wanted: entry.sha256.clone(),
                is: is.to_owned(),
            }),
            _ => Ok(false),
        }
    }

    /// Copies a file from there to `to`.
    pub(crate) async fn fetch(&self, name: &str, to: &Path) -> Result<(), PublishError> {
        let out = File::create(to).map_err(PublishError::io("make", to))?;
        let command = self.command("cat \"$1/$2\"", &[name]);
        let doing = self.doing(&format!("fetch {name}"));
        run::into(command, out, &doing, &self.log).await
    }
}

/// What a line of [`LOOK`] says of a file.
fn there(said: &str, name: &str) -> There {
    let part = format!("{name}.part");
    let mut lines = said.lines().filter_map(|line| {
        let mut words = line.splitn(3, ' ');
        let (bytes, sum) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        Some((bytes, sum, words.next()?))
    });
    lines
        .find_map(|(bytes, sum, it)| match it {
            _ if it == name => Some(There::File(bytes, sum)),
            _ if it == part => Some(There::Part(bytes, sum)),
            _ => None,
        })
        .unwrap_or(There::Nothing)
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_through_a_shell_as_they_are() {
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
    }

    #[test]
    fn parts_and_files_are_told_apart() {
        let said = "3 aa a b\n2 bb c.part\n";
        assert_eq!(there(said, "a b"), There::File(3, "aa".into()));
        assert_eq!(there(said, "c"), There::Part(2, "bb".into()));
        assert_eq!(there(said, "d"), There::Nothing);
    }
}
