//! Carrying out a plan on a root file system.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::plan::Action;

/// Where it is done: `/`, or a folder in tests.
#[derive(Debug, Clone)]
pub struct Root {
    at: PathBuf,
}

impl Root {
    /// The root at a path.
    pub fn new(at: impl Into<PathBuf>) -> Root {
        Root { at: at.into() }
    }

    /// Where a path of the machine is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.at.join(path.trim_start_matches('/'))
    }

    /// Does one thing.
    ///
    /// # Errors
    /// A sentence that says what could not be done.
    pub fn carry_out(&self, action: &Action) -> anyhow::Result<()> {
        match action {
            Action::Name { host, fqdn } => self.name(host, fqdn.as_deref()),
            Action::Run(words) => run(words),
            Action::Keys { user, keys } => self.keys(user, keys),
            Action::Write {
                path,
                content,
                mode,
                owner,
                append,
            } => {
                let to = self.path(path);
                write(&to, content, *mode, *append)
                    .with_context(|| format!("cannot write {path}"))?;
                match owner {
                    Some(owner) => run(&["chown".into(), owner.clone(), to.display().to_string()]),
                    None => Ok(()),
                }
            }
        }
    }

    /// The machine's name, now and from now on.
    fn name(&self, host: &str, fqdn: Option<&str>) -> anyhow::Result<()> {
        write(
            &self.path("/etc/hostname"),
            &format!("{host}\n"),
            0o644,
            false,
        )?;
        let hosts = self.path("/etc/hosts");
        let text = fs::read_to_string(&hosts).unwrap_or_default();
        let own = match fqdn {
            Some(fqdn) if fqdn != host => format!("127.0.1.1 {fqdn} {host}\n"),
            _ => format!("127.0.1.1 {host}\n"),
        };
        let others = text.lines().filter(|line| !line.starts_with("127.0.1.1"));
        let others: String = others.map(|line| format!("{line}\n")).collect();
        write(&hosts, &(others + &own), 0o644, false)?;
        if self.at == Path::new("/") {
            nix::unistd::sethostname(host).context("sethostname")?;
        }
        Ok(())
    }

    /// Adds keys to a user's authorized_keys; those that are there stay, none is there twice.
    fn keys(&self, user: &str, keys: &[String]) -> anyhow::Result<()> {
        // Not getpwnam(3): a static program has no name services.
        let passwd = fs::read_to_string(self.path("/etc/passwd")).context("/etc/passwd")?;
        let fields = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.len() == 7 && fields[0] == user);
        let Some(fields) = fields else {
            bail!("there is no user {user} for the keys");
        };
        let (uid, gid) = (fields[2].parse()?, fields[3].parse()?);
        let dir = self.path(fields[5]).join(".ssh");
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let file = dir.join("authorized_keys");
        let there = fs::read_to_string(&file).unwrap_or_default();
        let new = keys
            .iter()
            .filter(|key| !there.lines().any(|line| line == key.trim()));
        let lines: String = new.map(|key| format!("{}\n", key.trim())).collect();
        write(&file, &lines, 0o600, true)?;
        for path in [&dir, &file] {
            chown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to {user}", path.display()))?;
        }
        Ok(())
    }
}

/// Writes a file with its folders. A new one never has more rights than it will have.
fn write(path: &Path, content: &str, mode: u32, append: bool) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = fs::File::options()
        .create(true)
        .write(true)
        .append(append)
        .truncate(!append)
        .mode(mode)
        .open(path)?;
    file.write_all(content.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn run(words: &[String]) -> anyhow::Result<()> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        // Not its arguments: they may be somebody's password.
        bail!("{program} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_files_and_keys_end_up_where_they_belong() {
        let home = tempfile::tempdir().expect("a directory");
        let root = Root::new(home.path());
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        fs::create_dir(root.path("/etc")).expect("etc");
        fs::write(
            root.path("/etc/hosts"),
            "127.0.0.1 localhost\n127.0.1.1 old\n",
        )
        .expect("hosts");
        let passwd = format!("ann:x:{uid}:{gid}::/home/ann:/bin/sh\n");
        fs::write(root.path("/etc/passwd"), passwd).expect("passwd");
        let keys = Action::Keys {
            user: "ann".into(),
            keys: vec!["k1".into(), "k2".into()],
        };
        for action in [
            Action::Name {
                host: "web".into(),
                fqdn: Some("web.example.org".into()),
            },
            keys.clone(),
            keys,
            Action::Write {
                path: "/etc/a/b".into(),
                content: "text".into(),
                mode: 0o600,
                owner: None,
                append: false,
            },
        ] {
            root.carry_out(&action).expect("done");
        }
        let read = |path: &str| fs::read_to_string(root.path(path)).expect(path);
        assert_eq!(read("/etc/hostname"), "web\n");
        assert_eq!(
            read("/etc/hosts"),
            "127.0.0.1 localhost\n127.0.1.1 web.example.org web\n"
        );
        assert_eq!(read("/home/ann/.ssh/authorized_keys"), "k1\nk2\n");
        let mode = fs::metadata(root.path("/etc/a/b"))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let nobody = Action::Keys {
            user: "bob".into(),
            keys: vec![],
        };
        assert!(
            root.carry_out(&nobody)
                .expect_err("nobody")
                .to_string()
                .contains("bob")
        );
        let fails = Action::Run(vec!["false".into(), "secret".into()]);
        assert!(
            !root
                .carry_out(&fails)
                .expect_err("it fails")
                .to_string()
                .contains("secret")
        );
    }
}
