//! Links among the pages lead somewhere.

use std::collections::BTreeSet;
use std::fs;

#[test]
fn lead_to_files_and_headings_that_are_there() {
    let mut dead = Vec::new();
    for (page, text) in super::pages() {
        let (prose, _) = super::parts(&text);
        let folder = page.parent().expect("a folder");
        for target in targets(&prose).filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                page.clone()
            } else {
                folder.join(file)
            };
            let there = match heading {
                "" => file.exists(),
                heading => {
                    fs::read_to_string(&file).is_ok_and(|text| headings(&text).contains(heading))
                }
            };
            if !there {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links to nothing:\n{}", dead.join("\n"));
}

#[test]
fn every_page_is_led_to() {
    let pages = super::pages();
    let readme = pages
        .iter()
        .find(|(page, _)| *page == super::workspace().join("README.md"));
    let (_, readme) = readme.expect("a README");
    let known: BTreeSet<&str> = targets(readme)
        .map(|target| target.split('#').next().unwrap_or(""))
        .collect();
    let in_docs = pages
        .iter()
        .filter(|(page, _)| page.parent().is_some_and(|folder| folder.ends_with("docs")));
    for (page, _) in in_docs {
        let name = format!(
            "docs/{}",
            page.file_name().unwrap_or_default().to_string_lossy()
        );
        assert!(
            known.contains(name.as_str()),
            "README.md does not lead to {name}"
        );
    }
}

/// What stands between `](` and `)`.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// The names of a page's headings, as GitHub and GitLab make them.
fn headings(text: &str) -> BTreeSet<String> {
    let (prose, _) = super::parts(text);
    let lines = prose.lines().filter(|line| line.starts_with('#'));
    let slug = |line: &str| -> String {
        let line = line.trim_start_matches('#').trim().to_lowercase();
        let kept = line
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    lines.map(slug).collect()
}

/// What stands in backticks and begins with one of our folders is a path of the tree; `NAME` and `*` stand for
/// many, `out` and `target` are what programs leave.
#[test]
fn paths_in_prose_are_there() {
    let mut gone = Vec::new();
    for (page, text) in super::pages() {
        let (prose, _) = super::parts(&text);
        for code in prose.split('`').skip(1).step_by(2) {
            let folder = code.split_once('/').map(|(folder, _)| folder);
            let ours = |folder: &str| {
                let named = !folder.is_empty() && !matches!(folder, "." | ".." | "out" | "target");
                named && super::workspace().join(folder).is_dir()
            };
            let plain = !code.contains(['*', '<', ' ', '[', '$']) && !code.contains("NAME");
            let file = super::workspace().join(code);
            if plain && folder.is_some_and(ours) && !file.exists() {
                gone.push(format!("{}: {code}", page.display()));
            }
        }
    }
    assert!(
        gone.is_empty(),
        "paths that are not there:\n{}",
        gone.join("\n")
    );
}
