//! Several JUnit files as one: the shares of a run that several machines took.

use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, Event as Xml};
use quick_xml::{Reader, Writer};

/// The files in one, and what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The document.
    pub xml: String,
    /// Test cases.
    pub cases: usize,
    /// Of those: failed, or not to be judged.
    pub bad: usize,
    /// Of those: skipped.
    pub skipped: usize,
}

/// Puts the suites of several JUnit documents into one, in their order. Each comes with its name, for
/// errors.
///
/// # Errors
/// A sentence, when one of them is no whole JUnit document.
pub fn merge(documents: &[(String, String)]) -> Result<Merged, String> {
    let mut writer = Writer::new(Vec::new());
    let mut counts = [0; 3];
    let write = |writer: &mut Writer<Vec<u8>>, event: Xml<'_>| {
        writer.write_event(event).map_err(|error| error.to_string())
    };
    write(
        &mut writer,
        Xml::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)),
    )?;
    write(&mut writer, Xml::Start(BytesStart::new("testsuites")))?;
    for (name, text) in documents {
        let bad = |said: String| format!("{name} is no JUnit report: {said}");
        let mut reader = Reader::from_str(text);
        // How deep in the document, and whether within a suite.
        let (mut depth, mut within) = (0, 0);
        let mut suites = 0;
        let mut wrong = false;
        loop {
            let event = reader.read_event().map_err(|e| bad(e.to_string()))?;
            let tag = match &event {
                Xml::Start(tag) | Xml::Empty(tag) => tag.name().as_ref().to_vec(),
                _ => Vec::new(),
            };
            let opens = matches!(event, Xml::Start(_));
            if tag == b"testsuite" && depth <= 1 {
                suites += 1;
                within = depth + 1;
            }
            match tag.as_slice() {
                b"testcase" => {
                    counts[0] += 1;
                    wrong = false;
                }
                b"failure" | b"error" if !wrong => {
                    counts[1] += 1;
                    wrong = true;
                }
                b"skipped" => counts[2] += 1,
                _ => {}
            }
            depth += usize::from(opens);
            let ends = matches!(event, Xml::End(_));
            let done = matches!(event, Xml::Eof);
            if within > 0 && !done {
                write(&mut writer, event)?;
            }
            if ends {
                if depth == within {
                    within = 0;
                }
                depth -= 1;
            } else if within == depth + 1 && !opens {
                // `<testsuite/>`
                within = 0;
            }
            if done {
                break;
            }
        }
        if depth != 0 {
            return Err(bad("it is cut short".into()));
        }
        if suites == 0 {
            return Err(bad("it has no test suite".into()));
        }
    }
    write(&mut writer, Xml::End(BytesEnd::new("testsuites")))?;
    let [cases, bad, skipped] = counts;
    Ok(Merged {
        xml: String::from_utf8_lossy(&writer.into_inner()).into_owned(),
        cases,
        bad,
        skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(texts: &[&str]) -> Result<Merged, String> {
        let named = texts.iter().enumerate();
        let documents: Vec<_> = named
            .map(|(n, text)| (format!("{n}.xml"), (*text).to_owned()))
            .collect();
        merge(&documents)
    }

    #[test]
    fn suites_stand_one_after_the_other_and_are_counted() {
        let golden = include_str!("../golden/junit.xml");
        let one = merged(&[golden]).expect("a report");
        let other = "<testsuite name='x'><testcase name='a'><failure/><error/></testcase>\
                     <testcase name='b'><skipped/></testcase></testsuite>";
        let both = merged(&[golden, other, "<testsuites><testsuite/></testsuites>"]);
        let both = both.expect("reports");
        assert_eq!(both.cases, one.cases + 2);
        assert_eq!(both.bad, one.bad + 1);
        assert_eq!(both.skipped, one.skipped + 1);
        assert!(one.bad > 0 && one.skipped > 0);
        assert_eq!(
            both.xml.matches("<testsuite ").count(),
            golden.matches("<testsuite ").count() + 1
        );
        assert!(
            both.xml.ends_with("<testsuite/></testsuites>"),
            "{}",
            both.xml
        );
        // What was merged can be merged.
        assert_eq!(merged(&[&both.xml]), Ok(both));
    }

    #[test]
    fn what_is_no_report_is_named() {
        for (text, word) in [
            ("", "no test suite"),
            ("<html></html>", "no test suite"),
            ("<testsuite><testcase>", "cut short"),
            ("<testsuite></testcase>", "1.xml is no JUnit report"),
        ] {
            let error = merged(&["<testsuite/>", text]).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
