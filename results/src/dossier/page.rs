//! The page for people: what was checked, expected and seen, and how to go on.

use std::fmt::Write;

use super::{Facts, Left, files};
use crate::clock::utc;

/// How many lines of the failure's detail are on the page; `dossier.json` has all.
const DETAIL: usize = 25;

/// `README.md` of a dossier in the folder `dir`, as a user would name that folder.
pub fn page<Made>(facts: &Facts<Made>, dir: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    render(&mut out, facts, dir).unwrap_or_default();
    out
}

fn render<Made>(out: &mut String, facts: &Facts<Made>, dir: &str) -> std::fmt::Result {
    let when = utc(facts.written);
    writeln!(out, "# {}: {}\n", facts.case, word(facts))?;
    writeln!(
        out,
        "Written {when}, after {:.1} s (deadline {:.0} s).\n",
        facts.took_s, facts.deadline_s
    )?;
    writeln!(out, "**What was checked.** {}.\n", sentence(&facts.about))?;
    writeln!(
        out,
        "**What was expected.** That this holds, within {:.0} s, and that the guest's kernel says \
         nothing of trouble meanwhile.\n",
        facts.deadline_s
    )?;
    match facts.outcome.title.as_str() {
        "" => writeln!(out, "**What was seen.** That it holds.\n")?,
        title => writeln!(out, "**What was seen.** {}\n", one_line(title))?,
    }
    let lines: Vec<&str> = facts.outcome.detail.lines().collect();
    if !lines.is_empty() {
        writeln!(out, "```text")?;
        for line in lines.iter().take(DETAIL) {
            // A fence in what the guest said would end ours.
            writeln!(out, "{}", line.replace("```", "'''"))?;
        }
        if lines.len() > DETAIL {
            let rest = lines.len() - DETAIL;
            writeln!(out, "… {rest} more lines in {}", files::FACTS)?;
        }
        writeln!(out, "```\n")?;
    }
    match &facts.first_finding {
        Some(title) => writeln!(out, "**First kernel finding.** {}\n", one_line(title))?,
        None => writeln!(out, "**First kernel finding.** None.\n")?,
    }
    if !facts.breaks.is_empty() {
        writeln!(
            out,
            "**Broken on purpose.** A test wanted to see this check fail:\n"
        )?;
        for broken in &facts.breaks {
            let script = one_line(&broken.script);
            writeln!(out, "- at `{}`: `{script}`", broken.point)?;
        }
        writeln!(out)?;
    }
    go_on(out, facts, dir)?;
    contents(out, facts)?;
    writeln!(out, "## Facts\n")?;
    for (name, value) in &facts.properties {
        writeln!(out, "- {name}: {}", one_line(value))?;
    }
    Ok(())
}

fn go_on<Made>(out: &mut String, facts: &Facts<Made>, dir: &str) -> std::fmt::Result {
    writeln!(out, "## How to go on\n")?;
    writeln!(out, "```sh")?;
    let frozen = facts.machines.iter().any(|m| m.left == Left::Frozen);
    let back = match frozen {
        true => "back in the failed machine, as it was",
        false => "boot what the failed machine left on its disk",
    };
    if !facts.machines.is_empty() {
        writeln!(out, "cargo images reopen {dir}   # {back}")?;
    }
    writeln!(
        out,
        "cargo images rerun {dir}   # the same check, image, machine and seed"
    )?;
    writeln!(out, "```\n")?;
    for machine in &facts.machines {
        let text = match &machine.left {
            Left::Frozen => "frozen while it ran".to_owned(),
            Left::Dump { why } => {
                format!("not frozen ({}); its memory was dumped", one_line(why))
            }
            Left::Disks { why } => format!("not frozen ({}); its disks are here", one_line(why)),
        };
        writeln!(out, "- {} ({}): {text}.", machine.folder, machine.id)?;
    }
    writeln!(
        out,
        "\nThe image is not in here: it is {} with SHA-256 {}.\n",
        facts.image.dir.display(),
        facts.image.sha256
    )
}

fn contents<Made>(out: &mut String, facts: &Facts<Made>) -> std::fmt::Result {
    writeln!(out, "## What is here\n")?;
    let mut rows = vec![
        (files::CONSOLE, "the serial console"),
        (files::KERNEL_LOG, "what the kernel said"),
        (
            files::TRANSCRIPT,
            "what the agent was asked, when, and its answers",
        ),
    ];
    if facts.oops {
        rows.push((
            files::OOPS,
            "the kernel's report with source files and lines",
        ));
    }
    if facts.overran {
        let what = "traces and registers from when the deadline had passed";
        rows.push((files::LAST_WORDS, what));
    }
    if facts.subject.is_some() {
        let what = "the module that was tried in the place of the image's own";
        rows.push((files::MODULE, what));
        rows.push((files::MODULE_DEBUG, "the same with its debug information"));
    }
    rows.push((files::IMAGE, "what the image was made of"));
    rows.push((files::FACTS, "all of this for programs"));
    for (name, what) in rows {
        writeln!(out, "- [{name}]({name}): {what}")?;
    }
    for machine in &facts.machines {
        let folder = &machine.folder;
        writeln!(
            out,
            "- [{folder}/]({folder}): QEMU's command line ({}), its logs, the disks",
            files::ARGUMENTS
        )?;
    }
    writeln!(out)
}

