//! A report as one page that needs nothing else: no network, no other file.
//!
//! What machines said is hostile. It reaches the page in two ways only: through the template engine, which
//! escapes it, and, for logs, as JSON in a block that no browser runs, from which the script makes text,
//! never markup. Should both fail, the page's content security policy lets nothing run but the one script
//! that carries this page's random nonce, which was drawn after the guests were gone.

mod treemap;
mod view;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};

use super::model::{Link, Model};

const PAGE: &str = include_str!("page.html");
const PARTS: &[(&str, &str)] = &[
    ("page.html", PAGE),
    ("failures.html", include_str!("failures.html")),
    ("checks.html", include_str!("checks.html")),
    ("images.html", include_str!("images.html")),
    ("boots.html", include_str!("boots.html")),
    ("speed.html", include_str!("speed.html")),
    ("size.html", include_str!("size.html")),
    ("history.html", include_str!("history.html")),
    ("logs.html", include_str!("logs.html")),
];
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page. `nonce` must be a new random word of letters and digits for each; `others` are the same
/// report's other forms, beside it.
///
/// # Errors
/// When a template is broken, with its name and line.
pub fn render(model: &Model, nonce: &str, others: &[Link]) -> Result<String, minijinja::Error> {
    let mut engine = Environment::new();
    engine.set_auto_escape_callback(|_| AutoEscape::Html);
    engine.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    super::words::register(&mut engine);
    for (name, text) in PARTS {
        engine.add_template(name, text)?;
    }
    engine.get_template("page.html")?.render(context! {
        model => Value::from(Serde(model)),
        view => Value::from(Serde(view::View::of(model))),
        nonce => nonce,
        other_forms => Value::from(Serde(others)),
        style => Value::from_safe_string(STYLE.to_owned()),
        script => Value::from_safe_string(SCRIPT.to_owned()),
        log_data => Value::from_safe_string(log_data(model)),
    })
}

/// The logs as JSON that can stand in a `script` element: nothing in it can end the element or begin a
/// comment.
fn log_data(model: &Model) -> String {
    let logs: Vec<serde_json::Value> = model
        .logs
        .iter()
        .map(|log| {
            serde_json::json!({
                "id": log.id,
                "case": log.case,
                "what": log.what,
                "passed": log.passed,
                "leftOut": log.left_out,
                "href": log.file.as_ref().map(|file| &file.href),
                "levels": log.levels,
                "text": log.text,
            })
        })
        .collect();
    serde_json::Value::from(logs)
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}
