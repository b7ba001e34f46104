//! What Packer and the console of its machine say, and whom it tells against.

use crate::stages::payload::PROVISION;

/// How much of the console an error shows.
const CONSOLE_LINES: usize = 20;

/// Packer's words when its patience with SSH has ended.
const NEVER_CAME: &str = "Timeout waiting for SSH";

/// Only a base that is up prints these: getty(8)'s prompt on the serial console, and the target it belongs to,
/// whose description has been the same since systemd has targets. sshd is wanted by the same target.
const UP: &[&str] = &[
    " login:",
    "Reached target multi-user.target",
    "Reached target Multi-User System",
];

/// After these a kernel or its init is not to be trusted, whatever came before or after. Not here are the
/// watchdogs (`soft lockup`, RCU stalls, hung tasks): a host that lets its guest wait sets them off too.
const BROKEN: &[&str] = &[
    "Kernel panic - not syncing",
    "BUG: ",
    "kernel BUG at",
    "Oops: ",
    "general protection fault",
    "Internal error: ",
    "emergency mode",
    "rescue mode",
    "Freezing execution",
    "dracut:/#",
    "(initramfs)",
    "grub rescue>",
];

/// What a machine tells that SSH never reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreached {
    /// It broke on its way up, or never came up: it will the next time.
    Guest,
    /// It was up and well, and this host did not get through to it in time.
    Host,
}

/// Who is to blame that SSH never came; `None` when Packer complains of something else.
///
/// sshd that fails is the guest's: systemd says so on the console, after which no prompt helps it.
pub(super) fn unreached(packer: &str, console: &str) -> Option<Unreached> {
    if !packer.contains(NEVER_CAME) {
        return None;
    }
    let console = strip_escapes(console);
    let has = |words: &[&str]| words.iter().any(|word| console.contains(word));
    // One boot only: a machine that boots again and again has shown a prompt now and then.
    let boots = console.matches("] Linux version ").count();
    let sshd_failed = console
        .lines()
        .any(|line| line.contains("Failed to start") && line.to_lowercase().contains("ssh"));
    match has(UP) && !has(BROKEN) && boots <= 1 && !sshd_failed {
        true => Some(Unreached::Host),
        false => Some(Unreached::Guest),
    }
}

/// The last lines of a serial console, without colours and cursor movements.
pub(super) fn console_end(console: &str) -> String {
    let text = strip_escapes(console);
    let lines: Vec<_> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.len() {
        0 => "(nothing: the machine did not reach its boot loader)".into(),
        n => lines[n.saturating_sub(CONSOLE_LINES)..].join("\n"),
    }
}

/// Removes ECMA-48 control sequences and carriage returns.
fn strip_escapes(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next_if_eq(&'[').is_some() {
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
        } else if c != '\r' {
            out.push(c);
        }
    }
    out
}

/// The script that failed and what it printed, from Packer's log; the template says each one's name before it.
pub(super) fn failed_script(log: &str) -> Option<(String, String)> {
    const STARTED: &str = "qemu.vexfs: stage: ";
    const EXITED: &str = "Script exited with non-zero exit status";
    const CLEANING: &str = "Provisioning step had errors";
    let exited = log.find(EXITED)?;
    let before = &log[..log.find(CLEANING).unwrap_or(exited).min(exited)];
    let started = before.rfind(STARTED)?;
    let rest = &before[started + STARTED.len()..];
    let (script, output) = rest.split_once('\n').unwrap_or((rest, ""));
    let script = script.trim();
    let lines: Vec<_> = output
        .lines()
        .filter_map(|line| line.split_once("qemu.vexfs: ").map(|(_, said)| said.trim()))
        .collect();
    let tail = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
    let tail = tail.trim_end().to_owned();
    Some((format!("{PROVISION}/{script}"), tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Consoles below `tests/golden/consoles`, and whose trouble it is that SSH never came.
    const GOLDEN: &[(&str, &str, Unreached)] = &[
        (
            "up and well",
            include_str!("../../tests/golden/consoles/up.log"),
            Unreached::Host,
        ),
        (
            "panic",
            include_str!("../../tests/golden/consoles/panic.log"),
            Unreached::Guest,
        ),
        (
            "an oops, and a prompt after it",
            include_str!("../../tests/golden/consoles/oops.log"),
            Unreached::Guest,
        ),
        (
            "sshd does not start",
            include_str!("../../tests/golden/consoles/no-sshd.log"),
            Unreached::Guest,
        ),
        (
            "emergency mode",
            include_str!("../../tests/golden/consoles/emergency.log"),
            Unreached::Guest,
        ),
        (
            "boots again and again",
            include_str!("../../tests/golden/consoles/boots-again.log"),
            Unreached::Guest,
        ),
        (
            "never past the boot loader",
            include_str!("../../tests/golden/consoles/grub.log"),
            Unreached::Guest,
        ),
        ("nothing at all", "", Unreached::Guest),
    ];

    #[test]
    fn the_console_says_whose_trouble_it_is_that_ssh_never_came() {
        let packer = "Build 'qemu.vexfs' errored: Timeout waiting for SSH.\n";
        for (what, console, whose) in GOLDEN {
            assert_eq!(unreached(packer, console), Some(*whose), "{what}");
            assert_eq!(unreached("qemu.vexfs: stage: 10", console), None, "{what}");
        }
    }

    #[test]
    fn the_console_is_shown_by_its_last_lines_in_plain_text() {
        let text = "\x1b[2J\x1b[01;00HGRUB\r\n\x1b[0;32m  OK  \x1b[0m] Started\r\n\r\n[ 1.0] Kernel panic\r\n";
        assert_eq!(
            console_end(text),
            "GRUB\n  OK  ] Started\n[ 1.0] Kernel panic"
        );
        let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let end = console_end(&many);
        assert_eq!(end.lines().count(), CONSOLE_LINES);
        assert!(end.ends_with("line 99"));
        assert!(console_end("").starts_with("(nothing"));
    }

    #[test]
    fn the_failed_script_is_named_with_what_it_said() {
        let log = include_str!("../../tests/golden/packer-script-failed.log");
        assert_eq!(
            failed_script(log),
            Some((
                "provision/20-vexctl.sh".into(),
                "install: cannot stat '/run/vexfs-build/vexctl': No such file or directory".into()
            ))
        );
        assert_eq!(
            failed_script("Build 'qemu.vexfs' errored: Timeout waiting for SSH."),
            None
        );
    }
}
