//! Which checks are meant: a word of their names, or an expression in the language of nextest's filtersets.
//!
//! nextest's own parser wants a graph of cargo packages, of which a check knows nothing, so this is the part of
//! the language (<https://nexte.st/docs/filtersets/reference/>) that is about names: `test(…)`, `all()`, `none()`,
//! `not`, `and`, `or`, their signs, and parentheses. What it reads means the same there. The name that is matched
//! is the check's own (`mkfs_mount`), without variant and tier.

use std::fmt;
use std::str::FromStr;

use regex::Regex;

/// How deep parentheses and negations may be nested: an expression is a person's, the stack is finite.
const MOST_DEPTH: usize = 64;

/// Checks, by their names.
#[derive(Debug, Clone)]
pub struct Filter {
    text: String,
    set: Set,
}

/// What an expression says.
#[derive(Debug, Clone)]
enum Set {
    All,
    None,
    Contains(String),
    Is(String),
    Matches(Regex),
    Not(Box<Set>),
    Every(Vec<Set>),
    Any(Vec<Set>),
}

/// An expression that means nothing, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}{}: {what}", before(.rest))]
pub struct FilterError {
    /// Which character it is, counted from 1.
    pub at: usize,
    /// What follows there.
    rest: String,
    /// What is wrong, with the remedy.
    pub what: String,
}

fn before(rest: &str) -> String {
    match rest {
        "" => ", the end".to_owned(),
        rest => format!(", before `{rest}`"),
    }
}

impl Filter {
    /// Whether the check of this name is meant.
    pub fn takes(&self, name: &str) -> bool {
        self.set.has(name)
    }

    /// The whole of it, when it is no expression but a word.
    pub fn word(&self) -> Option<&str> {
        is_word(&self.text).then_some(&self.text)
    }
}

/// Whether the check of this name is meant by any of them; without any, every check is.
pub fn takes(filters: &[Filter], name: &str) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.takes(name))
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Filter, FilterError> {
        let set = match is_word(text) {
            true => Set::Contains(text.to_owned()),
            false => Parser { text, at: 0 }.whole()?,
        };
        let text = text.to_owned();
        Ok(Filter { text, set })
    }
}

/// What a name can hold is a word; everything else is an expression.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Set {
    fn has(&self, name: &str) -> bool {
        match self {
            Set::All => true,
            Set::None => false,
            Set::Contains(part) => name.contains(part.as_str()),
            Set::Is(whole) => name == whole,
            Set::Matches(regex) => regex.is_match(name),
            Set::Not(set) => !set.has(name),
            Set::Every(sets) => sets.iter().all(|set| set.has(name)),
            Set::Any(sets) => sets.iter().any(|set| set.has(name)),
        }
    }
}

/// Reads an expression; `and` and `-` bind closer than `or`, `not` closer than both.
struct Parser<'a> {
    text: &'a str,
    /// Bytes that are read.
    at: usize,
}

impl<'a> Parser<'a> {
    fn whole(mut self) -> Result<Set, FilterError> {
        let set = self.any(0)?;
        match self.rest() {
            "" => Ok(set),
            _ => Err(self.wrong(
                "an operator is missing here: + for both, & for what is in both, - for all but",
            )),
        }
    }

    fn any(&mut self, depth: usize) -> Result<Set, FilterError> {
        let mut sets = vec![self.every(depth)?];
        while self.skip(&["|", "+", "or"]) {
            sets.push(self.every(depth)?);
        }
        Ok(Set::Any(sets))
    }

    fn every(&mut self, depth: usize) -> Result<Set, FilterError> {
        let mut sets = vec![self.one(depth)?];
        loop {
            if self.skip(&["&", "and"]) {
                sets.push(self.one(depth)?);
            } else if self.skip(&["-"]) {
                sets.push(Set::Not(Box::new(self.one(depth)?)));
            } else {
                return Ok(Set::Every(sets));
            }
        }
    }

