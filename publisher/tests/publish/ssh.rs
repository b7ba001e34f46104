//! A folder behind SSH: an sshd(8) on loopback with its own keys, configuration and port.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use publisher::Latest;

use super::Row;
use super::world::{World, must, names, unpacked, whole};

pub const TESTS: &[Row] = &[
    (
        "published_resumed_and_patched",
        published_resumed_and_patched,
    ),
    (
        "a_connection_that_breaks_is_made_again",
        a_connection_that_breaks_is_made_again,
    ),
    ("a_stranger_is_not_trusted", a_stranger_is_not_trusted),
];

/// Lends $1 as the list of users, and starts the rest with the libraries in $2.
const PREPARE: &str = "mount --bind \"$1\" /etc/passwd; mount -t tmpfs none /run; mkdir /run/sshd; \
    export LD_LIBRARY_PATH=\"$2\"; shift 2; exec \"$@\"";

/// A running sshd; gone when dropped.
struct Server {
    sshd: Child,
    port: u16,
    config: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its process is ours and ends on a kill; there is nothing to do about a failure here.
        let _killed = self.sshd.kill().and_then(|()| self.sshd.wait().map(drop));
    }
}

impl Server {
    /// `limit`: a forced command's shell text around what the client asks for.
    fn start(world: &World, forced: Option<&str>) -> Result<Server, Failed> {
        let key = |name: &str| -> Result<PathBuf, Failed> {
            let path = world.path(name);
            must(
                Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(&path),
            )?;
            Ok(path)
        };
        let (host, user) = (key("host_key")?, key("user_key")?);
        let public = |path: &PathBuf| fs::read_to_string(path.with_extension("pub"));
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let authorized = world.path("authorized_keys");
        let options = match forced {
            Some(path) => format!("command=\"{path}\" "),
            None => String::new(),
        };
        fs::write(&authorized, options + &public(&user)?)?;
        let sshd_config = world.path("sshd_config");
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n",
            host.display(),
            authorized.display(),
        );
        fs::write(&sshd_config, text)?;
        let known = world.path("known_hosts");
        fs::write(&known, format!("[127.0.0.1]:{port} {}", public(&host)?))?;
        let config = world.path("ssh_config");
        let text = format!(
            "Host files\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n",
            user.display(),
            known.display(),
        );
        fs::write(&config, text)?;
        let mut sshd = unpacked("usr/sbin/sshd");
        let program = sshd.get_program().to_owned();
        if is_root() {
            // It wants a user and a folder to drop its privileges to, which a package would have made: in a
            // mount namespace of its own there are both (unshare(1)).
            let passwd = world.path("passwd");
            let user = "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n";
            fs::write(&passwd, fs::read_to_string("/etc/passwd")? + user)?;
            let libraries = sshd
                .get_envs()
                .find_map(|(_, value)| value.map(ToOwned::to_owned));
            sshd = Command::new("unshare");
            sshd.args([
                "--mount",
                "--propagation=private",
                "sh",
                "-euc",
                PREPARE,
                "sh",
            ])
            .args([passwd.as_os_str(), &libraries.unwrap_or_default(), &program]);
        }
        let log = fs::File::create(world.path("sshd.log"))?;
        sshd.args(["-D", "-e", "-f"])
            .arg(&sshd_config)
            .stderr(Stdio::from(log));
        let mut sshd = sshd
            .spawn()
            .map_err(|e| format!("sshd: {e}: run ci/setup"))?;
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if since.elapsed() > Duration::from_secs(20) || sshd.try_wait()?.is_some() {
                let log = fs::read_to_string(world.path("sshd.log"))?;
                return Err(format!("sshd does not listen: {log}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Server { sshd, port, config })
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("procfs")) == 0
}

fn published_resumed_and_patched() -> Result<(), Failed> {
    let world = World::new()?;
    let server = Server::start(&world, None)?;
    let mut options = world.options();
    options.ssh_config = Some(server.config.clone());
    let to = format!(
        "ssh://files:{}{}",
        server.port,
        world.path("far away").display()
    );
    let old = world.bundle("1.0.0", 1, true)?;
    // A try that broke off.
    let home = world.path("far away/vexfs-minimal");
    let incoming = home.join(format!(".incoming-{}", old.release()));
    let part = incoming.join("vexfs-minimal-1.0.0/vexfs-minimal-1.0.0.qcow2.part");
    fs::create_dir_all(part.parent().ok_or("no folder")?)?;
    fs::write(&part, &fs::read(&old.disk)?[..1_000_000])?;
    let published = old.publish(&to, &options)?;
    assert_eq!(published.resumed, 1_000_000, "{published:?}");
    whole(&home.join("latest"))?;
    let new = world.bundle("1.1.0", 2, true)?;
    let published = new.publish(&to, &options)?;
    let delta = published.delta.expect("a delta");
    assert!(delta.file.bytes * 20 < published.download);
    assert_eq!(published.latest, Latest::Moved);
    assert_eq!(
        names(&home)?,
        [old.release(), new.release(), "latest".into()]
    );
    whole(&home.join("latest"))
}

/// The far end hangs up in the middle of the disk, twice: the transfer goes on where it was.
fn a_connection_that_breaks_is_made_again() -> Result<(), Failed> {
    let world = World::new()?;
    let forced = world.path("forced.sh");
    // The first two commands that bring the disk get half a megabyte of it.
    let text = format!(
        "#!/bin/sh\ncase $SSH_ORIGINAL_COMMAND in *qcow2\\'*truncate*|*truncate*.qcow2\\'*)\n\
         n=$(cat {count} 2>/dev/null || echo 0); echo $((n + 1)) >{count}\n\
         if [ \"$n\" -lt 2 ]; then head -c 500000 | sh -c \"$SSH_ORIGINAL_COMMAND\" >/dev/null; exit 255; fi;;\n\
         esac\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
        count = world.path("count").display()
    );
    fs::write(&forced, text)?;
    must(Command::new("chmod").arg("755").arg(&forced))?;
    let server = Server::start(&world, Some(&forced.display().to_string()))?;
    let mut options = world.options();
    options.ssh_config = Some(server.config.clone());
    let to = format!("ssh://files{}", world.path("far").display());
    let bundle = world.bundle("1.0.0", 1, true)?;
    let published = bundle.publish(&to, &options)?;
    assert_eq!(
        fs::read_to_string(world.path("count"))?.trim(),
        "3",
        "it was not broken off twice"
    );
    assert_eq!(published.resumed, 1_000_000, "{published:?}");
    whole(&world.path("far/vexfs-minimal/latest"))
}

/// A host key that is not the one known: nothing is sent.
fn a_stranger_is_not_trusted() -> Result<(), Failed> {
    let world = World::new()?;
    let server = Server::start(&world, None)?;
    let mut options = world.options();
    options.ssh_config = Some(server.config.clone());
    let other = World::new()?;
    let another = Server::start(&other, None)?;
    fs::copy(other.path("host_key.pub"), world.path("other.pub"))?;
    let known = fs::read_to_string(world.path("other.pub"))?;
    fs::write(
        world.path("known_hosts"),
        format!("[127.0.0.1]:{} {known}", server.port),
    )?;
    drop(another);
    let bundle = world.bundle("1.0.0", 1, true)?;
    let to = format!("ssh://files{}", world.path("far").display());
    let error = bundle
        .publish(&to, &options)
        .expect_err("another host")
        .to_string();
    assert!(error.contains("verification failed"), "{error}");
    assert!(!world.path("far").exists());
    Ok(())
}
