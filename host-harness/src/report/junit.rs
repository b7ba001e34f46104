//! JUnit by `junit-report`, mended where version 0.9 falls short: per-case properties, a count of
//! the skipped, characters XML 1.0 cannot carry, and `]]>` inside CDATA.
//!
//! The file is written anew after every result, so a run that is cut short has reported all it
//! finished. Names follow the Jenkins xunit plugin's schema (`junit-10.xsd`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use junit_report::{
    Duration, OffsetDateTime, ReportBuilder, TestCase, TestCaseBuilder, TestSuiteBuilder,
};
use quick_xml::events::{BytesEnd, BytesStart, Event as Xml};

use crate::event::{CaseResult, Event, Reporter};
use crate::verdict::outcome::Outcome;

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
fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let context = |e: io::Error| {
        io::Error::new(
            e.kind(),
            format!("cannot write the report {}: {e}", path.display()),
        )
    };
    std::fs::create_dir_all(dir).map_err(context)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(context)?;
    io::Write::write_all(&mut file, bytes).map_err(context)?;
    // Readable by whoever collects reports; temporary files are private by default.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(context)?;
    file.persist(path).map(drop).map_err(|e| context(e.error))
}

/// The whole report: a suite per variant, a case per check.
///
/// # Errors
/// Only if the XML library refuses its own output.
pub fn render(
    started: OffsetDateTime,
    facts: &[(String, String)],
    results: &[CaseResult],
) -> io::Result<String> {
    let mut suites: BTreeMap<&str, Vec<&CaseResult>> = BTreeMap::new();
    for result in results {
        suites.entry(&result.case.variant).or_default().push(result);
    }
    let mut report = ReportBuilder::new();
    let mut properties = Vec::new();
    let mut skipped = Vec::new();
    for (variant, cases) in &suites {
        let mut suite = TestSuiteBuilder::new(&format!("vexfs-{variant}"));
        suite.set_timestamp(started);
        for case in cases {
            suite.add_testcase(test_case(case));
            properties.push(case.properties.as_slice());
        }
        report.add_testsuite(suite.build());
        skipped.push(
            cases
                .iter()
                .filter(|c| matches!(c.outcome, Outcome::Skip { .. }))
                .count(),
        );
    }
    let mut bytes = Vec::new();
    report
        .build()
        .write_xml(&mut bytes)
        .map_err(io::Error::other)?;
    let xml = String::from_utf8(bytes).map_err(io::Error::other)?;
    mend(&xml, facts, &properties, &skipped).map_err(io::Error::other)
}

fn test_case(result: &CaseResult) -> TestCase {
    let took = Duration::try_from(result.took).unwrap_or(Duration::ZERO);
    let name = &result.case.check;
    let mut case = match &result.outcome {
        Outcome::Pass => TestCaseBuilder::success(name, took),
        Outcome::Skip { reason } => {
            TestCaseBuilder::skipped_with_cause(name, "skipped", &carry(reason))
        }
        failed => {
            let (kind, title, detail) = failed.failure();
            let mut case = if matches!(failed, Outcome::Infrastructure { .. }) {
                TestCaseBuilder::error(name, took, kind, &carry(title))
            } else {
                TestCaseBuilder::failure(name, took, kind, &carry(title))
            };
            case.set_trace(&cdata(detail));
            case
        }
    };
    case.set_classname(&format!("{}.{}", result.case.variant, result.case.tier));
    case.set_system_out(&cdata(&result.transcript));
    case.set_system_err(&cdata(&result.kernel_log));
    case.build()
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

/// Adds to the library's XML what it cannot say. `properties` has an entry per case and `skipped`
/// one per suite, in document order.
fn mend(
    xml: &str,
    facts: &[(String, String)],
    properties: &[&[(String, String)]],
    skipped: &[usize],
) -> Result<String, quick_xml::Error> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut writer = quick_xml::Writer::new(Vec::new());
    let (mut cases, mut suites) = (properties.iter(), skipped.iter());
    loop {
        match reader.read_event()? {
            Xml::Eof => break,
            Xml::Start(mut tag) => {
                let name = tag.name().as_ref().to_vec();
                if name == b"testsuite" {
                    let count = suites.next().copied().unwrap_or_default().to_string();
                    tag.push_attribute(("skipped", count.as_str()));
                }
                writer.write_event(Xml::Start(tag))?;
                match &name[..] {
                    b"testsuite" => write_properties(&mut writer, facts)?,
                    b"testcase" => {
                        write_properties(&mut writer, cases.next().copied().unwrap_or_default())?;
                    }
                    _ => {}
                }
            }
            other => writer.write_event(other)?,
        }
    }
    Ok(String::from_utf8_lossy(&writer.into_inner()).into_owned())
}

fn write_properties(
    writer: &mut quick_xml::Writer<Vec<u8>>,
    properties: &[(String, String)],
) -> io::Result<()> {
    if properties.is_empty() {
        return Ok(());
    }
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
    use super::*;
    use crate::checks::Tier;
    use crate::event::CaseId;

    fn result(check: &str, outcome: Outcome, transcript: &str) -> CaseResult {
        CaseResult {
            case: CaseId {
                variant: "minimal".into(),
                tier: Tier::Quick,
                check: check.into(),
            },
            outcome,
            took: std::time::Duration::from_millis(1500),
            properties: vec![("boot-id".into(), "b<1>\"".into())],
            transcript: transcript.into(),
            kernel_log: "[    0.0] Linux".into(),
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

    #[test]
    fn the_report_says_what_happened() {
        let xml = report(&[
            result("good", Outcome::Pass, "out"),
            result(
                "skipped",
                Outcome::Skip {
                    reason: "image has no <fio>".into(),
                },
                "",
            ),
            result(
                "bad",
                Outcome::fail("content", "not the same", "a\nb"),
                "out",
            ),
        ]);
        let golden = include_str!("../../golden/junit.xml");
        assert_eq!(
            xml.replace("><", ">\n<"),
            golden.trim_end(),
            "golden/junit.xml differs"
        );
    }
}
