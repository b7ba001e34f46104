//! What the program's exit codes mean, as data: `docs/exit-codes.md` and `--help` are made of it.

use image_builder::Fault;
use results::Outcome;

use crate::tryout::NOTHING_TESTED;

/// Ended by Ctrl-C, as shells have it: 128 and the signal.
pub const INTERRUPTED: u8 = 130;
/// Ended by SIGTERM.
pub const TERMINATED: u8 = 143;

/// An exit code that means the same in every command.
pub struct ExitCode {
    /// The code.
    pub code: u8,
    /// Whose doing it is, in a word.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a column of docs/exit-codes.md")
    )]
    pub whose: &'static str,
    /// What has happened.
    pub means: &'static str,
}

/// All of them, in ascending order.
pub fn all() -> [ExitCode; 8] {
    let row = |code, whose, means| ExitCode { code, whose, means };
    [
        row(Outcome::EXIT_OK, "well", "all is well"),
        row(
            Outcome::EXIT_FAIL,
            "guest",
            "something checked does not hold; in a build: the machine that is provisioned broke, or a script in it \
             failed",
        ),
        row(
            Fault::Request.exit_code(),
            "request, tree",
            "the command line or its input is wrong; in a build also: the VexFS tree is not one, or does not compile",
        ),
        row(
            NOTHING_TESTED,
            "nothing",
            "nothing was asked, or everything was skipped; `try` had nothing to test: that is no pass",
        ),
        row(
            Fault::Ours.exit_code(),
            "ours",
            "the builder itself went wrong",
        ),
        row(
            Fault::Host.exit_code(),
            "host",
            "the host could not do its part; try again",
        ),
        row(INTERRUPTED, "interrupted", "ended by Ctrl-C"),
        row(TERMINATED, "terminated", "ended by SIGTERM"),
    ]
}

/// Commands whose codes say more, and what.
pub const COMMANDS: &[(&str, &str)] = &[
    (
        "exec",
        "the program's own; 128 and the signal when one ended it, 137 when it took too long",
    ),
    ("shell", "the shell's own"),
    ("ssh", "the SSH client's: the program's own, or 255"),
    ("reopen", "like `exec`, or `shell`"),
    ("diff", "0 the same, 1 different, 2 cannot tell"),
    (
        "verify",
        "1 when anything beside an image differs from anything else",
    ),
    ("doctor", "1 when something is missing"),
    (
        "bisect",
        "0 with the first bad commit, 1 when only commits are left to tell apart that do not compile",
    ),
    (
        "perf compare",
        "0 nothing got worse, 1 something did, 75 this host cannot tell",
    ),
    ("report merge", "1 when a case in the files failed"),
];

/// The end of `--help`.
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for row in all() {
        text += &format!("  {:<4} {}\n", row.code, row.means);
    }
    text += "\nThese say more:\n";
    for (command, codes) in COMMANDS {
        text += &format!("  {command:<13} {codes}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_program_is_told_once() {
        let told = all().map(|row| row.code);
        assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
        let faults = [
            Fault::Request,
            Fault::Tree,
            Fault::Guest,
            Fault::Host,
            Fault::Ours,
        ];
        let used = faults.map(Fault::exit_code);
        let infrastructure = Outcome::EXIT_INFRASTRUCTURE;
        for code in used.into_iter().chain([infrastructure]) {
            assert!(told.contains(&code), "{code} is told nowhere");
        }
    }
}
