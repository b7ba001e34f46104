//! Every golden log gives exactly what its head says; every rule has a golden log.
//!
//! A golden log is `golden/logs/FAMILY/NAME.log`: a head of `# key: value` lines, then the log. `title`,
//! `type` and `severity` are repeated in this order for each finding (`title: none` for a benign log);
//! `rule` may name the rule; each `then` is the title of a follower of the finding before it. `source` is
//! `kmsg` (raw records), `console`, or `both` with a line `#@ kmsg` or `#@ console` in front of each part.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::rule::RULES;
use super::{Expectations, Finding, Kind, MachineEvent, Matcher, Record, Severity, judge};

struct Golden {
    path: PathBuf,
    /// (title, type, severity, titles of the followers)
    expected: Vec<(String, String, String, Vec<String>)>,
    records: Vec<Record>,
}

fn logs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/logs")
}

fn read(path: &Path) -> Golden {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.display();
    let mut golden = Golden {
        path: path.into(),
        expected: Vec::new(),
        records: Vec::new(),
    };
    let mut source = None;
    let mut part = None;
    let mut body = String::new();
    let mut none = false;
    let parse = |part: &Option<String>, body: &str| match part.as_deref() {
        Some("kmsg") => {
            let records = Record::parse_kmsg_stream(body);
            assert_eq!(
                records.len(),
                body.lines().count(),
                "{name}: a line is no kmsg record"
            );
            records
        }
        Some("console") => Record::parse_console(body.as_bytes()),
        other => panic!("{name}: `{other:?}` is no source"),
    };
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("#@ ") {
            if !body.is_empty() {
                golden.records.extend(parse(&part, &body));
                body.clear();
            }
            part = Some(next.to_owned());
        } else if let Some((key, value)) = line
            .strip_prefix("# ")
            .filter(|_| body.is_empty())
            .and_then(|l| l.split_once(": "))
        {
            match key {
                "title" if value == "none" => none = true,
                "title" => {
                    golden
                        .expected
                        .push((value.into(), String::new(), String::new(), vec![]))
                }
                "type" => golden.expected.last_mut().unwrap().1 = value.into(),
                "severity" => golden.expected.last_mut().unwrap().2 = value.into(),
                "then" => golden.expected.last_mut().unwrap().3.push(value.into()),
                "source" => source = Some(value.to_owned()),
                "note" => {}
                other => panic!("{name}: unknown head line `{other}`"),
            }
        } else {
            body.push_str(line);
            body.push('\n');
        }
    }
    if source.as_deref() != Some("both") {
        part = source;
    }
    golden.records.extend(parse(&part, &body));
    assert_eq!(
        none,
        golden.expected.is_empty(),
        "{name}: says neither what is found nor `title: none`"
    );
    golden
}

