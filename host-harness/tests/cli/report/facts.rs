//! What the forms of a report say, so that a test can hold them against each other.

use libtest_mimic::Failed;
use quick_xml::events::Event as Xml;
use serde_json::Value;

/// Strings that must stand together in one row, item or heading.
pub type Fact = Vec<String>;

/// The facts that JSON has, as the other forms write them.
pub fn of_json(model: &Value) -> Result<Vec<Fact>, Failed> {
    let mut facts = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let figure = |value: &Value| ::report::words::figure(value.as_f64().unwrap_or(f64::NAN));
    let mib = |value: &Value| ::report::words::mib(value.as_u64().unwrap_or(0));
    let tally = &model["tally"];
    facts.push(vec![format!(
        "{} of {} checks did not pass",
        tally["failed"].as_u64().unwrap_or(0) + tally["infrastructure"].as_u64().unwrap_or(0),
        tally["checks"]
    )]);
    for row in list(&model["checks"]) {
        for cell in list(&row["cells"]) {
            let outcome = ::report::words::outcome(&text(&cell["outcome"]));
            let mut fact = vec![
                text(&row["check"]),
                outcome.into(),
                figure(&cell["seconds"]) + " s",
            ];
            fact.extend(Some(text(&cell["title"])).filter(|title| !title.is_empty()));
            for figure in list(&cell["figures"]) {
                fact.extend([text(&figure["name"]), text(&figure["value"])]);
            }
            facts.push(fact);
        }
    }
    for failure in list(&model["failures"]) {
        facts.push(vec![text(&failure["case"])]);
        facts.push(vec![text(&failure["title"])]);
        facts.extend(
            list(&failure["links"])
                .iter()
                .map(|link| vec![text(&link["name"])]),
        );
        facts.extend(
            list(&failure["commands"])
                .iter()
                .map(|c| vec![text(&c["name"]), text(&c["value"])]),
        );
    }
    for image in list(&model["images"]) {
        facts.push(vec!["disk".into(), mib(&image["disk_bytes"]) + " MiB"]);
        for fact in list(&image["made_of"]) {
            facts.push(vec![text(&fact["name"]), text(&fact["value"])]);
        }
        for stage in list(&image["stages"]) {
            facts.push(vec![text(&stage["name"]), figure(&stage["seconds"])]);
        }
        for package in list(&image["size"]["packages"]) {
            facts.push(vec![text(&package["name"]), mib(&package["bytes"])]);
        }
    }
    for boot in list(&model["boots"]) {
        for stage in list(&boot["stages"]).iter().chain(&list(&boot["units"])) {
            facts.push(vec![text(&stage["name"]), figure(&stage["seconds"])]);
        }
    }
    for speed in list(&model["speed"]) {
        facts.push(vec![text(&speed["host"]), text(&speed["host_id"])]);
        for question in list(&speed["questions"]) {
            for subject in list(&question["subjects"]) {
                facts.push(vec![text(&subject["name"]), figure(&subject["median"])]);
            }
        }
    }
    for trends in list(&model["history"]) {
        facts.push(vec![text(&trends["host"]), text(&trends["host_id"])]);
        for series in list(&trends["series"]) {
            facts.push(vec![text(&series["name"]), figure(&series["last"])]);
            for change in list(&series["changes"]) {
                facts.push(vec![
                    text(&change["verdict"]),
                    figure(&change["before"]),
                    figure(&change["after"]),
                ]);
            }
        }
    }
    for log in list(&model["logs"]) {
        facts.push(vec![text(&log["case"]), text(&log["what"])]);
    }
    facts.extend(list(&model["notes"]).iter().map(|note| vec![text(note)]));
    Ok(facts)
}

/// White space is not compared.
fn tight(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text of every element of the page that makes a row, an item or a heading. The page is written
/// as well-formed XML, so that a strict reader can see that nothing in it is left open.
pub fn of_html(page: &str) -> Result<Vec<String>, Failed> {
    // What holds no other of them: a container of many rows would have any facts together.
    const BLOCKS: [&str; 8] = ["tr", "h1", "h2", "h3", "h4", "p", "li", "summary"];
    // Scripts and styles are no markup.
    let mut text = String::new();
    let mut rest = page;
    for name in ["style", "script", "script"] {
        let (start, end) = (format!("<{name}"), format!("</{name}>"));
        let begin = rest.find(&start).ok_or("an element is missing")?;
        let close = rest.find(&end).ok_or("an element is not closed")? + end.len();
        text += &rest[..begin];
        rest = &rest[close..];
    }
    text += rest;
    let mut reader = quick_xml::Reader::from_str(&text);
    let mut open: Vec<(String, bool, String)> = Vec::new();
    let mut blocks = Vec::new();
    loop {
        match reader.read_event()? {
            Xml::Eof => break,
            Xml::Start(tag) => {
                let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
                let class = tag.try_get_attribute("class")?;
                let is_trend = class.is_some_and(|class| class.value.as_ref() == b"trend");
                let in_list = open.last().is_some_and(|(outer, ..)| outer == "dl");
                let block =
                    BLOCKS.contains(&name.as_str()) || is_trend || (name == "div" && in_list);
                if let Some((.., text)) = open.last_mut() {
                    text.push(' ');
                }
                open.push((name, block, String::new()));
            }
            Xml::End(_) => {
                let (_, block, text) = open.pop().ok_or("closed what was not open")?;
                if let Some((.., outer)) = open.last_mut() {
                    outer.push_str(&text);
                    outer.push(' ');
                }
                if block {
                    blocks.push(tight(&text));
                }
            }
            Xml::Text(text) => {
                if let Some((.., inner)) = open.last_mut() {
                    inner.push_str(&text.decode()?);
                }
            }
            Xml::GeneralRef(reference) => {
                let name = reference.decode()?;
                let letter = match reference.resolve_char_ref()? {
                    Some(letter) => letter.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&name)
                        .ok_or_else(|| format!("&{name}; is no entity"))?
                        .to_owned(),
                };
                if let Some((.., inner)) = open.last_mut() {
                    inner.push_str(&letter);
                }
            }
            _ => {}
        }
    }
    if !open.is_empty() {
        return Err(format!("left open: {open:?}").into());
    }
    Ok(blocks)
}

/// The lines of Markdown as a reader sees them: without what escapes.
pub fn of_markdown(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut out = String::new();
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            let escapes = letter == '\\' && letters.peek().is_some_and(char::is_ascii_punctuation);
            if !escapes {
                out.push(letter);
            } else if let Some(escaped) = letters.next() {
                out.push(escaped);
            }
        }
        tight(&out)
    };
    text.lines().map(line).collect()
}

/// The facts that no block has.
pub fn missing<'a>(facts: &'a [Fact], blocks: &[String]) -> Vec<&'a Fact> {
    let has = |fact: &Fact| {
        let parts: Vec<String> = fact.iter().map(|part| tight(part)).collect();
        blocks
            .iter()
            .any(|block| parts.iter().all(|part| block.contains(part.as_str())))
    };
    facts.iter().filter(|fact| !has(fact)).collect()
}
