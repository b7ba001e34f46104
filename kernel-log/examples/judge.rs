//! Judges a kernel log: `cargo run -p kernel-log --example judge FILE`.
//!
//! The file may be a serial console, `dmesg`, `dmesg --raw`, the records of `/dev/kmsg`, or the `kernel.log`
//! of a dossier. Prints what was found; exits with 1 when that is anything, with 2 when there is no such file.

use std::process::ExitCode;

use kernel_log::{Expectations, Record, judge};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("say which log to judge: judge FILE");
        return ExitCode::from(2);
    };
    match std::fs::read(&path) {
        Ok(log) => {
            let (said, code) = told(&log);
            println!("{said}");
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("cannot read {}: {error}", path.display());
            ExitCode::from(2)
        }
    }
}

/// What is printed, and the exit code.
fn told(log: &[u8]) -> (String, u8) {
    let records = Record::parse_log(log);
    let findings = judge(&records, &Expectations::none());
    if findings.is_empty() {
        return (format!("nothing found in {} lines", records.len()), 0);
    }
    let found: Vec<String> = findings.iter().map(|found| found.paragraph()).collect();
    (found.join("\n"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &[u8] = b"[    1.000000] Kernel panic - not syncing: stop\r\n";

    fn golden(name: &str) -> Vec<u8> {
        let logs = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/logs");
        std::fs::read(format!("{logs}/{name}.log")).expect("a golden log")
    }

    #[test]
    fn a_log_of_each_kind_is_judged() {
        let title = "BUG: NULL pointer dereference in vexfs_lookup";
        let (said, code) = told(&golden("oops/null-6.12"));
        assert!(said.starts_with(title), "{said}");
        assert_eq!(code, 1);
        let (said, code) = told(CONSOLE);
        let first = said.lines().next();
        assert_eq!(first, Some("kernel panic: stop (console at 1.000000 s)"));
        assert_eq!(code, 1);
        let shown = [b"<0>".as_slice(), CONSOLE].concat();
        let (said, code) = told(&shown);
        let first = said.lines().next();
        assert_eq!(first, Some("kernel panic: stop (kmsg at 1.000000 s)"));
        assert_eq!(code, 1);
    }

    #[test]
    fn a_log_without_trouble_is_none() {
        assert_eq!(told(&golden("benign/boot")).1, 0);
        assert_eq!(told(b""), ("nothing found in 0 lines".to_owned(), 0));
        let forged = b"<0>[    1.000000] user space: Kernel panic - not syncing: stop\n";
        assert_eq!(told(forged), ("nothing found in 1 lines".to_owned(), 0));
    }
}
