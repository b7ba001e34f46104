//! `docs/options.md`

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::Cli;

/// In how many commands an option is told of once for all of them.
const EVERYWHERE: usize = 6;

/// Options that mean another thing in another command, each with what tells them apart.
const UNLIKE: &[(&str, &str)] = &[
    ("allowed-signers", "of a tag of the source, and of an image"),
    (
        "boot-timeout",
        "until the agent answers, and until SSH does",
    ),
    ("format", "of images, of reports and of lists"),
    ("image", "what is measured, in `perf run`"),
    ("junit", "each report has a place of its own by default"),
    (
        "memory",
        "of the machine that is provisioned, and of one that is booted",
    ),
    ("parallel", "variants that are built, and checks that run"),
    ("user", "who runs the program, and who logs in"),
    ("variants", "what is built, and what is there already"),
    (
        "vexfs-source",
        "anything a build takes, and a folder that is built again and again",
    ),
];

/// Every command that does something, with its words.
fn commands() -> Vec<(String, Command)> {
    fn below(words: &str, command: &Command, all: &mut Vec<(String, Command)>) {
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
        {
            let words = format!("{words} {}", sub.get_name());
            all.push((words.clone(), sub.clone()));
            below(&words, sub, all);
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut all = Vec::new();
    below("cargo images", &root, &mut all);
    all
}

/// What a command takes, but what every program takes.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    let usual = |arg: &&Arg| !matches!(arg.get_id().as_str(), "help" | "version");
    command
        .get_arguments()
        .filter(usual)
        .filter(|arg| !arg.is_hide_set())
}

#[test]
fn the_page_says_what_the_program_takes() {
    let commands = commands();
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for (_, command) in &commands {
        for arg in arguments(command).filter(|arg| arg.get_long().is_some()) {
            *uses.entry(line(arg)).or_default() += 1;
        }
    }
    uses.retain(|_, count| *count >= EVERYWHERE);
    let mut page = super::made_from("host-harness/src/bin/vexfs-images");
    page += "# Commands and their options\n\n\
             `cargo images …` is short for the program `vexfs-images`. [exit-codes.md](exit-codes.md) says how\n\
             commands end.\n\n## Of many commands\n\n";
    uses.keys().for_each(|line| page += line);
    for (words, command) in &commands {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        page += &format!("\n## {words}\n\n{about}.\n");
        let usage = command.clone().render_usage().to_string();
        let usage = usage
            .trim_start_matches("Usage: ")
            .replace("vexfs-images ", "cargo images ");
        let usage = usage.lines().map(str::trim).collect::<Vec<_>>().join("\n");
        page += &format!("\n```text\n{usage}\n```\n\n");
        let (common, own): (Vec<&Arg>, Vec<&Arg>) =
            arguments(command).partition(|arg| uses.contains_key(&line(arg)));
        own.iter().for_each(|arg| page += &line(arg));
        let common: Vec<String> = common.iter().map(|arg| name(arg)).collect();
        if !common.is_empty() {
            page += &format!("- also {}\n", common.join(", "));
        }
    }
    super::holds("options.md", &page.replace("\n\n\n", "\n\n"));
}

#[test]
fn an_option_of_two_commands_is_defined_once() {
    let mut told: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut unlike = Vec::new();
    let mut meant = BTreeSet::new();
    for (words, command) in &commands() {
        for arg in arguments(command) {
            let key = arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned();
            let text = line(arg);
            match told.get(&key) {
                None => drop(told.insert(key, (words.clone(), text))),
                Some((_, before)) if *before == text => {}
                Some(_) if UNLIKE.iter().any(|(name, _)| *name == key) => {
                    meant.insert(key);
                }
                // What a command is about stands in its own words.
                Some(_) if arg.get_long().is_none() => {}
                Some((other, before)) => {
                    unlike.push(format!("{key}\n  {other}: {before}  {words}: {text}"));
                }
            }
        }
    }
    assert!(
        unlike.is_empty(),
        "share these options in options.rs, or say in UNLIKE what tells them apart:\n{}",
        unlike.join("\n")
    );
    let idle = UNLIKE.iter().find(|(name, _)| !meant.contains(*name));
    assert_eq!(idle, None, "this is said in UNLIKE, and is not so");
}

fn name(arg: &Arg) -> String {
    let dashed = arg.get_long().map(|long| format!("--{long}"));
    format!("`{}`", dashed.unwrap_or(arg.get_id().to_string()))
}

/// An option in a line: how it is written, what it does, its values, default and variable.
fn line(arg: &Arg) -> String {
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let values: Vec<String> = arg
        .get_value_names()
        .filter(|_| takes)
        .into_iter()
        .flatten()
        .map(|value| format!("<{value}>"))
        .collect();
    let mut written: Vec<String> = arg
        .get_short()
        .map(|short| format!("-{short}"))
        .into_iter()
        .collect();
    let long = arg.get_long().into_iter();
    let aliases = arg.get_visible_aliases().into_iter().flatten();
    written.extend(long.chain(aliases).map(|long| format!("--{long}")));
    let written = match (written.is_empty(), values.is_empty()) {
        (true, _) => values.join(" "),
        (false, true) => written.join(", "),
        (false, false) => format!("{} {}", written.join(", "), values.join(" ")),
    };
    let mut text = format!("- `{written}`");
    if let Some(help) = arg.get_help() {
        text += &format!(" {help}");
    }
    let possible = arg.get_possible_values();
    let told: Vec<String> = possible
        .iter()
        .filter(|_| takes)
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}` ({help})", value.get_name()),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !told.is_empty() {
        text += &format!(": {}", told.join(", "));
    }
    let default: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    if takes && !default.is_empty() {
        text += &format!(" [default: {}]", default.join(","));
    }
    if let Some(variable) = arg.get_env() {
        text += &format!(" [variable: `{}`]", variable.to_string_lossy());
    }
    text + "\n"
}
