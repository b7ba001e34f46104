//! The rules: read from `rules/*.toml`, compiled once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;

use super::finding::{Kind, Severity};

/// Files of rules, in the order in which they are tried: the first rule that fits a line has it.
const FILES: [(&str, &str); 9] = [
    ("fatal", include_str!("../rules/fatal.toml")),
    ("lockup", include_str!("../rules/lockup.toml")),
    ("locking", include_str!("../rules/locking.toml")),
    ("sanitizer", include_str!("../rules/sanitizer.toml")),
    ("memory", include_str!("../rules/memory.toml")),
    ("module", include_str!("../rules/module.toml")),
    ("storage", include_str!("../rules/storage.toml")),
    ("boot", include_str!("../rules/boot.toml")),
    ("warning", include_str!("../rules/warning.toml")),
];

/// A function's name in a pattern: what the compiler appended (`.isra.0`, `.cold`) stays outside.
const SYM: &str = r"(?P<sym>[A-Za-z_]\w*)[\w.$]*";

/// Longest report, in lines, when a rule does not say.
const REPORT_LINES: usize = 150;

/// All rules, compiled.
pub(super) static RULES: LazyLock<Rules> = LazyLock::new(|| match Rules::load(&FILES) {
    Ok(rules) => rules,
    // The files are part of the program and the tests load them: this cannot happen in one that was built.
    Err(what) => panic!("the verdict's rules are broken: {what}"),
});

/// Whose words a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Speaker {
    /// The kernel.
    Kernel,
    /// systemd, through the kernel log.
    Systemd,
    /// Whoever writes to the serial console without printk's stamp: firmware, boot loader, programs.
    Console,
}

/// Where the culprit's name is looked for when the header does not carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SymbolSource {
    /// The `RIP:` line.
    Rip,
    /// The first telling function of the first call trace.
    Stack,
}

/// One rule as it is written in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleData {
    /// Unique.
    pub name: String,
    pub kind: Kind,
    pub severity: Severity,
    /// Whose lines it applies to.
    #[serde(default = "kernel")]
    pub speakers: Vec<Speaker>,
    /// A report begins with a line that fits one of these. `SYM` stands for a function's name.
    pub patterns: Vec<String>,
    /// … unless it fits one of these.
    #[serde(default)]
    pub unless: Vec<String>,
    /// With `{capture}` for what a pattern or detail captured, and `{in}` for " in FUNCTION".
    pub title: String,
    /// Looked for in the report's lines, to capture more.
    #[serde(default)]
    pub details: Vec<String>,
    /// Where to look for the function when neither header nor details have one.
    #[serde(default)]
    pub symbol: Vec<SymbolSource>,
    /// The report's last line. Without it the report is one line.
    pub until: Option<String>,
    /// The report's longest length in lines.
    pub lines: Option<usize>,
    /// Rules whose header lines are part of this report.
    #[serde(default)]
    pub absorbs: Vec<String>,
    /// What comes after is a consequence.
    #[serde(default)]
    pub cascade: bool,
    /// It is a consequence of what came before, if anything did.
    #[serde(default)]
    pub consequence: bool,
    /// Only at this syslog level or a worse one; never where the level is unknown.
    pub level: Option<u8>,
}

fn kernel() -> Vec<Speaker> {
    vec![Speaker::Kernel]
}

/// One rule, ready for use.
pub(super) struct Rule {
    pub data: RuleData,
    pub details: Vec<Regex>,
    pub until: Option<Regex>,
    pub lines: usize,
    patterns: Vec<Regex>,
    unless: RegexSet,
}

/// All rules.
pub(super) struct Rules {
    all: Vec<Rule>,
    headers: [Headers; 3],
    skip: RegexSet,
}

/// The header patterns for one speaker.
struct Headers {
    set: RegexSet,
    /// For each pattern of the set: the rule, and which of its patterns.
    each: Vec<(usize, usize)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    rule: Vec<RuleData>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameFile {
    skip: Vec<String>,
}

impl Rules {
    /// Parses and compiles; refuses duplicate names, unknown names in `absorbs` and bad patterns.
    fn load(files: &[(&str, &str)]) -> Result<Rules, String> {
        let mut all: Vec<Rule> = Vec::new();
        for (file, text) in files {
            let parsed: RuleFile = toml::from_str(text).map_err(|e| format!("{file}.toml: {e}"))?;
            for data in parsed.rule {
                if all.iter().any(|other| other.data.name == data.name) {
                    return Err(format!("{file}.toml: rule `{}` exists twice", data.name));
                }
                let place = |e: regex::Error| format!("{file}.toml: rule `{}`: {e}", data.name);
                let all_of = |patterns: &[String]| {
                    patterns
                        .iter()
                        .map(|p| compile(p))
                        .collect::<Result<Vec<_>, _>>()
                };
                let longest = if data.until.is_some() {
                    REPORT_LINES
                } else {
                    1
                };
                all.push(Rule {
                    patterns: all_of(&data.patterns).map_err(place)?,
                    details: all_of(&data.details).map_err(place)?,
                    until: data
                        .until
                        .as_deref()
                        .map(compile)
                        .transpose()
                        .map_err(place)?,
                    lines: data.lines.unwrap_or(longest),
                    unless: compile_set(&data.unless).map_err(place)?,
                    data,
                });
            }
        }
        for rule in &all {
            for name in &rule.data.absorbs {
                if !all.iter().any(|other| other.data.name == *name) {
                    return Err(format!(
                        "rule `{}` absorbs `{name}`, which is none",
                        rule.data.name
                    ));
                }
            }
        }
        let headers = |speaker| Headers::compile(&all, speaker);
        let headers = [
            headers(Speaker::Kernel)?,
            headers(Speaker::Systemd)?,
            headers(Speaker::Console)?,
        ];
        let frames: FrameFile = toml::from_str(include_str!("../rules/frames.toml"))
            .map_err(|e| format!("frames.toml: {e}"))?;
        let whole: Vec<String> = frames
            .skip
            .iter()
            .map(|name| format!("^(?:{name})$"))
            .collect();
        let skip = compile_set(&whole).map_err(|e| format!("frames.toml: {e}"))?;
        Ok(Rules { all, headers, skip })
    }