    fn one(&mut self, depth: usize) -> Result<Set, FilterError> {
        if depth > MOST_DEPTH {
            return Err(self.wrong("this is nested too deeply: leave parentheses out"));
        }
        if self.skip(&["!", "not"]) {
            return Ok(Set::Not(Box::new(self.one(depth + 1)?)));
        }
        if !self.skip(&["("]) {
            return self.set();
        }
        let set = self.any(depth + 1)?;
        match self.skip(&[")"]) {
            true => Ok(set),
            false => Err(self.wrong("a closing parenthesis is missing")),
        }
    }

    /// `all()`, `none()` or `test(…)`.
    fn set(&mut self) -> Result<Set, FilterError> {
        let name = leading_word(self.rest());
        match name {
            "all" | "none" | "test" => {}
            "" => {
                return Err(self.wrong(
                    "a set of checks is missing: test(mount) for those with `mount` in their names",
                ));
            }
            other
                if self.text[self.at + other.len()..]
                    .trim_start()
                    .starts_with('(') =>
            {
                return Err(self.wrong(&format!(
                    "no set is called {other}() here: there are test(…), all() and none()"
                )));
            }
            word => {
                return Err(self.wrong(&format!(
                    "a word stands alone or in a set: write test({word})"
                )));
            }
        }
        self.at += name.len();
        if !self.skip(&["("]) {
            return Err(self.wrong(&format!("after `{name}` comes an opening parenthesis")));
        }
        let set = match name {
            "all" => Set::All,
            "none" => Set::None,
            _ => self.matcher()?,
        };
        match self.skip(&[")"]) {
            true => Ok(set),
            false => Err(self.wrong(&format!("`{name}(` has no closing parenthesis here"))),
        }
    }

    /// What stands between the parentheses of `test(…)`.
    fn matcher(&mut self) -> Result<Set, FilterError> {
        if self.skip(&["/"]) {
            return self.regex();
        }
        if self.rest().starts_with('#') {
            return Err(self.wrong("globs are not read here: write a regular expression, /…/"));
        }
        let (equal, _) = (self.skip(&["="]), self.skip(&["~"]));
        let rest = self.rest();
        let length = rest.find(')').unwrap_or(rest.len());
        let name = rest[..length].trim_end();
        if !is_word(name) {
            return Err(self.wrong(
                "a check's name, or a part of it, has letters, digits and _ and nothing else",
            ));
        }
        let name = name.to_owned();
        self.at += length;
        Ok(match equal {
            true => Set::Is(name),
            false => Set::Contains(name),
        })
    }

    /// Behind the first slash; a slash in it is written `\/`.
    fn regex(&mut self) -> Result<Set, FilterError> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.find(|c| {
            let here = c == '/' && !escaped;
            escaped = c == '\\' && !escaped;
            here
        });
        let Some(end) = end else {
            return Err(self.wrong("the regular expression has no end: close it with /"));
        };
        let regex = match Regex::new(&rest[..end].replace("\\/", "/")) {
            Ok(regex) => regex,
            Err(error) => {
                // The last of its lines says why, those before it show where.
                let said = error.to_string();
                let why = said.lines().last().unwrap_or_default();
                let why = why.trim_start_matches("error: ");
                return Err(self.wrong(&format!("this is no regular expression: {why}")));
            }
        };
        self.at += end + 1;
        Ok(Set::Matches(regex))
    }

    /// What is not read yet, from the next character that is no space.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        &self.text[self.at..]
    }

    /// Whether one of these is next, which then is read. A sign is a sign wherever it stands, a word is whole.
    fn skip(&mut self, all: &[&str]) -> bool {
        let rest = self.rest();
        let word = leading_word(rest);
        let found = all.iter().find(|next| match is_word(next) {
            true => word == **next,
            false => rest.starts_with(**next),
        });
        self.at += found.map_or(0, |next| next.len());
        found.is_some()
    }

    fn wrong(&mut self, what: &str) -> FilterError {
        let rest: String = self.rest().chars().take(24).collect();
        FilterError {
            at: self.text[..self.at].chars().count() + 1,
            rest,
            what: what.to_owned(),
        }
    }
}

