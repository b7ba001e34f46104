//! A report's title: the rule's template, filled from its lines, the same for the same fault every time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::rule::{RULES, Rule, SymbolSource, named};

/// Longest title, in bytes.
const TITLE_MAX: usize = 160;

/// What differs from run to run, and what stands for it.
static VOLATILE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"(?-u)\b0x[0-9a-fA-F]+\b", "ADDR"),
        (r"(?-u)\b[0-9a-f]{8,}\b", "ADDR"),
        (r"(?-u)\+ADDR/ADDR", ""),
        (r"(?-u)\b[\w.-]+(?:/(?:ADDR|u?\d+(?::\d+)?))+\b", "TASK"),
        (r"(?-u)\b\d+\b", "N"),
    ]
    .map(|(pattern, stand_in)| (fixed(pattern), stand_in))
    .into()
});

static RIP: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"(?-u)^RIP: [0-9a-f]{4}:(?P<sym>[A-Za-z_]\w*)[\w.$]*\+0x"));

/// One space for a frame of a call trace, two in an interrupt's; a `?` marks one that may be stale.
static FRAME: LazyLock<Regex> = LazyLock::new(|| {
    fixed(r"(?-u)^ {1,2}(?:\[<[0-9a-f]+>\] )?(?P<sym>[A-Za-z_]\w*)[\w.$]*\+0x[0-9a-f]+/0x[0-9a-f]+")
});

fn fixed(pattern: &str) -> Regex {
    match Regex::new(pattern) {
        Ok(regex) => regex,
        Err(error) => panic!("a fixed pattern of the log rules is broken: {error}"),
    }
}

/// Fills the rule's template from the header's captures and the report's lines.
pub(super) fn title(rule: &Rule, mut captures: BTreeMap<String, String>, lines: &[&str]) -> String {
    let telling = |name: &String| !RULES.is_bystander(name);
    let mut function = captures.remove("sym").filter(telling);
    for pattern in &rule.details {
        for line in lines {
            let Some(found) = pattern.captures(line.as_bytes()) else {
                continue;
            };
            let mut found = named(pattern, &found);
            let name = found.remove("sym").filter(telling);
            let useful = !found.is_empty() || name.is_some();
            function = function.or(name);
            for (key, value) in found {
                captures.entry(key).or_insert(value);
            }
            if useful {
                break;
            }
        }
    }
    for source in &rule.data.symbol {
        let pattern = match source {
            SymbolSource::Rip => &RIP,
            SymbolSource::Stack => &FRAME,
        };
        function = function.or_else(|| {
            let names = lines.iter().filter_map(|line| {
                let found = pattern.captures(line.as_bytes())?;
                Some(String::from_utf8_lossy(found.name("sym")?.as_bytes()).into_owned())
            });
            // Only the first RIP is the fault's; user space's comes after.
            let limit = if *source == SymbolSource::Rip {
                1
            } else {
                usize::MAX
            };
            names.take(limit).find(telling)
        });
    }
    let function = function
        .map(|name| format!(" in {name}"))
        .unwrap_or_default();
    let mut text = rule.data.title.replace("{in}", &function);
    for (key, value) in &captures {
        // `what` is free text; the other captures are names, whose digits belong to them.
        let value = if key == "what" {
            stable(value)
        } else {
            value.clone()
        };
        text = text.replace(&format!("{{{key}}}"), &value);
    }
    tidy(&text)
}

/// The function a line of a trace is about, unless it is one that any trace has (scheduler, entry code).
pub(crate) fn telling_frame(line: &str) -> Option<String> {
    let found = [&*RIP, &*FRAME]
        .iter()
        .find_map(|pattern| pattern.captures(line.as_bytes()))?;
    let name = String::from_utf8_lossy(found.name("sym")?.as_bytes()).into_owned();
    (!RULES.is_bystander(&name)).then_some(name)
}

/// Replaces addresses, numbers and process ids.
fn stable(text: &str) -> String {
    let mut bytes = Cow::Borrowed(text.as_bytes());
    for (pattern, stand_in) in VOLATILE.iter() {
        if let Cow::Owned(replaced) = pattern.replace_all(&bytes, stand_in.as_bytes()) {
            bytes = Cow::Owned(replaced);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Drops what was not captured and caps the length.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match c {
            '{' => inside = true,
            '}' => inside = false,
            c if inside || c.is_control() => {}
            ' ' if out.is_empty() || out.ends_with(' ') => {}
            c if out.len() < TITLE_MAX => out.push(c),
            _ => break,
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_gone() {
        assert_eq!(
            stable("at ffff88800b1a4d40 by fio/812 on vda1"),
            "at ADDR by TASK on vda1"
        );
        assert_eq!(
            stable("kworker/u4:2/33 and kworker/1:0/0x0001/22"),
            "TASK and TASK"
        );
        assert_eq!(stable("inode 77 has size 0x1000"), "inode N has size ADDR");
        assert_eq!(stable("vexfs_read+0x1c/0x40 [vexfs]"), "vexfs_read [vexfs]");
    }

    #[test]
    fn a_template_with_holes_is_tidied() {
        assert_eq!(tidy("KASAN: wild  {access} in f"), "KASAN: wild in f");
        assert_eq!(tidy(&"x".repeat(1000)).len(), TITLE_MAX);
    }
}
