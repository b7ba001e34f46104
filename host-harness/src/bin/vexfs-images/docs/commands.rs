//! Every command that a page shows is one that can be given.

use std::os::unix::fs::PermissionsExt;

use clap::CommandFactory;
use clap::Parser;

use crate::Cli;

/// What cargo's other commands that pages show may be given; nothing here knows their whole grammar.
const CARGO: &[(&str, &[&str])] = &[
    (
        "nextest",
        &[
            "run",
            "list",
            "-p",
            "--package",
            "-E",
            "--profile",
            "--workspace",
            "--ignore-default-filter",
        ],
    ),
    ("bench", &["--bench", "-p"]),
];

#[test]
fn in_blocks_can_be_given() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (page, text) in super::pages() {
        let (_, blocks) = super::parts(&text);
        for (_, first, block) in blocks.iter().filter(|(language, ..)| *language == "sh") {
            for (number, command) in lines(block) {
                seen += 1;
                if let Err(why) = given(&command) {
                    let page = page.display();
                    wrong.push(format!("{page}:{}: {command}\n  {why}", first + number));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "commands that cannot be given:\n{}",
        wrong.join("\n")
    );
    assert!(
        seen > 30,
        "only {seen} commands were found: is it still these that pages show?"
    );
}

#[test]
fn in_prose_are_there() {
    let mut wrong = Vec::new();
    for (page, text) in super::pages() {
        let (prose, _) = super::parts(&text);
        // Between an odd backtick and the next stands code.
        for code in prose.split('`').skip(1).step_by(2) {
            let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
            let Some(words) = code.strip_prefix("cargo images ") else {
                continue;
            };
            if let Err(why) = named(words) {
                wrong.push(format!("{}: {code}: {why}", page.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "commands that are not there:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn wrong_ones_are_noticed() {
    for wrong in [
        "cargo images validat minimal",
        "cargo images validate --chek fio",
        "cargo images validate --check 'test(fio'",
        "cargo images perf",
        "cargo images build --kernel-version 5.10",
        "ci/no-such-script",
        "ci/apt-packages",
        "cargo nextest rum",
        "cargo bench --bunch agent",
        "cargo images list 'unclosed",
    ] {
        assert!(given(wrong).is_err(), "{wrong}");
    }
    for right in [
        "CI_TAG=v1.2.3 ci/pipeline",
        "cargo images exec minimal -- uname -a    # says which kernel",
        "cargo nextest run -p host-harness -E 'test(fio)'",
        "qemu-img info x",
    ] {
        assert_eq!(given(right), Ok(()), "{right}");
    }
    assert!(named("vlidate …").is_err() && named("validate --chek …").is_err());
    assert_eq!(named("validate --check …"), Ok(()));
    assert_eq!(named("perf run"), Ok(()));
}

/// The commands of a block with the number of their first line: what ends with a backslash goes on, comments are
/// left out.
fn lines(block: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in block.lines().enumerate() {
        let (text, more) = match line.strip_suffix('\\') {
            Some(text) => (text, true),
            None => (line, false),
        };
        match all.last_mut().filter(|_| goes_on) {
            Some((_, command)) => *command += text,
            None => all.push((number, text.to_owned())),
        }
        goes_on = more;
    }
    all.retain(|(_, command)| !command.trim().is_empty() && !command.trim().starts_with('#'));
    all
}

/// Whether the command can be given: ours as far as our parser goes, scripts as far as that they are there.
fn given(command: &str) -> Result<(), String> {
    let mut words = words(command)?;
    // Variables that are set for one command.
    while words.first().is_some_and(|word| {
        word.split_once('=')
            .is_some_and(|(name, _)| is_variable(name))
    }) {
        words.remove(0);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["cargo", "images", rest @ ..] => parses(rest),
        ["cargo", sub, rest @ ..] => {
            let known = CARGO.iter().find(|(name, _)| name == sub);
            let (_, known) =
                known.ok_or(format!("no page shows cargo {sub} yet: add it to CARGO"))?;
            let options = rest.iter().filter(|word| word.starts_with('-'));
            let first = rest.first().filter(|_| *sub == "nextest");
            match options.chain(first).find(|word| !known.contains(word)) {
                Some(word) => Err(format!("cargo {sub} does not know {word}")),
                None => Ok(()),
            }
        }
        [script, rest @ ..] if script.starts_with("ci/") => {
            let file = super::workspace().join(script);
            let mode = file
                .metadata()
                .map_err(|error| error.to_string())?
                .permissions()
                .mode();
            match (mode & 0o111, *script) {
                (0, _) => Err("it cannot be executed".into()),
                // What it is given goes on to this program.
                (_, "ci/pipeline") => parses(&[&["ci"], rest].concat()),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn parses(words: &[&str]) -> Result<(), String> {
    let line = ["vexfs-images"].iter().chain(words);
    Cli::try_parse_from(line)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Whether the words begin with a command that exists, and have no option it does not take.
fn named(words: &str) -> Result<(), String> {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for word in words.split(' ') {
        if word == "--" {
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            let long = long.split(['=', '[', ']', '|']).next().unwrap_or(long);
            let takes = |arg: &clap::Arg| {
                let aliases = arg.get_visible_aliases().unwrap_or_default();
                arg.get_long() == Some(long) || aliases.contains(&long)
            };
            if !command.get_arguments().any(takes) {
                return Err(format!("{} has no option --{long}", command.get_name()));
            }
        } else if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        } else if command.get_name() == root.get_name() && word != "…" {
            return Err(format!("no command is called {word}"));
        }
    }
    Ok(())
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// The words as a shell has them, as far as pages go: quotes, and a comment at the end.
fn words(command: &str) -> Result<Vec<String>, String> {
    let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => all.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    match quote {
        None => Ok(all),
        Some(open) => Err(format!("a {open} is not closed")),
    }
}
