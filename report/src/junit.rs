//! JUnit by `junit-report`, mended where version 0.9 falls short: properties, a count of the
//! skipped, earlier tries, characters XML 1.0 cannot carry, and `]]>` inside CDATA.
//!
//! The file is written anew after every result, so a run that is cut short has reported all it
//! finished. It fits the schema of the Jenkins xunit plugin (`junit-10.xsd`), which has properties
//! for suites only: so each check is a suite, whose first case is the check itself and whose other
//! cases are its parts. The same facts stand at the head of the case's output as
//! `[[PROPERTY|name=value]]`, for readers that show cases only.

use std::io;
use std::path::{Path, PathBuf};

use junit_report::{
    Duration, OffsetDateTime, ReportBuilder, TestCase, TestCaseBuilder, TestSuiteBuilder,
};
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event as Xml};

use results::{Attempt, CaseResult, Event, Outcome, Part, Reporter};

/// Writes `path` after each finished check.
#[derive(Debug)]
pub struct JunitReporter {
    path: PathBuf,
    started: OffsetDateTime,
    facts: Vec<(String, String)>,
    results: Vec<CaseResult>,
}

impl JunitReporter {
    /// A reporter that (re)writes `path`.
    pub fn new(path: impl Into<PathBuf>) -> JunitReporter {
        JunitReporter {
            path: path.into(),
            started: now(),
            facts: Vec::new(),
            results: Vec::new(),
        }
    }
}

impl Reporter for JunitReporter {
    fn on(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::RunStarted { facts } => self.facts.clone_from(facts),
            Event::CaseFinished(result) => self.results.push((**result).clone()),
            Event::VerdictStored { results, .. } => self.results.extend_from_slice(results),
            Event::RunFinished { .. } => {}
            _ => return Ok(()),
        }
        let xml = render(self.started, &self.facts, &self.results)?;
        publish(&self.path, xml.as_bytes())
    }
}

fn now() -> OffsetDateTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = since.map_or(0, |d| d.as_secs()) as i64;
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Replaces `path` in one step, so that a reader never sees half a report.
///
/// # Errors
/// What the system said, with the path.
pub fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let context = |e: io::Error| {
        io::Error::new(
            e.kind(),
            format!("cannot write the report {}: {e}", path.display()),
        )
    };
    std::fs::create_dir_all(dir).map_err(context)?;
    keeper::draft::file(path, bytes).map_err(context)
}

/// The whole report: a suite per check, and in it a case for the check and one per part.
///
/// # Errors
/// Only if the XML library refuses its own output.
pub fn render(
    started: OffsetDateTime,
    facts: &[(String, String)],
    results: &[CaseResult],
) -> io::Result<String> {
    let mut report = ReportBuilder::new();
    for result in results {
        let mut suite = TestSuiteBuilder::new(&format!("vexfs-{}", result.case));
        suite.set_timestamp(started);
        suite.add_testcase(test_case(result));
        for part in &result.parts {
            suite.add_testcase(part_case(result, part));
        }
        report.add_testsuite(suite.build());
    }
    let mut bytes = Vec::new();
    report
        .build()
        .write_xml(&mut bytes)
        .map_err(io::Error::other)?;
    let xml = String::from_utf8(bytes).map_err(io::Error::other)?;
    mend(&xml, facts, results).map_err(io::Error::other)
}

/// Passed, skipped or not, with its reason in one line and its story below.
fn bare_case(
    name: &str,
    took: Duration,
    outcome: &Outcome,
    dossier: Option<&Path>,
) -> TestCaseBuilder {
    let (kind, title, detail) = outcome.failure();
    match outcome {
        Outcome::Pass => TestCaseBuilder::success(name, took),
        Outcome::Skip { reason } => {
            TestCaseBuilder::skipped_with_cause(name, "skipped", &carry(reason))
        }
        Outcome::Fail { .. } => {
            let mut case = TestCaseBuilder::failure(name, took, kind, &carry(title));
            case.set_trace(&cdata(&trace(detail, dossier)));
            case
        }
        Outcome::Infrastructure { .. } => {
            let mut case = TestCaseBuilder::error(name, took, kind, &carry(title));
            case.set_trace(&cdata(&trace(detail, dossier)));
            case
        }
    }
}

fn test_case(result: &CaseResult) -> TestCase {
    // The schema has three decimals for a suite's seconds.
    let milliseconds = i64::try_from(result.took.as_millis()).unwrap_or(i64::MAX);
    let took = Duration::milliseconds(milliseconds);
    let mut case = bare_case(
        &result.case.check,
        took,
        &result.outcome,
        result.dossier.as_deref(),
    );
    case.set_classname(&class(result));
    let properties: String = result
        .properties
        .iter()
        .map(|(name, value)| format!("[[PROPERTY|{name}={value}]]\n"))
        .collect();
    case.set_system_out(&cdata(&(properties + &result.transcript)));
    case.set_system_err(&cdata(&result.kernel_log));
    case.build()
}

