//! A report as Markdown (GitHub's), for a job's summary or a merge request.
//!
//! What machines said is hostile here too: every value is escaped on its way out, and what is shown as
//! it was said stands in a fence that nothing in it can end.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};

use super::model::Model;

/// The text.
///
/// # Errors
/// When the template is broken, with its line.
pub fn render(model: &Model) -> Result<String, minijinja::Error> {
    let mut engine = Environment::new();
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    engine.set_formatter(|out, _, value| {
        let text = value.to_string();
        let text = if value.is_safe() { text } else { escape(&text) };
        out.write_str(&text)
            .map_err(|_| minijinja::ErrorKind::WriteFailure.into())
    });
    super::words::register(&mut engine);
    engine.add_filter("fence", |text: String| {
        Value::from_safe_string(fence(&text))
    });
    engine.add_filter("span", |text: String| Value::from_safe_string(span(&text)));
    engine.add_template("report.md", include_str!("report.md"))?;
    engine.get_template("report.md")?.render(context! {
        model => Value::from(Serde(model)),
    })
}

/// Text that is only text: nothing in it starts a mark-up, a table's column or an HTML tag.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut last = ' ';
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let inside = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric());
        match letter {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '#' | '!' => {
                out.push('\\');
                out.push(letter);
            }
            // Within a word it means nothing, and names are full of it.
            '_' if !(last.is_alphanumeric() && inside(letters.peek())) => out.push_str("\\_"),
            '\n' | '\r' => out.push(' '),
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
        last = letter;
    }
    out
}

/// Text as it is, in a fence longer than any in it.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let plain: String = text
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{FFFD}'
            } else {
                c
            }
        })
        .collect();
    format!("{fence}text\n{}\n{fence}", plain.trim_end())
}

/// Text of one line as code.
fn span(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    let longest = plain.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    match longest {
        0 => format!("`{}`", plain.replace('|', "\\|")),
        n => {
            let ticks = "`".repeat(n + 1);
            format!("{ticks} {} {ticks}", plain.replace('|', "\\|"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_guest_says_is_markup() {
        assert_eq!(
            escape("a|b <img> [x](y) module_load _x_"),
            r"a\|b \<img\> \[x\](y) module_load \_x\_"
        );
        assert_eq!(escape("one\ntwo\u{1b}"), "one two\u{FFFD}");
        let fenced = fence("x\n````\n<script>");
        assert!(
            fenced.starts_with("`````text\n") && fenced.ends_with("\n`````"),
            "{fenced}"
        );
        assert_eq!(span("a`b"), "`` a`b ``");
    }
}