fn all() -> Vec<Golden> {
    let mut paths = Vec::new();
    for family in std::fs::read_dir(logs()).unwrap() {
        for file in std::fs::read_dir(family.unwrap().path()).unwrap() {
            paths.push(file.unwrap().path());
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn found(findings: &[Finding]) -> Vec<(String, String, String, Vec<String>)> {
    let text = |severity| {
        serde_json::to_value(severity)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    findings
        .iter()
        .map(|f| {
            let late = f
                .followed_by
                .iter()
                .map(|late| late.title.clone())
                .collect();
            (f.title.clone(), f.kind.name(), text(f.severity), late)
        })
        .collect()
}

#[test]
fn every_golden_log_gives_what_it_says() {
    let goldens = all();
    assert!(goldens.len() >= 80, "only {} golden logs", goldens.len());
    let mut wrong = Vec::new();
    for golden in goldens {
        let seen = found(&judge(&golden.records, &Expectations::none()));
        if seen != golden.expected {
            let path = golden.path.strip_prefix(logs()).unwrap().display();
            wrong.push(format!(
                "{path}\n  expected {:?}\n  found    {seen:?}",
                golden.expected
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_golden_log() {
    let mut proven = BTreeSet::new();
    for golden in all() {
        for finding in judge(&golden.records, &Expectations::none()) {
            proven.insert(finding.rule);
            proven.extend(finding.followed_by.iter().map(|late| late.rule));
        }
    }
    let unproven: Vec<&str> = RULES
        .names()
        .filter(|name| !proven.contains(name))
        .collect();
    assert!(
        unproven.is_empty(),
        "rules without a golden log: {unproven:?}"
    );
}

/// The same text in user space's mouth is nothing.
#[test]
fn user_space_never_speaks_for_the_kernel() {
    for mut golden in all() {
        let is_kmsg = |r: &Record| matches!(r.origin, super::Origin::Kmsg { .. });
        golden.records.retain(is_kmsg);
        for record in &mut golden.records {
            if let super::Origin::Kmsg { facility, .. } = &mut record.origin {
                *facility = 1;
            }
        }
        let seen = judge(&golden.records, &Expectations::none());
        assert!(
            seen.is_empty(),
            "{}: {:?}",
            golden.path.display(),
            found(&seen)
        );
    }
}

/// What kmsg and the console both have is one event; each alone gives the same.
#[test]
fn sources_agree() {
    for golden in all() {
        let kernel_only = golden.records.iter().all(|record| {
            matches!(record.origin, super::Origin::Kmsg { facility: 0, .. }) && record.at.is_some()
        });
        if !kernel_only {
            continue;
        }
        let console: Vec<Record> = golden
            .records
            .iter()
            .flat_map(|r| r.text.lines().map(|text| (r.at.unwrap(), text)))
            .map(|(at, text)| {
                let micros = at.subsec_micros();
                Record::console(&format!("[{:5}.{micros:06}] {text}\r", at.as_secs()))
            })
            .collect();
        let both: Vec<Record> = golden.records.iter().chain(&console).cloned().collect();
        let expected = judge(&golden.records, &Expectations::none());
        assert_eq!(
            found(&judge(&both, &Expectations::none())),
            found(&expected)
        );
        let times = |findings: &[Finding]| findings.iter().map(|f| f.times).collect::<Vec<_>>();
        let name = golden.path.display();
        assert_eq!(
            times(&judge(&both, &Expectations::none())),
            times(&expected),
            "{name}"
        );
        // A rule that needs the level cannot be judged from the console.
        if expected.iter().all(|f| f.rule != "vexfs_level") {
            assert_eq!(
                found(&judge(&console, &Expectations::none())),
                found(&expected)
            );
        }
    }
}

fn oops(sequence: u64) -> Vec<Record> {
    let line = |n: u64, text: &str| {
        Record::kmsg(
            sequence + n,
            0,
            4,
            Duration::from_millis(1000 + sequence + n),
            text,
        )
    };
    vec![
        line(
            0,
            "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        ),
        line(1, "RIP: 0010:vexfs_read+0x1c/0x40 [vexfs]"),
        line(2, "---[ end trace 0000000000000000 ]---"),
    ]
}

#[test]
fn a_declared_finding_is_allowed_and_its_absence_is_one() {
    let title = "BUG: NULL pointer dereference in vexfs_read";
    let declared = Expectations::none().require(Matcher::Title(title.into()), "the fault does it");
    assert_eq!(declared.verify(), Ok(()));
    let seen = judge(&oops(1), &declared);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].allowed.as_deref(), Some("the fault does it"));
    let missing = judge(&[], &declared);
    assert_eq!(
        (missing[0].kind, missing[0].allowed.as_ref()),
        (Kind::Missing, None)
    );
    assert_eq!(
        missing[0].title,
        format!("expected in the log, but absent: `{title}`")
    );
    let other = judge(
        &oops(1),
        &Expectations::none().allow(Matcher::Kind(Kind::Oom), "small guest"),
    );
    assert_eq!(other[0].allowed, None);
}

#[test]
fn a_declaration_needs_a_reason_and_a_rule_that_exists() {
    assert!(
        Expectations::none()
            .allow(Matcher::Kind(Kind::Oom), " ")
            .verify()
            .is_err()
    );
    assert!(
        Expectations::none()
            .allow(Matcher::Rule("oomm".into()), "x")
            .verify()
            .is_err()
    );
    assert!(
        Expectations::none()
            .allow(Matcher::Rule("oom".into()), "x")
            .verify()
            .is_ok()
    );
}

#[test]
fn an_allowed_warning_does_not_excuse_the_panic_it_led_to() {
    let line = |n, text: &str| Record::kmsg(n, 0, 4, Duration::from_millis(n), text);
    let log = [
        line(
            1,
            "WARNING: CPU: 0 PID: 9 at fs/vexfs/inode.c:7 vexfs_evict+0x4c/0x90 [vexfs]",
        ),
        line(2, "---[ end trace 0000000000000000 ]---"),
        line(3, "Kernel panic - not syncing: panic_on_warn set ..."),
    ];
    let known = Expectations::none().allow(Matcher::Rule("warning".into()), "known");
    let seen = judge(&log, &known);
    assert_eq!(found(&seen)[0].3, ["kernel panic: panic_on_warn set .."]);
    assert_eq!(seen[0].severity, Severity::Fatal);
    assert_eq!(seen[0].allowed, None);
    let both = known.allow(Matcher::Kind(Kind::Panic), "so set");
    assert_eq!(judge(&log, &both)[0].allowed.as_deref(), Some("known"));
    assert_eq!(judge(&log[..2], &both)[0].allowed.as_deref(), Some("known"));
}

#[test]
fn machine_events_are_findings_or_consequences() {
    let panicked = Record::event(MachineEvent::GuestPanicked);
    let silent = judge(std::slice::from_ref(&panicked), &Expectations::none());
    assert_eq!(
        (silent[0].title.as_str(), silent[0].kind),
        ("guest panicked", Kind::Panic)
    );
    let mut log = oops(1);
    log.push(panicked);
    let spoken = judge(&log, &Expectations::none());
    assert_eq!(spoken.len(), 1);
    assert_eq!(spoken[0].followed_by[0].title, "guest panicked");
    for event in [MachineEvent::GuestReset, MachineEvent::WatchdogFired] {
        assert_eq!(
            judge(&[Record::event(event)], &Expectations::none()).len(),
            1,
            "{event:?}"
        );
    }
}

#[test]
fn the_console_goes_on_where_kmsg_ends() {
    let mut log: Vec<Record> = (1..100)
        .map(|n| Record::kmsg(n, 0, 6, Duration::from_millis(n * 10), "virtio_net: fine"))
        .collect();
    let forged = "[    0.500123] BUG: kernel NULL pointer dereference, address: 0000000000000010";
    log.push(Record::console(forged));
    assert!(
        judge(&log, &Expectations::none()).is_empty(),
        "kmsg knows of no such line"
    );
    log.push(Record::console(
        "[    1.500123] Kernel panic - not syncing: Fatal exception",
    ));
    assert_eq!(
        judge(&log, &Expectations::none())[0].title,
        "kernel panic: Fatal exception"
    );
    // A gap in kmsg's numbers is a time of which it knows nothing.
    log.retain(|record| {
        let lost = record
            .at
            .is_some_and(|at| (400..600).contains(&at.as_millis()));
        !(lost && matches!(record.origin, super::Origin::Kmsg { .. }))
    });
    let seen = judge(&log, &Expectations::none());
    assert_eq!(seen[0].title, "BUG: NULL pointer dereference");
    assert_eq!(seen[0].followed_by.len(), 1);
}

/// The times of a first boot say nothing of a second one.
#[test]
fn a_second_boot_is_not_hidden_by_the_first() {
    let boot = |offset| (1..100u64).map(move |n| (n, Duration::from_millis(n * 10 + offset)));
    let fine = |(n, at)| Record::kmsg(n, 0, 6, at, "virtio_net: fine");
    let mut log: Vec<Record> = boot(0).map(fine).collect();
    log.extend(boot(3).take(5).map(fine));
    let oops = "[    0.500123] BUG: kernel NULL pointer dereference, address: 0000000000000010";
    log.push(Record::console(oops));
    assert_eq!(judge(&log, &Expectations::none()).len(), 1);
    // The same stream read twice is one boot.
    let mut twice: Vec<Record> = boot(0).map(fine).collect();
    twice.extend(boot(0).map(fine));
    twice.push(Record::console(oops));
    assert!(judge(&twice, &Expectations::none()).is_empty());
    twice.insert(
        0,
        Record::console("[   20.000000] reboot: Restarting system"),
    );
    assert_eq!(judge(&twice, &Expectations::none()).len(), 1);
}

/// Linear time and bounded output, whatever a guest writes. The limits are wide: a debug build on a busy
/// machine takes a few seconds; what is quadratic takes hours.
#[test]
fn a_flood_is_judged_in_linear_time() {
    let long = format!("BUG: {}", "possible WARNING: CPU: 1 PID: ".repeat(200_000));
    let mut lines: Vec<String> = (0..20_000)
        .map(|n| format!("BUG: thing{n} went wrong: 0x{n:x}"))
        .collect();
    lines.extend((0..20_000).map(|n| format!("[ {n} ] a line of no interest at all, number {n}")));
    lines.extend((0..2_000).map(|_| "list_add corruption. ".repeat(100)));
    lines.push(long);
    let records: Vec<Record> = lines
        .iter()
        .zip(0..)
        .map(|(text, n)| Record::kmsg(n, 0, 4, Duration::from_micros(n), text))
        .collect();
    let begun = Instant::now();
    let seen = judge(&records, &Expectations::none());
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    assert!((1..=50).contains(&seen.len()), "{}", seen.len());
    for finding in &seen {
        assert!(finding.title.len() <= 200 && finding.followed_by.len() <= 50);
        assert!(finding.excerpt.iter().map(String::len).sum::<usize>() <= 60 * 300);
    }
}
