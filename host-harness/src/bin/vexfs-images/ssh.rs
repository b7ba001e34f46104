//! `vexfs-images ssh`: into an image the way its users come in, through its own sshd.
//!
//! Nothing of the harness runs in the guest for it: no agent is invited. The key is made for this one
//! machine and handed over on a NoCloud disk, and the machine's port 22 is a free port of this host's
//! loopback.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use host_harness::lab::seed_disk;
use keeper::Kept;
use machine::{Machine, MachineSpec, Network};

use crate::options::{Begins, Machines, OneImage, Place, Usage};

/// The variant whose sshd refuses root.
const WITHOUT_ROOT: &str = "production";
/// Who logs in there.
const USER: &str = "vexfs";
/// Port of sshd in the guest.
const SSH: u16 = 22;
/// How long between tries to log in while the machine boots.
const PAUSE: Duration = Duration::from_millis(500);

/// Options of `ssh`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: OneImage,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
    /// Log in as this user, who is made if need be [default: root; in production, where sshd refuses
    /// root, vexfs]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    begins: Begins,
    /// Seconds from power-on until SSH lets us in, at most
    #[arg(long, visible_alias = "ssh-timeout", value_name = "S", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
    boot_timeout: u64,
    /// A program and its arguments instead of a login
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Boots an overlay, waits until its sshd lets us in, and hands over to the SSH client.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let layout = args.place.layout()?;
    let image = args.image.open(&layout)?;
    let user = user(args.user, &image.manifest.variant)?;
    let host = args.machines.host(&layout).await?;
    let keys = tempfile::tempdir().context("cannot make a folder for the key")?;
    let key = keys.path().join("key");
    let made = Kept::new("ssh-keygen")
        .args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "vexfs-images ssh",
            "-f",
        ])
        .arg(&key);
    keeper::run(made, &keys.path().join("keygen.log"), |_| {}).await?;
    let public =
        std::fs::read_to_string(key.with_extension("pub")).context("cannot read the key")?;
    let logs = layout
        .machine_logs()
        .join(format!("ssh-{}", std::process::id()));
    let seed = seed_disk(&logs, "cidata", &user_data(&user, public.trim())).await;
    let port = free_port()?;
    let machine = Machine::boot(MachineSpec {
        accelerator: host.accel.chosen,
        vsock: None,
        invite: false,
        firmware: args.begins.firmware,
        disks: vec![seed.map_err(|failure| anyhow::anyhow!("{failure}"))?],
        network: Network::User {
            forward: vec![(port, SSH)],
        },
        ..MachineSpec::new("ssh", image.disk.clone(), &logs)
    })
    .await?;
    let client = Client {
        port,
        user: &user,
        dir: keys.path(),
    };
    let within = Duration::from_secs(args.boot_timeout);
    tokio::select! {
        let_in = client.let_in(within) => if let Err(said) = let_in {
            bail!(
                "no login over SSH as {user} within {} s: {said}\nthe console ends with:\n{}",
                args.boot_timeout,
                machine.console().tail(20)
            );
        },
        death = machine.died() => {
            bail!("{death}; the console ends with:\n{}", machine.console().tail(20));
        }
    }
    let mut command = tokio::process::Command::new("ssh");
    command.args(client.options()).arg(client.target());
    if !args.command.is_empty() {
        // ssh(1) joins its words for a shell of the other side.
        command.arg(
            args.command
                .iter()
                .map(|word| quoted(word))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    // It is the user's own session, on the user's terminal: below a keeper it would have none.
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .context("cannot start ssh")?;
    tokio::select! {
        status = child.wait() => {
            let code = status.context("cannot wait for ssh")?.code();
            Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        death = machine.died() => {
            // What ends with the machine says it itself: a guest may be shut down from within.
            let _status = child.wait().await;
            eprintln!("{death}");
            Ok(u8::from(!death.is_orderly()))
        }
    }
}

/// Who logs in.
fn user(wish: Option<String>, variant: &str) -> Result<String, Usage> {
    let refused = variant == WITHOUT_ROOT;
    let user = wish.unwrap_or_else(|| if refused { USER } else { "root" }.to_owned());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let fine = user.starts_with(|c: char| c.is_ascii_lowercase()) && user.chars().all(plain);
    if !fine {
        return Err(Usage(format!(
            "`{user}` is no user's name: small letters, digits, `_` and `-`"
        )));
    }
    if refused && user == "root" {
        return Err(Usage(format!(
            "the image `{variant}` lets nobody in as root over SSH: leave out --user, or use \
             `vexfs-images exec` or `shell`, which come in through the agent"
        )));
    }
    Ok(user)
}

/// The seed that lets one key in.
fn user_data(user: &str, key: &str) -> String {
    match user {
        "root" => format!("#cloud-config\nssh_authorized_keys:\n  - \"{key}\"\n"),
        user => format!(
            "#cloud-config\nusers:\n  - name: {user}\n    shell: /bin/bash\n    ssh_authorized_keys:\n      - \"{key}\"\n"
        ),
    }
}

/// A port of loopback that nobody has now. QEMU takes it a moment later, and says so if somebody was
/// quicker.
fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.port())
}

/// The SSH client, set up for one machine.
struct Client<'a> {
    port: u16,
    user: &'a str,
    dir: &'a Path,
}

impl Client<'_> {
    /// The host key is made at the machine's first boot, so the first one seen is the right one: what
    /// listens on that port is our own QEMU.
    fn options(&self) -> Vec<String> {
        let known = self.dir.join("known_hosts");
        let key = self.dir.join("key");
        let mut words = vec![
            "-F".into(),
            "none".into(),
            "-p".into(),
            self.port.to_string(),
        ];
        for option in [
            format!("UserKnownHostsFile={}", known.display()),
            "StrictHostKeyChecking=accept-new".into(),
            format!("IdentityFile={}", key.display()),
            "IdentitiesOnly=yes".into(),
            "PreferredAuthentications=publickey".into(),
            "ConnectTimeout=20".into(),
            "LogLevel=ERROR".into(),
        ] {
            words.extend(["-o".to_owned(), option]);
        }
        words
    }

    fn target(&self) -> String {
        format!("{}@127.0.0.1", self.user)
    }

    /// Tries until the guest lets us in; what ssh said last when it does not in time.
    async fn let_in(&self, within: Duration) -> Result<(), String> {
        let mut said = "nobody listened".to_owned();
        let tries = async {
            loop {
                let mut command = tokio::process::Command::new("ssh");
                command.args(["-o", "BatchMode=yes"]).args(self.options());
                command.arg(self.target()).arg("true").stdin(Stdio::null());
                match command.kill_on_drop(true).output().await {
                    Ok(output) if output.status.success() => return,
                    Ok(output) => said = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                    Err(error) => said = error.to_string(),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let in_time = tokio::time::timeout(within, tries).await.is_ok();
        if in_time { Ok(()) } else { Err(said) }
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_logs_in_where_it_may() {
        assert_eq!(user(None, "minimal").ok().as_deref(), Some("root"));
        assert_eq!(user(None, "production").ok().as_deref(), Some("vexfs"));
        for (wish, word) in [
            ("root", "lets nobody in as root"),
            ("a b", "is no user's name"),
        ] {
            let error = user(Some(wish.into()), "production").expect_err(wish);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
