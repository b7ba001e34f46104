//! Looks for secrets in text files of the host: the logs a build leaves behind.

use std::io;
use std::path::Path;

use regex::Regex;

/// What a secret looks like in a log. Digests and build ids are long too, so a bare run of hex is
/// none of these.
const PATTERNS: &[&str] = &[
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r#"(?i-u:\b(api[_-]?key|secret|token|passw(or)?d)["']?[ \t]*[=:][ \t]*["']?[A-Za-z0-9+/_-]{16,})"#,
    r"io\.systemd\.credential:[A-Za-z0-9._-]+=[0-9a-f]{16,}",
];

/// `file:line: text` of each suspicious line in the `*.log` files directly in `dir`; empty when
/// there is none. The secret itself is not repeated.
///
/// # Errors
/// When the folder or a log cannot be read.
pub fn logs(dir: &Path) -> io::Result<String> {
    let patterns: Vec<Regex> = PATTERNS
        .iter()
        .map(|p| Regex::new(p))
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let mut found = String::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        for (number, line) in text.lines().enumerate() {
            if let Some(hit) = patterns.iter().find_map(|p| p.find(line)) {
                let shown: String = hit.as_str().chars().take(12).collect();
                found.push_str(&format!("{}:{}: {shown}…\n", path.display(), number + 1));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn secrets_are_found_and_digests_are_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("written");
        };
        write(
            "clean.log",
            &format!(
                "sha256 {}\nBuild key: {}\n",
                "a1".repeat(32),
                "b2".repeat(20)
            ),
        );
        write("note.txt", "token=abcdefghijklmnopqrstu");
        assert_eq!(super::logs(dir.path()).expect("scans"), "");
        write(
            "bad.log",
            "first\n-----BEGIN OPENSSH PRIVATE KEY-----\nPASSWORD=hunter2hunter2hunter2\n",
        );
        let found = super::logs(dir.path()).expect("scans");
        assert!(
            found.contains("bad.log:2:") && found.contains("bad.log:3:"),
            "{found}"
        );
        assert!(!found.contains("hunter2hunter2"), "{found}");
    }
}
