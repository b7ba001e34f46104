//! `docs/variants.md`

use std::fs;

use toml::{Table, Value};

#[test]
fn the_page_says_what_the_variants_say() {
    let mut page = super::made_from("packer/variants and host-harness/src/checks/declared");
    page += "# Variants\n\n\
             What each variant has besides what all have (`provision/base/recipe.toml`; declared in\n\
             `host-harness/src/checks/declared/all.toml`). [building.md](building.md#variants) says how large they are,\n\
             what they are for, and how to add one.\n";
    let folder = super::workspace().join("packer/variants");
    let entries = fs::read_dir(&folder).expect("packer/variants");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names
        .filter_map(|name| Some(name.to_str()?.strip_suffix(".pkrvars.hcl")?.to_owned()))
        .collect();
    names.sort();
    for name in names {
        let read = |path: String| {
            let path = super::workspace().join(path);
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let text = read(format!("packer/variants/{name}.pkrvars.hcl"));
        let own: Table = text.parse().expect("a variant");
        let declared = read(format!("host-harness/src/checks/declared/{name}.toml"));
        let declared: Table = declared.parse().expect("a declaration");
        page += &format!("\n## {name}\n\n{}\n\n| | |\n|---|---|\n", about(&text));
        let rows = own.iter().filter(|(key, _)| *key != "image_variant");
        for (key, value) in rows {
            page += &row(&key.replace('_', " "), value);
        }
        for (what, list) in &declared {
            for (key, value) in list.as_table().into_iter().flatten() {
                page += &row(&format!("declared {what}: {key}"), value);
            }
        }
    }
    super::holds("variants.md", &page);
}

/// The first sentence of the comment a file begins with.
fn about(text: &str) -> String {
    let comment = text.lines().map_while(|line| line.strip_prefix("# "));
    let mut lines = Vec::new();
    for line in comment {
        lines.push(line);
        if line.ends_with('.') {
            break;
        }
    }
    lines.join(" ")
}

fn row(key: &str, value: &Value) -> String {
    let one = |value: &Value| match value {
        Value::String(word) => format!("`{word}`"),
        Value::Boolean(true) => "yes".to_owned(),
        Value::Boolean(false) => "no".to_owned(),
        other => other.to_string(),
    };
    let told = match value {
        Value::Array(words) => words.iter().map(one).collect::<Vec<_>>().join(", "),
        value => one(value),
    };
    match told.as_str() {
        "" => String::new(),
        told => format!("| {key} | {told} |\n"),
    }
}
