//! Pages of `docs/` that this program knows better than anybody who writes: what it takes, what it checks, what it
//! builds and how it ends. They are made from what the program is made of, and a test fails when one is stale.

mod checks;
mod commands;
mod exit_codes;
mod links;
mod options;
mod variants;

use std::fs;
use std::path::{Path, PathBuf};

/// How a page is written anew.
const REMEDY: &str = "UPDATE_GOLDEN=1 cargo nextest run -p host-harness -E 'test(/^docs::/)'";

fn workspace() -> &'static Path {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates.parent().unwrap_or(crates)
}

/// A page of `docs/` says exactly this, or is made to.
fn holds(name: &str, text: &str) {
    let path = workspace().join("docs").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&path, text).expect("a page that can be written");
        return;
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let line = there.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or(there.lines().count().min(text.lines().count()));
    assert!(
        there == text,
        "docs/{name} is stale from line {} on: it says\n  {}\nand the program\n  {}\nrun {REMEDY}",
        line + 1,
        there.lines().nth(line).unwrap_or("nothing"),
        text.lines().nth(line).unwrap_or("nothing"),
    );
}

/// The line a made page begins with.
fn made_from(what: &str) -> String {
    format!("<!-- Made from {what}: {REMEDY} -->\n\n")
}

/// Pages outside `docs/` that people read.
const PAGES: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "benches/README.md",
    "faults/README.md",
    "vexfs/README.md",
];

/// The pages that people read, with what they say.
fn pages() -> Vec<(PathBuf, String)> {
    let named = PAGES.iter().map(|name| workspace().join(name));
    let mut all: Vec<PathBuf> = named.collect();
    let docs = fs::read_dir(workspace().join("docs")).expect("docs/");
    let docs = docs.map(|entry| entry.expect("an entry").path());
    all.extend(docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")));
    all.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, text)
    };
    all.into_iter().map(read).collect()
}

/// A page without its fenced blocks, and the blocks: the language, the number of their first line, the text.
fn parts(text: &str) -> (String, Vec<(&str, usize, String)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut open: Option<(&str, usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.trim(), number + 2, String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, _, block)), None) => *block += &format!("{line}\n"),
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    (prose, blocks)
}
