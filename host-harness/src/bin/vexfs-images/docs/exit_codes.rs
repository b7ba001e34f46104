//! `docs/exit-codes.md`

use clap::CommandFactory;

use crate::Cli;
use crate::exit_codes::{COMMANDS, all};

#[test]
fn the_page_says_what_the_table_says() {
    let mut page = super::made_from("host-harness/src/bin/vexfs-images/exit_codes.rs");
    page += "# Exit codes\n\n\
             | code | whose | what has happened |\n|---|---|---|\n";
    for row in all() {
        page += &format!("| {} | {} | {} |\n", row.code, row.whose, row.means);
    }
    page += "\nThe others of sysexits.h are not used. These commands say more:\n\n\
             | command | its exit code |\n|---|---|\n";
    for (command, code) in COMMANDS {
        page += &format!("| `{command}` | {code} |\n");
    }
    super::holds("exit-codes.md", &page);
}

#[test]
fn the_commands_exist() {
    for (command, _) in COMMANDS {
        let mut there = &Cli::command();
        for word in command.split(' ') {
            let below = there.find_subcommand(word);
            there = below.unwrap_or_else(|| panic!("no command {command}"));
        }
    }
}
