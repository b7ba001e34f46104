//! The two files of a seed. Everything in them is read as text first: a number where a name belongs
//! is what people write.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Why a seed is not carried out at all.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// Not YAML, or not what belongs there.
    #[error("{file}: {said}")]
    Syntax {
        /// `meta-data` or `user-data`.
        file: &'static str,
        /// Line, column, and what is wrong.
        said: String,
    },
    /// A kind of user-data this does not know.
    #[error("user-data begins with `{start}`: it must begin with #cloud-config or #!")]
    Kind {
        /// Its first line.
        start: String,
    },
}

/// What a seed says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seed {
    /// `meta-data`.
    pub meta: Meta,
    /// `user-data`, if it is a `#cloud-config`.
    pub config: Config,
    /// `user-data`, if it is a program.
    pub script: Option<String>,
}

/// `meta-data`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Meta {
    /// A machine does once what an instance of this name says.
    pub instance_id: String,
    /// Its host name.
    pub local_hostname: Option<String>,
}

/// `#cloud-config`: the keys this knows, and the names of the others.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Host name; wins over that in `meta-data`.
    pub hostname: Option<String>,
    /// With its domain; for `/etc/hosts`.
    pub fqdn: Option<String>,
    /// Keys that let root in.
    pub ssh_authorized_keys: Vec<String>,
    /// Users to make.
    pub users: Vec<User>,
    /// Files to write.
    pub write_files: Vec<File>,
    /// Programs to run in the end.
    pub runcmd: Vec<Run>,
    /// Everything else.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde::de::IgnoredAny>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum User {
    /// `default`: the distribution's own user, of which there is none here.
    Named(String),
    /// Any other.
    Made(Account),
}

/// A user to make.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Full name.
    pub gecos: Option<String>,
    /// Further groups, `a, b` or a list.
    pub groups: Words,
    /// Login shell.
    pub shell: Option<String>,
    /// Rules for sudoers(5).
    pub sudo: Words,
    /// Keys that let them in.
    pub ssh_authorized_keys: Vec<String>,
    /// crypt(5) hash of their password.
    pub passwd: Option<String>,
    /// Whether the password does not count.
    pub lock_passwd: Option<bool>,
    /// Everything else.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde::de::IgnoredAny>,
}

/// One string with commas, or a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// `a, b`
    Line(String),
    /// `[a, b]`
    List(Vec<String>),
    /// `sudo: False` means none.
    No(bool),
}

impl Default for Words {
    fn default() -> Words {
        Words::List(Vec::new())
    }
}

impl Words {
    /// The words.
    pub fn list(&self) -> Vec<String> {
        match self {
            Words::Line(line) => vec![line.clone()],
            Words::List(list) => list.clone(),
            Words::No(_) => Vec::new(),
        }
    }
}

/// A file to write.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct File {
    /// Where.
    pub path: String,
    /// What.
    pub content: String,
    /// Octal mode.
    pub permissions: Option<String>,
    /// `user:group`.
    pub owner: Option<String>,
    /// Whether it goes to the end of what is there.
    pub append: bool,
    /// Everything else (`encoding` among it).
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde::de::IgnoredAny>,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Run {
    /// By the shell.
    Line(String),
    /// As it is.
    Words(Vec<String>),
}

impl Seed {
    /// Reads both files.
    ///
    /// # Errors
    /// [`SeedError`]: nothing of the seed is carried out then.
    pub fn parse(meta: &str, user: &str) -> Result<Seed, SeedError> {
        let mut seed = Seed {
            meta: yaml("meta-data", meta)?,
            ..Seed::default()
        };
        let first = user.lines().next().unwrap_or_default().trim_end();
        match first {
            "" if user.trim().is_empty() => {}
            "#cloud-config" => seed.config = yaml("user-data", user)?,
            _ if first.starts_with("#!") => seed.script = Some(user.to_owned()),
            _ => {
                return Err(SeedError::Kind {
                    start: first.chars().take(60).collect(),
                });
            }
        }
        Ok(seed)
    }
}

/// Reads YAML; nothing at all is nothing said.
fn yaml<T: for<'de> Deserialize<'de> + Default>(
    file: &'static str,
    text: &str,
) -> Result<T, SeedError> {
    let said = text
        .lines()
        .any(|line| !line.trim().is_empty() && !line.starts_with('#'));
    if !said {
        return Ok(T::default());
    }
    serde_yaml_ng::from_str(text).map_err(|error| SeedError::Syntax {
        file,
        said: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read() {
        let user = "#cloud-config\nhostname: web\nusers:\n  - default\n  - name: ann\n    groups: a, b\n    \
            sudo: ALL=(ALL) NOPASSWD:ALL\n    ssh_authorized_keys: [ssh-ed25519 AAAA ann]\n\
            write_files:\n  - path: /etc/motd\n    content: |\n      hello\n      there\n    permissions: '0600'\n\
            runcmd:\n  - touch /run/one\n  - [touch, /run/two]\npower_state: {mode: reboot}\n";
        let seed =
            Seed::parse("instance-id: i-1\nlocal-hostname: other\n", user).expect("it parses");
        assert_eq!(seed.meta.instance_id, "i-1");
        assert_eq!(seed.config.hostname.as_deref(), Some("web"));
        assert_eq!(seed.config.users.len(), 2);
        assert_eq!(seed.config.write_files[0].content, "hello\nthere\n");
        assert_eq!(seed.config.runcmd.len(), 2);
        assert_eq!(
            seed.config.unknown.keys().collect::<Vec<_>>(),
            ["power_state"]
        );
    }

    #[test]
    fn what_is_no_seed_is_said_to_be_none() {
        let error =
            |meta: &str, user: &str| Seed::parse(meta, user).expect_err("refused").to_string();
        assert!(error("", "Content-Type: multipart/mixed\n").contains("multipart"));
        assert!(error("", "#cloud-config\nhostname: [\n").starts_with("user-data: "));
        assert!(error("- a\n", "").starts_with("meta-data: "));
        assert_eq!(Seed::parse("", "").expect("nothing"), Seed::default());
        assert_eq!(
            Seed::parse("", "#cloud-config\n").expect("nothing"),
            Seed::default()
        );
        let script = Seed::parse("", "#!/bin/sh\ntrue\n").expect("a script");
        assert!(script.script.expect("a script").contains("true"));
    }
}
