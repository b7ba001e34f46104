//! The part of JSON Schema (draft 2020-12) that the manifest's schema uses, and a test of it.

use serde_json::Value;

/// The schema's file.
pub const SCHEMA: &str = include_str!("../../../image/schema/manifest.schema.json");

/// Everything about `value` that is not as the schema says.
pub fn mistakes(value: &Value) -> Vec<String> {
    let root: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let mut found = Vec::new();
    check(&root, &root, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#'));
        return check(root, target.expect("a definition"), value, at, found);
    }
    let mut say = |what: String| found.push(format!("{at}: {what}"));
    if let Some(constant) = schema.get("const")
        && constant != value
    {
        say(format!("{value} is not {constant}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    if !types.is_empty() && !types.iter().any(|name| is(name, value)) {
        say(format!("{value} is not of type {types:?}"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        say(format!("{number} is below {least}"));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !fits(pattern, text)
    {
        say(format!("`{text}` does not fit {pattern}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        if value.get(name).is_none() {
            say(format!("no `{name}`"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        match (
            schema["properties"].get(name),
            &schema["additionalProperties"],
        ) {
            (Some(schema), _) => check(root, schema, field, &at, found),
            (None, Value::Bool(false)) => found.push(format!("{at}: not in the schema")),
            (None, schema @ Value::Object(_)) => check(root, schema, field, &at, found),
            (None, _) => {}
        }
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        check(root, &schema["items"], item, &format!("{at}/{n}"), found);
    }
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the schema has a type {other}"),
    }
}

/// The patterns of the schema, by what they mean: a regular expression engine for five of them
/// would be a dependency for nothing.
fn fits(pattern: &str, text: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    match pattern {
        "^[0-9a-f]{64}$" => text.len() == 64 && text.chars().all(hex),
        "^[^/]+$" => !text.is_empty() && !text.contains('/'),
        "^[a-z][a-z0-9-]*$" => text.starts_with(|c: char| c.is_ascii_lowercase()),
        "^[0-9]+\\.[0-9]+\\.[0-9]+" => text.split('.').count() >= 3,
        "^(off|signed|trusted|enforced)$" => {
            ["off", "signed", "trusted", "enforced"].contains(&text)
        }
        other => panic!("the schema has a pattern {other}"),
    }
}
