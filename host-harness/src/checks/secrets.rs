//! Nothing secret ships: what a scan of the running image must not find.

use crate::lab::{Failure, Lab};

/// Root's may be declared.
const PASSWORD: &str = "an account with a usable password";

/// What must print nothing, and what it means if it prints something. Read-only scans, run by the
/// guest's own shell.
const SCANS: &[(&str, &str)] = &[
    (
        PASSWORD,
        "awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow",
    ),
    ("an authorized SSH key", "find /root /home -path '*/.ssh/*' -type f"),
    (
        "a private key",
        "find /etc /root /home /opt /srv /usr/local /var -xdev -type f -size -64k \
           ! -path '/etc/ssh/ssh_host_*' -exec grep -lE -e '-----BEGIN [A-Z ]*PRIVATE KEY-----' {} +",
    ),
    (
        "a token or password in a configuration or log",
        "find /etc /root /home /opt /srv /var/log /var/lib/vexfs -xdev -type f -size -1024k 2>/dev/null \
           -exec grep -lIiE -e '(api[_-]?key|secret|token|passw(or)?d)[\"'\\'']?[ ]*[=:][ ]*[\"'\\'']?[A-Za-z0-9+/_-]{16,}' {} +",
    ),
    ("shell history", "find /root /home -name '.*_history' -size +0"),
    ("what Packer left", "find /tmp /var/tmp /root -xdev \\( -name 'packer*' -o -name 'script_*.sh' \\)"),
    (
        "the agent's secret in a file",
        "secret=$(systemd-creds --system cat vexfs.agent-secret)
         find /etc /root /home /var /usr/lib/vexfs -xdev -type f -size -4096k -exec grep -lIF -e \"$secret\" {} +",
    ),
    (
        "SSH host keys that were not made at this machine's first boot",
        // The first boot writes the machine id, and then makes the keys. Times of files are compared
        // with each other: the clock of a fork has been set since.
        "find /etc/ssh -name 'ssh_host_*' ! -newer /etc/machine-id",
    ),
];

/// Runs every scan and reports all findings together.
pub async fn none_in_the_image(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mut found = String::new();
    // The builder may have let root in; then that is declared, and only that.
    let access = lab.manifest().variables.get("root_access").cloned();
    let access = access.unwrap_or_default();
    for (what, scan) in SCANS {
        let scan = match *what {
            PASSWORD if access.contains("password") => &*format!("{scan} | grep -vx root || true"),
            _ => *scan,
        };
        // grep and find use their exit codes for "nothing found": what they print is what counts,
        // and a scan that could not run has printed why on standard error.
        let output = guest.exec(["/bin/sh", "-uc", scan]).await?;
        let (stdout, stderr) = (output.stdout_text(), output.stderr_text());
        if !stdout.trim().is_empty() || !stderr.trim().is_empty() {
            found.push_str(&format!("{what}:\n{stdout}{stderr}"));
        }
    }
    let log = lab.build_log_secrets()?;
    if !log.is_empty() {
        found.push_str(&format!("a secret in the build's logs:\n{log}"));
    }
    if found.is_empty() {
        return Ok(());
    }
    let first = found
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(':');
    Err(Failure::check(
        "secrets",
        format!("the image holds {first}"),
        found.clone(),
    ))
}
