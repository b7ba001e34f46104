//! What pjdfstest says of two file systems, side by side.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use results::Outcome;

/// What became of one of its cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Case {
    /// It holds.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// It was not asked, and why.
    Skipped(String),
}

/// Cases that may fail here although they pass on ext4.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    #[serde(default)]
    cases: BTreeMap<String, String>,
}

static ALLOWED: LazyLock<Allowed> = LazyLock::new(|| {
    // The list is part of the program, and a test reads it.
    toml::from_str(include_str!("pjdfstest.toml")).unwrap_or_default()
});

/// The list beside this file.
pub fn allowed() -> &'static Allowed {
    &ALLOWED
}

/// The cases in its output, by name: a line each, `NAME ok|skipped|FAILED`, reasons below.
///
/// # Errors
/// When the output does not go to the summary, or that counts other cases.
pub fn cases(output: &str) -> Result<BTreeMap<String, Case>, String> {
    let mut cases = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in output.lines() {
        if line.starts_with("Summary") {
            let total = line.rsplit(", ").next().unwrap_or_default();
            return match total
                .split(' ')
                .next()
                .and_then(|n| n.parse::<usize>().ok())
            {
                Some(total) if total == cases.len() => Ok(cases),
                _ => Err(format!(
                    "{} cases were told, and then `{line}`",
                    cases.len()
                )),
            };
        }
        if let Some(reason) = line.strip_prefix('\t') {
            if let Some(Case::Failed(why) | Case::Skipped(why)) =
                last.as_ref().and_then(|name| cases.get_mut(name))
            {
                why.push_str(reason);
                why.push('\n');
            }
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(result), None) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let case = match result {
            "ok" => Case::Passed,
            "FAILED" => Case::Failed(String::new()),
            "skipped" => Case::Skipped(String::new()),
            _ => continue,
        };
        cases.insert(name.to_owned(), case);
        last = Some(name.to_owned());
    }
    Err(format!(
        "it ended after {} cases, without a summary",
        cases.len()
    ))
}

/// One outcome for each case: what passes or is asked on ext4 must be so on ours as well.
pub fn compare(
    ours: &BTreeMap<String, Case>,
    ext4: &BTreeMap<String, Case>,
    allowed: &Allowed,
) -> Vec<(String, Outcome)> {
    let fail = |what: &str, why: &str| Outcome::fail("pjdfstest", format!("it {what}"), why);
    let mut outcomes: Vec<(String, Outcome)> = Vec::new();
    for (name, there) in ext4 {
        let here = ours.get(name);
        let reason = allowed.cases.get(name);
        let outcome = match (there, here, reason) {
            (_, Some(Case::Passed), None) => Outcome::Pass,
            (_, Some(Case::Passed), Some(_)) => fail("passes by now: take it from the list", ""),
            (_, None, _) => fail("was not run, and was on ext4", ""),
            (Case::Passed, Some(_), Some(reason)) => Outcome::Skip {
                reason: reason.clone(),
            },
            (Case::Passed, Some(Case::Failed(why)), None) => fail("fails, and passes on ext4", why),
            (Case::Passed, Some(Case::Skipped(why)), None) => {
                fail("is skipped, and passes on ext4", why)
            }
            (Case::Failed(why), Some(_), _) => Outcome::Skip {
                reason: format!("it fails on ext4 as well: {}", first(why)),
            },
            (Case::Skipped(why), Some(_), _) => Outcome::Skip {
                reason: format!("it is not asked of ext4 either: {}", first(why)),
            },
        };
        outcomes.push((name.clone(), outcome));
    }
    outcomes
}

fn first(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
chmod::change_perm                                                    ok
open::etxtbsy                                                         FAILED
\tcalled `Result::unwrap()` on an `Err` value: Os { code: 2 }
chflags::unsup                                                        skipped
\trequires features: chflags

Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total
";

    #[test]
    fn its_output_is_read() {
        let cases = cases(OUTPUT).expect("whole");
        assert_eq!(cases["chmod::change_perm"], Case::Passed);
        assert!(matches!(&cases["open::etxtbsy"], Case::Failed(why) if why.contains("code: 2")));
        assert!(matches!(&cases["chflags::unsup"], Case::Skipped(why) if why.contains("chflags")));
        let cut_off: String = OUTPUT.lines().take(3).collect::<Vec<_>>().join("\n");
        assert!(super::cases(&cut_off).is_err());
        assert!(super::cases(&OUTPUT.replace("3 total", "4 total")).is_err());
    }

    #[test]
    fn only_what_ext4_can_counts() {
        let all = |text: &str| -> BTreeMap<String, Case> {
            let case = |word: &str| match word {
                "p" => Case::Passed,
                "f" => Case::Failed("why\n".into()),
                _ => Case::Skipped("why\n".into()),
            };
            text.split(' ')
                .enumerate()
                .filter(|(_, word)| *word != "-")
                .map(|(n, word)| (n.to_string(), case(word)))
                .collect()
        };
        let allowed: Allowed =
            toml::from_str("[cases]\n6 = \"reason\"\n7 = \"stale\"").expect("a list");
        let outcomes = compare(&all("p f s - f s f p"), &all("p p p p f f p p"), &allowed);
        let shown: String = outcomes
            .iter()
            .map(|(_, outcome)| match outcome {
                Outcome::Pass => 'p',
                Outcome::Skip { .. } => 's',
                _ => 'F',
            })
            .collect();
        assert_eq!(shown, "pFFFsssF");
    }

    #[test]
    fn the_list_is_sound() {
        let list: Allowed = toml::from_str(include_str!("pjdfstest.toml")).expect("it parses");
        assert!(list.cases.values().all(|reason| reason.len() > 10));
    }
}