fn word<Made>(facts: &Facts<Made>) -> &'static str {
    match facts.outcome.kind.as_str() {
        "pass" => "passed",
        "skip" => "was skipped",
        "infrastructure" => "could not run",
        _ => "failed",
    }
}

/// With a capital letter and without a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// What a guest can write must not make Markdown of its own.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('`', "'").replace('<', "‹").replace('>', "›")
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::super::{Broken, FORMAT, HasDisk, ImageFacts, MachineFacts, Told};
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Made {
        image: Option<String>,
        qemu: (u32, u32, u32),
    }

    impl HasDisk for Made {
        fn has_disk(&self) -> bool {
            self.image.is_some()
        }
    }

    type Facts = super::Facts<Made>;

    fn facts() -> Facts {
        let machine = |folder: &str, left| MachineFacts {
            folder: folder.into(),
            id: "0123456789".into(),
            made: Made {
                image: Some("/images/x.qcow2".into()),
                qemu: (7, 2, 22),
            },
            left,
        };
        let why = "the guest's kernel panicked".into();
        Facts {
            format: FORMAT,
            case: "minimal::quick::mkfs_mount".into(),
            variant: "minimal".into(),
            check: "mkfs_mount".into(),
            about: "a fresh file system mounts and unmounts".into(),
            outcome: Told {
                kind: "oops".into(),
                title: "BUG: NULL pointer dereference in <vexfs_fill_super>".into(),
                detail: "The check itself says: ``` no\n".to_owned() + &"line\n".repeat(40),
            },
            first_finding: Some("BUG: NULL pointer dereference in vexfs_fill_super".into()),
            oops: true,
            overran: true,
            written: 1_764_000_000,
            took_s: 2.345,
            deadline_s: 60.0,
            seed: 7,
            breaks: vec![Broken {
                point: "start".into(),
                script: "echo c\n  > /proc/sysrq-trigger".into(),
                files: Vec::new(),
            }],
            properties: vec![("boot-id".into(), "b".into()), ("seed".into(), "7".into())],
            subject: None,
            image: ImageFacts {
                dir: "/images".into(),
                sha256: "ab".repeat(32),
            },
            tools: "/tools.ext4".into(),
            out: "/out".into(),
            boot_deadline_s: 150.0,
            machines: vec![
                machine("machine-1", Left::Frozen),
                machine("machine-2", Left::Disks { why }),
            ],
        }
    }

    #[test]
    fn the_page_is_as_pinned() {
        let page = page(
            &facts(),
            "out/reports/dossiers/minimal-mkfs_mount-0123456789",
        );
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/dossier.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden, &page).expect("writes");
        }
        let pinned = std::fs::read_to_string(golden).expect("golden/dossier.md");
        assert_eq!(page, pinned);
    }

    #[test]
    fn facts_survive_their_file_and_name_what_is_missing() {
        let dir = tempfile::tempdir().expect("a folder");
        let facts = facts();
        let text = serde_json::to_vec(&facts).expect("JSON");
        std::fs::write(dir.path().join(files::FACTS), text).expect("writes");
        assert_eq!(Facts::read(dir.path()).expect("reads"), facts);
        // Who does not know what machines are made of reads the same.
        let other: super::Facts = super::Facts::read(dir.path()).expect("reads");
        assert_eq!(other.machines[0].made["qemu"][2], 22);
        assert_eq!(other.machines[1].left, facts.machines[1].left);
        let missing = facts.missing(dir.path()).expect("looks");
        assert_eq!(missing.len() + 1, facts.expected_files().len());
        for name in [
            "oops.txt",
            "last-words.txt",
            "machine-1/ram",
            "machine-2/qemu.args",
        ] {
            assert!(missing.contains(&name.into()), "{name}: {missing:?}");
        }
        for name in facts.expected_files() {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, "x").expect("writes");
        }
        assert_eq!(
            facts.missing(dir.path()).expect("looks"),
            [""; 0].map(std::path::PathBuf::from)
        );
        std::fs::write(dir.path().join(files::CONSOLE), "").expect("writes");
        std::fs::write(dir.path().join("machine-1/ram"), "").expect("writes");
        let missing = facts.missing(dir.path()).expect("looks");
        assert_eq!(missing, ["machine-1/ram"].map(std::path::PathBuf::from));
        std::fs::write(dir.path().join(files::FACTS), "{\"format\": 9}").expect("writes");
        let error = Facts::read(dir.path()).expect_err("another format");
        assert!(error.to_string().contains("format 9"), "{error}");
    }
}
