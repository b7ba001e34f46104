//! What the service says: to stderr, which systemd takes to the journal, and to the log file.

use std::fs::OpenOptions;
use std::io::Write;
use vexctl::config::{Config, LogLevel};

/// Where messages go, and which.
pub struct Log<'a> {
    config: &'a Config,
    level: LogLevel,
}

impl<'a> Log<'a> {
    /// As the configuration says; `-v` and `-q` move the level.
    pub fn new(config: &'a Config, verbose: bool, quiet: bool) -> Self {
        let level = match (verbose, quiet) {
            (true, _) => LogLevel::Debug,
            (_, true) => LogLevel::Error,
            _ => config.log_level,
        };
        Self { config, level }
    }

    /// Says `text` if its level is wanted. A log file that cannot be written is said once, here.
    pub fn say(&self, level: LogLevel, text: &str) {
        if level > self.level {
            return;
        }
        eprintln!("{text}");
        let Some(path) = &self.config.log_file else {
            return;
        };
        let line = format!("{} {level:?}: {text}\n", timestamp());
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            eprintln!(
                "log file {}: {error}: correct log_file in the configuration",
                path.display()
            );
        }
    }
}

fn timestamp() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_gets_what_the_level_lets_through() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            log_level: LogLevel::Warn,
            log_file: Some(dir.path().join("log")),
            ..Config::default()
        };
        let written = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        let log = Log::new(&config, false, false);
        log.say(LogLevel::Info, "mounted");
        assert_eq!(written(), "");
        log.say(LogLevel::Error, "failed");
        assert!(written().ends_with(" Error: failed\n"), "{}", written());
        // -v and -q move the level.
        Log::new(&config, false, true).say(LogLevel::Warn, "odd");
        Log::new(&config, true, false).say(LogLevel::Debug, "why");
        assert!(!written().contains("odd") && written().ends_with(" Debug: why\n"));
    }
}
