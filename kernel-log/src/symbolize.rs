//! A kernel report with source files and lines beside the module's functions.
//!
//! The kernel writes `function+offset/size [module]`; where that is in the source is in the module's
//! debug information. Functions of the kernel itself stay as they are.

use std::fmt::Write;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use crate::show::USER_SPACE;
use crate::symbols::Symbols;

/// Longest report, in lines.
const LONGEST: usize = 120;

/// How far before its first frame a report may begin, in lines.
const BEFORE: usize = 25;

static FRAME: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?-u)(?P<name>[A-Za-z_][\w.$]*)\+0x(?P<offset>[0-9a-f]{1,8})/0x(?P<size>[0-9a-f]{1,8})(?: \[(?P<module>\w+)\])?",
    )
});

/// What reports begin with; the rules know more, and name the finding.
static BEGINS: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?-u)BUG: |kernel BUG at|WARNING: |general protection fault|invalid opcode|divide error|double fault|Oops: |stack guard page|INFO: task|rcu: INFO|watchdog: |Kernel panic|refcount_t|list_(add|del) corruption|\[ cut here \]",
    )
});

fn fixed(pattern: &str) -> Regex {
    match Regex::new(pattern) {
        Ok(regex) => regex,
        Err(error) => panic!("a fixed pattern of the symboliser is broken: {error}"),
    }
}

/// The first report with a call trace in a kernel log, with source lines for the functions of
/// `module` when `debug`, the module with debug information, can be read. `None` when the log has no
/// such report.
pub fn explain(log: &str, module: &str, debug: Option<&Path>) -> Option<String> {
    // What user space writes into the log proves nothing.
    let theirs = format!("] {USER_SPACE}");
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains(&theirs)).collect();
    let (start, _) = lines.iter().enumerate().find(|(at, line)| {
        let ahead = &lines[*at..lines.len().min(at + BEFORE)];
        BEGINS.is_match(line) && ahead.iter().any(|line| FRAME.is_match(line))
    })?;
    let rest = &lines[start..lines.len().min(start + LONGEST)];
    let end = rest.iter().position(|line| line.contains("---[ end trace"));
    let report = &rest[..end.map_or(rest.len(), |end| end + 1)];
    Some(annotate(&report.join("\n"), module, debug))
}

/// A text with source lines below each line that names a function of `module`.
pub fn annotate(text: &str, module: &str, debug: Option<&Path>) -> String {
    let symbols = match debug {
        Some(debug) => Symbols::read(debug),
        None => Err("the image was built without keeping it: build the image again".to_owned()),
    };
    let mut out = String::new();
    let ours = format!("[{module}]");
    if let (Err(why), true) = (&symbols, text.contains(&ours)) {
        // Writing to a String cannot fail.
        writeln!(out, "(no source lines: no debug information: {why})").unwrap_or_default();
    }
    for line in text.lines() {
        out.push_str(line);
        out.push('\n');
        let Some(found) = FRAME.captures(line) else {
            continue;
        };
        let (Ok(symbols), true) = (
            &symbols,
            found.name("module").is_some_and(|m| m.as_str() == module),
        ) else {
            continue;
        };
        let number = |name: &str| u64::from_str_radix(&found[name], 16).unwrap_or_default();
        let returns = !line.contains("RIP:");
        for place in symbols.find(&found["name"], number("offset"), number("size"), returns) {
            writeln!(out, "            ^ {place}").unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("golden/symbolize")
            .join(name)
    }

    fn log() -> String {
        std::fs::read_to_string(golden("oops.log")).expect("golden/symbolize/oops.log")
    }

    #[test]
    fn a_report_is_explained_line_by_line() {
        let explained = explain(&log(), "tiny", Some(&golden("tiny.elf"))).expect("a report");
        let path = golden("oops.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &explained).expect("writes");
        }
        let pinned = std::fs::read_to_string(path).expect("golden/symbolize/oops.txt");
        assert_eq!(explained, pinned);
        // Inlined code, the right one of two sections that both begin at 0, and user space unheard.
        assert!(pinned.contains("^ deepest at tiny.c:6\n            ^ tiny_read at tiny.c:12\n"));
        assert!(pinned.contains("^ tiny_init at tiny.c:17\n"));
        assert!(!pinned.contains("forged"));
    }

    #[test]
    fn without_debug_information_the_report_says_so() {
        let gone = Path::new("/nowhere/tiny.ko");
        let explained = explain(&log(), "tiny", Some(gone)).expect("a report");
        assert!(explained.starts_with("(no source lines: no debug information: /nowhere/tiny.ko"));
        assert!(explained.contains("RIP: 0010:tiny_read"));
        let explained = explain(&log(), "tiny", Some(&golden("oops.log"))).expect("a report");
        assert!(explained.starts_with("(no source lines"), "{explained}");
        let explained = explain(&log(), "tiny", None).expect("a report");
        assert!(explained.contains("build the image again"), "{explained}");
    }

    #[test]
    fn a_log_without_a_report_has_none() {
        assert_eq!(explain("[    0.0] Linux version 6.1\n", "tiny", None), None);
        let talk = "[ 1.0] WARNING: not a trace\n".repeat(3);
        assert_eq!(explain(&talk, "tiny", None), None);
    }
}
