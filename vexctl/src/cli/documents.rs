//! Completions and manual pages, made from the command line's own definition; JSON schemas.

use super::{Fsck, Mkfs, Vexctl};
use anyhow::Context;
use clap::CommandFactory;
use std::path::Path;

/// The commands that answer in JSON, and the schema of what they say.
pub const SCHEMAS: [(&str, &str); 8] = [
    ("config", include_str!("../../schema/config.json")),
    ("dump", include_str!("../../schema/dump.json")),
    ("fsck", include_str!("../../schema/fsck.json")),
    ("info", include_str!("../../schema/info.json")),
    ("mkfs", include_str!("../../schema/mkfs.json")),
    ("status", include_str!("../../schema/status.json")),
    ("vector-get", include_str!("../../schema/vector-get.json")),
    (
        "vector-search",
        include_str!("../../schema/vector-search.json"),
    ),
];

/// Writes a schema to stdout.
pub fn schema(command: &str) -> anyhow::Result<()> {
    let known = SCHEMAS.iter().find(|(name, _)| *name == command);
    let (_, schema) =
        known.context("there is no such schema: `vexctl schema --help` lists them")?;
    print!("{schema}");
    Ok(())
}

/// Writes completions to stdout.
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    clap_complete::generate(
        shell,
        &mut Vexctl::command(),
        "vexctl",
        &mut std::io::stdout(),
    );
    Ok(())
}

/// Writes vexctl(8), one page for each of its subcommands, mkfs.vexfs(8) and fsck.vexfs(8).
pub fn manual(into: &Path) -> anyhow::Result<()> {
    let write = |command: clap::Command, name: String| {
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(command)
            .title(name.clone())
            .section("8");
        man.render(&mut page).context("making a manual page")?;
        let path = into.join(format!("{name}.8"));
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let mut all = Vexctl::command();
    all.build();
    for command in all.get_subcommands() {
        let name = command.get_name().to_owned();
        if name != "help" {
            write(command.clone(), format!("vexctl-{name}"))?;
        }
    }
    write(Vexctl::command(), "vexctl".into())?;
    write(Mkfs::command(), "mkfs.vexfs".into())?;
    write(Fsck::command(), "fsck.vexfs".into())
}
