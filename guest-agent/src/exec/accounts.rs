//! Who a user is: `/etc/passwd` and `/etc/group`, read here because a static program cannot load the
//! C library's name service modules.

use std::fs;
use std::io;

use agent_protocol::{Fault, FaultKind};

/// What it takes to run as somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Primary and supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// Looks `user`, a name or a number, up in the files.
///
/// # Errors
/// When there is no such user, or no files.
pub fn look_up(user: &str) -> Result<Account, Fault> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|error: io::Error| Fault::from_io(path, &error))
    };
    let group = read("/etc/group").unwrap_or_default();
    match read("/etc/passwd") {
        Ok(passwd) => find(user, &passwd, &group),
        // An initramfs has no accounts, and needs none to be root.
        Err(_) if user == "root" || user == "0" => Ok(root()),
        Err(fault) => Err(fault),
    }
}

fn root() -> Account {
    Account {
        name: "root".to_owned(),
        uid: 0,
        gid: 0,
        groups: vec![0],
        home: "/root".to_owned(),
        shell: "/bin/sh".to_owned(),
    }
}

/// passwd(5), group(5).
fn find(user: &str, passwd: &str, group: &str) -> Result<Account, Fault> {
    let number: Option<u32> = user.parse().ok();
    let mut account = passwd
        .lines()
        .find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = fields[..] else {
                return None;
            };
            let uid = uid.parse().ok()?;
            (name == user || number == Some(uid)).then_some(Account {
                name: name.to_owned(),
                uid,
                gid: gid.parse().ok()?,
                groups: Vec::new(),
                home: home.to_owned(),
                shell: if shell.is_empty() { "/bin/sh" } else { shell }.to_owned(),
            })
        })
        .ok_or_else(|| {
            Fault::new(
                FaultKind::NotFound,
                format!("no user {user:?} in the guest's /etc/passwd"),
            )
        })?;
    account.groups.push(account.gid);
    for line in group.lines() {
        let fields: Vec<_> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else {
            continue;
        };
        let (Ok(gid), true) = (
            gid.parse(),
            members.split(',').any(|name| name == account.name),
        ) else {
            continue;
        };
        if !account.groups.contains(&gid) {
            account.groups.push(gid);
        }
    }
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # broken\nbroken:x:notanumber:1::/:\n\
        _apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n\
        anna:x:1000:1000:Anna,,,:/home/anna:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:syslog,anna\nbroken\ndisk:x:6:annabel\n\
        anna:x:1000:anna\nkvm:x:104:anna\n";

    #[test]
    fn a_user_is_found_by_name_and_number_with_all_groups() {
        let anna = find("anna", PASSWD, GROUP).unwrap();
        assert_eq!((anna.uid, anna.gid), (1000, 1000));
        assert_eq!(anna.groups, [1000, 4, 104]);
        assert_eq!(anna.shell, "/bin/sh");
        assert_eq!(find("1000", PASSWD, GROUP).unwrap(), anna);
        assert_eq!(find("_apt", PASSWD, GROUP).unwrap().groups, [65534]);
    }

    #[test]
    fn nobody_by_that_name() {
        for user in ["ann", "", "broken", "1001", "root:x"] {
            assert_eq!(
                find(user, PASSWD, GROUP).unwrap_err().kind,
                FaultKind::NotFound
            );
        }
    }
}