/// The letters, digits and `_` at the beginning.
fn leading_word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &[
        "fio_modes",
        "fio_verify",
        "mkfs_mount",
        "mount_cycles",
        "service",
    ];

    fn taken(text: &str) -> Vec<&'static str> {
        let filter: Filter = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        let names = NAMES.iter().filter(|name| filter.takes(name));
        names.copied().collect()
    }

    #[test]
    fn words_and_expressions_take_what_they_say() {
        let both = ["mkfs_mount", "mount_cycles"];
        for (text, wanted) in [
            ("mount", &both[..]),
            ("test(mount)", &both),
            ("test(~mount)", &both),
            ("  test( mount ) ", &both),
            ("test(=service)", &["service"]),
            ("test(=mount)", &[]),
            ("test(/^mount/)", &["mount_cycles"]),
            (
                "test(/mount/) + test(=service)",
                &["mkfs_mount", "mount_cycles", "service"],
            ),
            (
                "test(=service) or test(=fio_modes)",
                &["fio_modes", "service"],
            ),
            ("test(=service)|test(=fio_modes)", &["fio_modes", "service"]),
            ("test(fio) - test(modes)", &["fio_verify"]),
            ("test(fio) & test(modes)", &["fio_modes"]),
            ("test(fio) and not test(modes)", &["fio_verify"]),
            ("test(fio) & !test(modes)", &["fio_verify"]),
            ("all() - (test(fio) + test(mount))", &["service"]),
            // `and` binds closer than `or`, as in nextest.
            (
                "test(=service) + test(fio) & test(modes)",
                &["fio_modes", "service"],
            ),
            ("(test(=service) + test(fio)) & test(modes)", &["fio_modes"]),
            ("none()", &[]),
            ("test(/a\\/b|cycles$/)", &["mount_cycles"]),
        ] {
            assert_eq!(taken(text), wanted, "{text}");
        }
        assert_eq!(taken("all()"), NAMES);
    }

    #[test]
    fn several_take_what_any_of_them_takes() {
        let filters: Vec<Filter> = ["=service", "modes"]
            .map(|text| match text.strip_prefix('=') {
                Some(name) => format!("test(={name})").parse().expect("an expression"),
                None => text.parse().expect("a word"),
            })
            .to_vec();
        let names = NAMES.iter().filter(|name| takes(&filters, name));
        assert_eq!(names.collect::<Vec<_>>(), [&"fio_modes", &"service"]);
        assert!(takes(&[], "anything"));
    }

    #[test]
    fn a_mistake_is_shown_with_its_place_and_the_remedy() {
        let deep = "(".repeat(100_000);
        for (text, at, words) in [
            ("", 1, "test(mount)"),
            (
                "test(/mount/) + tset(=service)",
                17,
                "no set is called tset()",
            ),
            ("test(mount) test(fio)", 13, "an operator is missing"),
            ("not fio", 5, "write test(fio)"),
            ("fio-verify", 1, "write test(fio)"),
            ("test(mount", 11, "no closing parenthesis"),
            ("(test(mount)", 13, "a closing parenthesis is missing"),
            ("test(/mount)", 7, "close it with /"),
            ("test(/mo(unt/)", 7, "unclosed group"),
            ("test(#mount*)", 6, "globs"),
            ("test(quick::fio)", 6, "letters, digits"),
            ("test()", 6, "letters, digits"),
            ("test mount", 6, "opening parenthesis"),
            ("package(vexfs)", 1, "test(…), all() and none()"),
            ("test(fio) && test(modes)", 12, "a set of checks is missing"),
            ("tést(x)", 1, "write test(t)"),
            (&deep, 66, "nested too deeply"),
        ] {
            let error = text.parse::<Filter>().expect_err(text);
            let said = error.to_string();
            assert_eq!(error.at, at, "{text}: {said}");
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn a_word_is_known_from_an_expression() {
        let word = |text: &str| {
            text.parse::<Filter>()
                .expect("it")
                .word()
                .map(str::to_owned)
        };
        assert_eq!(word("service").as_deref(), Some("service"));
        assert_eq!(word("test(=service)"), None);
    }
}