    /// The rule that this line is the header of, and what its pattern captured.
    pub fn header(
        &self,
        speaker: Speaker,
        level: Option<u8>,
        line: &[u8],
    ) -> Option<(&Rule, BTreeMap<String, String>)> {
        let headers = &self.headers[speaker as usize];
        if !headers.set.is_match(line) {
            return None;
        }
        headers.set.matches(line).into_iter().find_map(|index| {
            let (rule, pattern) = &headers.each[index];
            let rule = &self.all[*rule];
            let pattern = &rule.patterns[*pattern];
            let loud = rule
                .data
                .level
                .is_none_or(|limit| level.is_some_and(|level| level <= limit));
            if !loud || rule.unless.is_match(line) {
                return None;
            }
            pattern
                .captures(line)
                .map(|captures| (rule, named(pattern, &captures)))
        })
    }

    /// Whether a function only reports, sleeps, locks or allocates on behalf of another.
    pub fn is_bystander(&self, function: &str) -> bool {
        self.skip.is_match(function.as_bytes())
    }

    /// The rule of this name.
    pub fn find(&self, name: &str) -> Option<&Rule> {
        self.all.iter().find(|rule| rule.data.name == name)
    }

    /// The names of all rules.
    #[cfg(test)]
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|rule| rule.data.name.as_str())
    }
}

impl Rule {
    /// Whether a header of `other` inside this rule's report belongs to it.
    pub fn absorbs(&self, other: &Rule) -> bool {
        self.data.absorbs.contains(&other.data.name)
    }
}

impl Headers {
    fn compile(rules: &[Rule], speaker: Speaker) -> Result<Headers, String> {
        let heard = rules.iter().enumerate();
        let heard = heard.filter(|(_, rule)| rule.data.speakers.contains(&speaker));
        let each: Vec<(usize, usize)> = heard
            .flat_map(|(index, rule)| (0..rule.patterns.len()).map(move |pattern| (index, pattern)))
            .collect();
        let patterns: Vec<&str> = each
            .iter()
            .map(|(rule, pattern)| rules[*rule].patterns[*pattern].as_str())
            .collect();
        let set = compile_set(&patterns).map_err(|e| format!("all rules together: {e}"))?;
        Ok(Headers { set, each })
    }
}

/// What a pattern's named groups captured.
pub(super) fn named(pattern: &Regex, captures: &Captures<'_>) -> BTreeMap<String, String> {
    let text =
        |name: &str| Some(String::from_utf8_lossy(captures.name(name)?.as_bytes()).into_owned());
    pattern
        .capture_names()
        .flatten()
        .filter_map(|name| Some((name.to_owned(), text(name)?)))
        .collect()
}

/// Kernel logs are bytes; ASCII classes keep the automata small.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&pattern.replace("SYM", SYM))
        .unicode(false)
        .build()
}

fn compile_set(patterns: &[impl AsRef<str>]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns).unicode(false).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "[[rule]]\nname = \"one\"\nkind = \"bug\"\nseverity = \"bug\"\npatterns = ['^x']\ntitle = \"x\"\n";

    fn refusal(files: &[(&str, &str)]) -> String {
        Rules::load(files).err().unwrap_or_default()
    }

    #[test]
    fn the_rules_load() {
        assert!(RULES.names().count() > 60);
    }

    #[test]
    fn a_rule_has_one_name_and_known_friends() {
        assert_eq!(refusal(&[("a", ONE)]), "");
        assert_eq!(
            refusal(&[("a", ONE), ("b", ONE)]),
            "b.toml: rule `one` exists twice"
        );
        let stray = format!("{ONE}absorbs = [\"two\"]\n");
        assert_eq!(
            refusal(&[("a", &stray)]),
            "rule `one` absorbs `two`, which is none"
        );
        let typo = format!("{ONE}untli = \"x\"\n");
        assert!(refusal(&[("a", &typo)]).contains("untli"));
        let broken = ONE.replace("'^x'", "'^x('");
        assert!(refusal(&[("a", &broken)]).starts_with("a.toml: rule `one`"));
    }
}
