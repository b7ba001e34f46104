//! The workflow files of GitHub and GitLab, by their own linters; and that the linters would notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;

use super::{Row, workspace};

pub const TESTS: &[Row] = &[
    ("are_clean", are_clean),
    ("mistakes_are_noticed", mistakes_are_noticed),
    ("call_the_two_commands", call_the_two_commands),
];

const GITHUB: &str = ".github/workflows/images.yml";
const GITLAB: &str = ".gitlab-ci.yml";

/// A linter of `ci/python-tools`: what it reads, its program and its arguments before the file.
const LINTERS: &[(&str, &str, &[&str])] = &[
    (GITHUB, "actionlint", &[]),
    (
        GITHUB,
        "check-jsonschema",
        &["--builtin-schema", "vendor.github-workflows"],
    ),
    (GITHUB, "zizmor", &["--offline", "--no-progress", "--quiet"]),
    (
        GITLAB,
        "check-jsonschema",
        &["--builtin-schema", "vendor.gitlab-ci"],
    ),
];

/// Which linter must notice a mistake, and the mistake: a text of the file and what it becomes.
const MISTAKES: &[(usize, &str, &str)] = &[
    (0, "github.ref_type ==", "github.reff_type =="),
    (1, "runs-on:", "run-on:"),
    (2, "persist-credentials: false", "fetch-depth: 1"),
    (
        2,
        "@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2",
        "@v4",
    ),
    (3, "when: always", "when: allways"),
];

/// What a linter says of a file; an error when it is not content.
fn lint((_, program, arguments): &(&str, &str, &[&str]), file: &Path) -> Result<(), Failed> {
    let tools =
        std::env::var_os("VEXFS_TOOLS").map_or(workspace().join("out/tools"), PathBuf::from);
    let program = tools.join("python/bin").join(program);
    let output = Command::new(&program)
        .args(*arguments)
        .arg(file)
        .output()
        .map_err(|error| format!("{}: {error}: run ci/setup", program.display()))?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{}", said.concat());
    match output.status.success() {
        true => Ok(()),
        false => Err(said.concat().into()),
    }
}

fn are_clean() -> Result<(), Failed> {
    LINTERS
        .iter()
        .try_for_each(|linter| lint(linter, &workspace().join(linter.0)))
}

fn mistakes_are_noticed() -> Result<(), Failed> {
    for (linter, right, wrong) in MISTAKES {
        let linter = &LINTERS[*linter];
        let text = fs::read_to_string(workspace().join(linter.0))?;
        assert!(text.contains(right), "{} does not say `{right}`", linter.0);
        let dir = tempfile::tempdir()?;
        let file = dir.path().join(linter.0);
        fs::create_dir_all(file.parent().ok_or("no folder")?)?;
        fs::write(&file, text.replacen(right, wrong, 1))?;
        if lint(linter, &file).is_ok() {
            return Err(format!("{} does not notice `{wrong}`", linter.1).into());
        }
    }
    Ok(())
}

/// Whatever a service adds around them: what runs is what runs everywhere.
fn call_the_two_commands() -> Result<(), Failed> {
    for file in [GITHUB, GITLAB] {
        let text = fs::read_to_string(workspace().join(file))?;
        for command in ["ci/test", "ci/pipeline --variants all"] {
            assert!(text.contains(command), "{file} does not run `{command}`");
        }
    }
    Ok(())
}