/// A part has no time of its own: what is measured is the check.
fn part_case(result: &CaseResult, part: &Part) -> TestCase {
    let name = format!("{}::{}", result.case.check, carry(&part.name));
    let mut case = bare_case(&name, Duration::ZERO, &part.outcome, None);
    case.set_classname(&class(result));
    case.build()
}

fn class(result: &CaseResult) -> String {
    format!("{}.{}", result.case.variant, result.case.tier)
}

/// The failure's text, with the way to its dossier first.
fn trace(detail: &str, dossier: Option<&Path>) -> String {
    match dossier {
        Some(dossier) => format!("Dossier: {}\n{detail}", dossier.display()),
        None => detail.to_owned(),
    }
}

/// Text with only the characters XML 1.0 has (section 2.2, production 2): a console can say
/// anything.
fn carry(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'.. => c,
            _ => '\u{FFFD}',
        })
        .collect()
}

/// Text that can stand inside one CDATA section: its end mark is split over two.
fn cdata(text: &str) -> String {
    carry(text).replace("]]>", "]]]]><![CDATA[>")
}

/// Adds to the library's XML what it cannot say. `results` are in the document's order.
fn mend(
    xml: &str,
    facts: &[(String, String)],
    results: &[CaseResult],
) -> Result<String, quick_xml::Error> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut writer = quick_xml::Writer::new(Vec::new());
    let mut results = results.iter();
    // The check of a suite whose own case, its first, has not been seen yet.
    let mut check: Option<&CaseResult> = None;
    loop {
        match reader.read_event()? {
            Xml::Eof => break,
            Xml::Start(mut tag) if tag.name().as_ref() == b"testsuite" => {
                check = results.next();
                let skipped = check.map_or(0, skipped).to_string();
                tag.push_attribute(("skipped", skipped.as_str()));
                writer.write_event(Xml::Start(tag))?;
                let own = check.map_or(&[][..], |result| &result.properties);
                // A case that ran says itself on what; one that was skipped does not.
                let facts = facts.iter().filter(|fact| !own.contains(fact));
                write_properties(&mut writer, facts.chain(own))?;
            }
            Xml::Start(tag) if tag.name().as_ref() == b"testcase" => {
                writer.write_event(Xml::Start(tag))?;
                if let Some(result) = check.take() {
                    write_earlier(&mut writer, result)?;
                }
            }
            other => writer.write_event(other)?,
        }
    }
    Ok(String::from_utf8_lossy(&writer.into_inner()).into_owned())
}

fn skipped(result: &CaseResult) -> usize {
    let parts = result.parts.iter().map(|part| &part.outcome);
    std::iter::once(&result.outcome)
        .chain(parts)
        .filter(|outcome| matches!(outcome, Outcome::Skip { .. }))
        .count()
}

/// Earlier tries, in the words of Maven Surefire that Jenkins and nextest use: `flaky…` before a
/// pass, `rerun…` before a failure.
fn write_earlier(writer: &mut quick_xml::Writer<Vec<u8>>, result: &CaseResult) -> io::Result<()> {
    let infrastructure = |a: &Attempt| matches!(a.outcome, Outcome::Infrastructure { .. });
    // Readers take any such element before a pass for flakiness; a try that the host has ended is a
    // property of the case.
    let quiet = result.outcome == Outcome::Pass && !result.is_flaky();
    for attempt in result
        .earlier
        .iter()
        .filter(|a| !(quiet && infrastructure(a)))
    {
        let (kind, title, detail) = attempt.outcome.failure();
        let what = match attempt.outcome {
            Outcome::Infrastructure { .. } => "Error",
            _ => "Failure",
        };
        let when = if result.is_flaky() { "flaky" } else { "rerun" };
        let title = carry(title);
        let detail = trace(detail, attempt.dossier.as_deref());
        writer
            .create_element(format!("{when}{what}"))
            .with_attributes([("type", kind), ("message", title.as_str())])
            .write_inner_content(|inner| {
                for (name, text) in [
                    ("stackTrace", detail.as_str()),
                    ("system-out", &attempt.transcript),
                    ("system-err", &attempt.kernel_log),
                ] {
                    let text = carry(text);
                    inner
                        .create_element(name)
                        .write_text_content(BytesText::new(&text))?;
                }
                Ok(())
            })?;
    }
    Ok(())
}

