//! `vexctl config`.

use super::{Format, print_json, table};
use std::path::Path;
use vexctl::config::Config;

/// Reads, checks and prints the configuration.
pub fn run(path: &Path, format: Format) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let value = serde_json::to_value(&config)?;
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields = value.as_object().into_iter().flatten();
    match format {
        Format::Json => print_json(&value),
        Format::Human => fields.for_each(|(key, value)| println!("{key} = {}", text(value))),
        Format::Table | Format::Compact => {
            let rows: Vec<_> = fields
                .map(|(key, value)| vec![key.clone(), text(value)])
                .collect();
            table::print(format, &["key", "value"], &rows);
        }
    }
    Ok(())
}
