//! `vexctl config`.

use super::{Format, print_json};
use std::path::Path;
use vexctl::config::Config;

/// Reads, checks and prints the configuration.
pub fn run(path: &Path, format: Format) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let value = serde_json::to_value(&config)?;
    match (format, value.as_object()) {
        (Format::Human, Some(fields)) => {
            for (key, value) in fields {
                let text = match value {
                    serde_json::Value::Null => String::new(),
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                println!("{key} = {text}");
            }
        }
        _ => print_json(&value),
    }
    Ok(())
}
