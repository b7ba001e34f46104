//! From what a seed says to what is done, in order. Pure.

use crate::seed::{Account, Run, Seed, User};

/// Keys that ask for what every VexFS image does anyway, or does not have to be told.
const NEEDLESS: &[&str] = &[
    "growpart",
    "resize_rootfs",
    "preserve_hostname",
    "disable_root",
    "ssh_pwauth",
];

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Name the machine, with its domain if it has one.
    Name {
        /// Host name.
        host: String,
        /// With domain.
        fqdn: Option<String>,
    },
    /// Run a program, which must succeed.
    Run(Vec<String>),
    /// Let somebody in by keys.
    Keys {
        /// Who.
        user: String,
        /// Lines of authorized_keys.
        keys: Vec<String>,
    },
    /// Write a file.
    Write {
        /// Where.
        path: String,
        /// What.
        content: String,
        /// Mode.
        mode: u32,
        /// `user:group`.
        owner: Option<String>,
        /// Whether it goes to the end of what is there.
        append: bool,
    },
}

/// What is done, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order; one that fails does not keep the others from being done.
    pub actions: Vec<Action>,
    /// What the seed asks for and is not done, a sentence each.
    pub refused: Vec<String>,
}

/// Decides what is done about a seed.
pub fn plan(seed: &Seed) -> Plan {
    let config = &seed.config;
    let mut plan = Plan::default();
    let unknown = config
        .unknown
        .keys()
        .filter(|key| !NEEDLESS.contains(&key.as_str()));
    plan.refused
        .extend(unknown.map(|key| format!("`{key}` is not understood here")));
    let name = config.hostname.as_ref().or(config.fqdn.as_ref());
    let name = name.or(seed.meta.local_hostname.as_ref());
    if let Some(name) = name {
        plan.name(name, config.fqdn.as_ref());
    }
    for user in &config.users {
        match user {
            User::Named(name) if name == "default" => {}
            User::Named(name) => plan.account(&Account {
                name: name.clone(),
                ..Account::default()
            }),
            User::Made(account) => plan.account(account),
        }
    }
    if !config.ssh_authorized_keys.is_empty() {
        plan.actions.push(Action::Keys {
            user: "root".into(),
            keys: config.ssh_authorized_keys.clone(),
        });
    }
    for file in &config.write_files {
        let mode = file.permissions.as_deref().unwrap_or("0644");
        let mode = u32::from_str_radix(mode.trim_start_matches("0o"), 8);
        match (file.unknown.keys().next(), mode) {
            (Some(key), _) => plan.refused.push(format!(
                "`{key}` of the file {} is not understood here",
                file.path
            )),
            (_, Ok(mode)) if file.path.starts_with('/') && mode <= 0o7777 => {
                plan.actions.push(Action::Write {
                    path: file.path.clone(),
                    content: file.content.clone(),
                    mode,
                    owner: file.owner.clone(),
                    append: file.append,
                });
            }
            _ => plan.refused.push(format!(
                "the file `{}` has no absolute path, or no mode",
                file.path
            )),
        }
    }
    plan.actions.extend(config.runcmd.iter().map(|run| {
        Action::Run(match run {
            Run::Line(line) => ["/bin/sh", "-c", line].map(str::to_owned).into(),
            Run::Words(words) => words.clone(),
        })
    }));
    plan
}

/// A word that is safe as a name in commands and files.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() < 64 && name.chars().all(plain) && !name.starts_with(['-', '.'])
}

impl Plan {
    fn name(&mut self, name: &str, fqdn: Option<&String>) {
        let host = name.split('.').next().unwrap_or_default();
        if is_name(host) {
            self.actions.push(Action::Name {
                host: host.into(),
                fqdn: fqdn.filter(|fqdn| is_name(fqdn)).cloned(),
            });
        } else {
            self.refused.push(format!("`{name}` is no host name"));
        }
    }

    fn account(&mut self, account: &Account) {
        let name = &account.name;
        if !is_name(name) {
            self.refused.push(format!("`{name}` is no user name"));
            return;
        }
        let unknown = account.unknown.keys();
        self.refused.extend(
            unknown.map(|key| format!("`{key}` of the user {name} is not understood here")),
        );
        let run = |words: &[&str]| Action::Run(words.iter().map(|&word| word.to_owned()).collect());
        if name != "root" {
            let shell = account.shell.as_deref().unwrap_or("/bin/bash");
            let gecos = account.gecos.as_deref().unwrap_or_default();
            let groups = account.groups.list().join(",").replace(' ', "");
            let mut words = vec![
                "useradd",
                "--create-home",
                "--shell",
                shell,
                "--comment",
                gecos,
            ];
            if !groups.is_empty() {
                words.extend(["--groups", &groups]);
            }
            words.push(name);
            self.actions.push(run(&words));
        }
        match (&account.passwd, account.lock_passwd) {
            (Some(hash), Some(false)) => {
                self.actions
                    .push(run(&["usermod", "--password", hash, name]));
            }
            (Some(_), _) => self.refused.push(format!(
                "the password of {name} does not count without lock_passwd: false"
            )),
            _ => {}
        }
        if !account.ssh_authorized_keys.is_empty() {
            self.actions.push(Action::Keys {
                user: name.clone(),
                keys: account.ssh_authorized_keys.clone(),
            });
        }
        let rules = account.sudo.list();
        if !rules.is_empty() {
            let lines = rules.iter().map(|rule| format!("{name} {rule}\n"));
            self.actions.push(Action::Write {
                path: format!("/etc/sudoers.d/90-seed-{name}"),
                content: lines.collect(),
                mode: 0o440,
                owner: None,
                append: false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(user: &str) -> Plan {
        plan(&Seed::parse("instance-id: i\nlocal-hostname: meta\n", user).expect("a seed"))
    }

    #[test]
    fn a_user_gets_account_keys_and_rules() {
        let plan = planned(
            "#cloud-config\nusers:\n  - default\n  - name: ann\n    groups: adm, audio\n    \
             sudo: ALL=(ALL) NOPASSWD:ALL\n    ssh_authorized_keys: [k]\n",
        );
        assert_eq!(plan.refused, Vec::<String>::new());
        let [
            Action::Name { host, .. },
            Action::Run(add),
            Action::Keys { user, .. },
            Action::Write { path, mode, .. },
        ] = plan.actions.as_slice()
        else {
            panic!("{:?}", plan.actions)
        };
        assert_eq!(host, "meta");
        assert!(add.join(" ").ends_with("--groups adm,audio ann"), "{add:?}");
        assert_eq!(
            (user.as_str(), path.as_str(), *mode),
            ("ann", "/etc/sudoers.d/90-seed-ann", 0o440)
        );
    }

    #[test]
    fn what_is_not_done_is_said() {
        let plan = planned(
            "#cloud-config\npackages: [git]\ngrowpart: {mode: auto}\nhostname: 'a b'\nusers:\n  - name: -rf\n  \
             - name: bob\n    passwd: $6$x$y\n    uid: 7\nwrite_files:\n  - {path: etc/x, content: y}\n  \
             - {path: /etc/y, encoding: gz, content: y}\n",
        );
        let said = plan.refused.join("\n");
        for part in [
            "`packages` is not understood",
            "`a b` is no host name",
            "`-rf` is no user name",
            "`uid` of the user bob",
            "password of bob",
            "`etc/x` has no absolute path",
            "`encoding` of the file /etc/y",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("growpart"));
        assert_eq!(plan.actions.len(), 1, "{:?}", plan.actions);
    }
}