fn write_properties<'a>(
    writer: &mut quick_xml::Writer<Vec<u8>>,
    properties: impl Iterator<Item = &'a (String, String)>,
) -> io::Result<()> {
    writer.write_event(Xml::Start(BytesStart::new("properties")))?;
    for (name, value) in properties {
        let mut tag = BytesStart::new("property");
        tag.push_attribute(("name", carry(name).as_str()));
        tag.push_attribute(("value", carry(value).as_str()));
        writer.write_event(Xml::Empty(tag))?;
    }
    writer.write_event(Xml::End(BytesEnd::new("properties")))
}

#[cfg(test)]
mod tests {
    use results::{CaseId, Tier};

    use super::*;

    fn result(check: &str, outcome: Outcome, transcript: &str) -> CaseResult {
        CaseResult {
            took: std::time::Duration::from_micros(1_500_999),
            properties: vec![("boot-id".into(), "b<1>\"".into())],
            transcript: transcript.into(),
            kernel_log: "[    0.0] Linux".into(),
            ..CaseResult::new(CaseId::new("minimal", Tier::Quick, check), outcome)
        }
    }

    fn report(results: &[CaseResult]) -> String {
        let facts = vec![("accelerator".to_owned(), "tcg".to_owned())];
        render(OffsetDateTime::UNIX_EPOCH, &facts, results).expect("renders")
    }

    /// Everything a document says, in order, as a conforming reader sees it.
    fn texts(xml: &str) -> String {
        let mut reader = quick_xml::Reader::from_str(xml);
        let mut out = String::new();
        loop {
            match reader.read_event().expect("well-formed") {
                Xml::Eof => return out,
                Xml::CData(c) => out.push_str(&String::from_utf8_lossy(&c)),
                _ => {}
            }
        }
    }

    #[test]
    fn what_xml_cannot_carry_is_replaced_and_cdata_stays_whole() {
        let xml = report(&[result(
            "a",
            Outcome::Pass,
            "bell \u{7} esc \u{1b}[0m end ]]> more",
        )]);
        assert!(!xml.contains(['\u{7}', '\u{1b}']));
        assert!(texts(&xml).contains("end ]]> more"), "{xml}");
    }

    /// One of everything a report can say.
    fn all_kinds() -> Vec<CaseResult> {
        let bad = Outcome::fail("content", "not the same", "a\nb");
        let lost = Outcome::Infrastructure {
            what: "no room on this host".into(),
        };
        let no_fio = Outcome::Skip {
            reason: "image has no <fio>".into(),
        };
        let attempt = |outcome: &Outcome| Attempt {
            outcome: outcome.clone(),
            transcript: "first try".into(),
            kernel_log: "[    0.0] \u{7}oops ]]>".into(),
            dossier: Some("dossiers/earlier".into()),
        };
        let part = |name: &str, outcome: &Outcome| Part {
            name: name.into(),
            outcome: outcome.clone(),
        };
        vec![
            result("good", Outcome::Pass, "out"),
            result("skipped", no_fio.clone(), ""),
            CaseResult {
                dossier: Some("dossiers/bad".into()),
                ..result("bad", bad.clone(), "out")
            },
            CaseResult {
                earlier: vec![attempt(&bad), attempt(&lost)],
                ..result("flaky", Outcome::Pass, "out")
            },
            CaseResult {
                earlier: vec![attempt(&bad)],
                ..result("tried_twice", bad.clone(), "out")
            },
            result("no_room", lost, ""),
            CaseResult {
                parts: vec![
                    part("rename/00.t", &Outcome::Pass),
                    part("rename/01.t", &bad),
                    part("rename/02.t", &no_fio),
                ],
                ..result("many", bad, "out")
            },
        ]
    }

    #[test]
    fn the_report_says_what_happened() {
        let xml = report(&all_kinds()).replace("><", ">\n<") + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/junit.xml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &xml).expect("the golden file is written");
        }
        let golden = include_str!("../golden/junit.xml");
        assert_eq!(xml, golden, "golden/junit.xml differs");
    }

    /// What xmllint(1) says of a document against the schema; empty when it is valid.
    fn complaints(xml: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("junit.xml");
        std::fs::write(&file, xml).expect("written");
        let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/junit.xsd");
        let output = std::process::Command::new("xmllint")
            .args(["--nonet", "--noout", "--schema", schema])
            .arg(&file)
            .output()
            .expect("xmllint is installed (package libxml2-utils; ci/setup test installs it)");
        match output.status.success() {
            true => String::new(),
            false => String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[test]
    fn the_report_fits_the_schema_and_the_schema_bites() {
        let xml = report(&all_kinds());
        assert_eq!(complaints(&xml), "");
        assert_eq!(complaints(&report(&[])), "");
        let wrong = xml.replacen("<system-out>", "<properties/><system-out>", 1);
        assert!(complaints(&wrong).contains("properties"));
        let wrong =
            xml.replacen("<stackTrace>", "<trace>", 1)
                .replacen("</stackTrace>", "</trace>", 1);
        assert!(complaints(&wrong).contains("trace"));
    }
}
