//! OpenSSH on the same machine, over a control master.
//!
//! Each sample is one `ssh` or `sftp` on the host. It is timed by the shell that starts it: our keeper
//! would add its own start to the peer's time.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use keeper::Kept;

use super::per_second;
use crate::lab::{Failure, Guest};

/// A file in the guest for all to fetch.
pub(super) const SERVED: &str = "/run/vexfs-perf.get";

/// How long the first login may take under emulation.
const LOGIN: Duration = Duration::from_secs(60);

/// A connection that is shared by all `ssh` and `sftp`.
pub(super) struct Ssh {
    dir: tempfile::TempDir,
    master: keeper::Child,
    bytes: usize,
}

/// A TCP port of the host that nobody listens on.
pub(super) fn free_port() -> Result<u16, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Failure::Host(format!("no free TCP port: {e}")))
}

impl Ssh {
    /// Lets us in by a key made for it, and opens the connection.
    pub(super) async fn connect(guest: &Guest, port: u16, bytes: usize) -> Result<Ssh, Failure> {
        let trouble = |what: &str| {
            let what = what.to_owned();
            move |e: std::io::Error| Failure::Host(format!("{what}: {e}"))
        };
        let dir = tempfile::Builder::new()
            .prefix("vexfs-ssh-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(trouble("no temporary folder"))?;
        let key = dir.path().join("key");
        let keygen = Kept::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key);
        keeper::run(keygen, &dir.path().join("keygen.log"), |_| {})
            .await
            .map_err(|e| Failure::Ours(format!("{e} (package openssh-client)")))?;
        let public = std::fs::read_to_string(dir.path().join("key.pub"))
            .map_err(trouble("no public key"))?;
        guest
            .sh(&format!(
                "mkdir -p -m 700 /root/.ssh
                 echo '{}' > /root/.ssh/authorized_keys
                 head -c {bytes} /dev/zero > {SERVED}",
                public.trim()
            ))
            .await?;
        std::fs::write(dir.path().join("config"), config(dir.path(), port))
            .map_err(trouble("no configuration of ssh"))?;
        std::fs::write(dir.path().join("sent"), vec![7; bytes])
            .map_err(trouble("no file to send"))?;
        let log = dir.path().join("master.log");
        let file = std::fs::File::create(&log).map_err(trouble("no log of ssh"))?;
        let master = Kept::new("ssh")
            .args(["-N", "-M", "-F"])
            .arg(dir.path().join("config"))
            .arg("guest")
            .stderr(file)
            .remove_after(dir.path())
            .spawn()
            .await
            .map_err(trouble("cannot start ssh (package openssh-client)"))?;
        let ssh = Ssh { dir, master, bytes };
        ssh.until_there().await?;
        Ok(ssh)
    }

    async fn until_there(&self) -> Result<(), Failure> {
        let begin = std::time::Instant::now();
        while !self.dir.path().join("master").exists() {
            if begin.elapsed() > LOGIN {
                let log = self.dir.path().join("master.log");
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(Failure::check(
                    "ssh",
                    format!("no login within {} s", LOGIN.as_secs()),
                    format!("ssh (process {}) says:\n{said}", self.master.pid()),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Runs a command of the shell in our folder, and says how long it took.
    async fn timed(&self, command: &str) -> Result<Duration, Failure> {
        let log = self.dir.path().join("last.log");
        let script = format!(
            "cd {}; a=$(date +%s%N); {command}; b=$(date +%s%N); echo took $((b - a))",
            self.dir.path().display()
        );
        let mut took = None;
        let shell = Kept::new("/bin/sh").args(["-euc", &script]);
        keeper::run(shell, &log, |line| {
            let nanoseconds = line.strip_prefix("took ").and_then(|n| n.parse().ok());
            took = nanoseconds.map(Duration::from_nanos).or(took);
        })
        .await
        .map_err(|e| Failure::check("ssh", e.to_string(), ""))?;
        took.ok_or_else(|| Failure::Host("the shell did not say the time".into()))
    }

    /// `true`, in milliseconds.
    pub(super) async fn spawn(&self) -> Result<f64, Failure> {
        let took = self.timed("ssh -F config guest true").await?;
        Ok(took.as_secs_f64() * 1e3)
    }

    /// Output of a program, in MB/s.
    pub(super) async fn output(&self, bytes: usize) -> Result<f64, Failure> {
        let command = format!("ssh -F config guest head -c {bytes} /dev/zero > got");
        let took = self.timed(&command).await?;
        self.arrived("got", bytes, took)
    }

    /// A file to the guest, in MB/s.
    pub(super) async fn put(&self) -> Result<f64, Failure> {
        let took = self
            .timed("echo put sent /run/vexfs-perf.put | sftp -q -b - -F config guest > said")
            .await?;
        per_second(self.bytes, self.bytes, took)
    }

    /// A file from the guest, in MB/s.
    pub(super) async fn get(&self) -> Result<f64, Failure> {
        let command =
            format!("rm -f got; echo get {SERVED} got | sftp -q -b - -F config guest > said");
        let took = self.timed(&command).await?;
        self.arrived("got", self.bytes, took)
    }

    fn arrived(&self, name: &str, bytes: usize, took: Duration) -> Result<f64, Failure> {
        let path: PathBuf = self.dir.path().join(name);
        let got = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        per_second(usize::try_from(got).unwrap_or(0), bytes, took)
    }
}

/// The guest is made for this and dies with it: whose host key it has does not matter.
fn config(dir: &std::path::Path, port: u16) -> String {
    format!(
        "Host guest\nHostName 127.0.0.1\nPort {port}\nUser root\nIdentityFile {0}/key\n\
         IdentitiesOnly yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n\
         LogLevel ERROR\nBatchMode yes\nControlPath {0}/master\nControlMaster auto\n\
         ControlPersist no\nConnectTimeout 60\n",
        dir.display()
    )
}
