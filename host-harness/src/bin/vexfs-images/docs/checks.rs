//! `docs/checks.md`

use host_harness::checks::{Check, REGISTRY, SMOKE, Start};
use results::Tier;

#[test]
fn the_page_says_what_the_registry_says() {
    let mut page = super::made_from("host-harness/src/checks/mod.rs");
    page += "# Checks\n\n\
             A check works on a fork of a booted, settled guest, or boots machines of its own (`boots`). Its deadline\n\
             is in seconds under emulation and counts what the host gave the machine; the second is the one with\n\
             nightly counts. `needs` are capabilities: where the source tree says in `vexfs-source.toml` that it\n\
             lacks one, the check is skipped with that reason. A tier includes those before it.\n";
    for (tier, about) in [
        (Tier::BootOnly, "that it comes up"),
        (Tier::Quick, "what takes minutes"),
        (Tier::Full, "everything"),
    ] {
        let rows = REGISTRY.iter().filter(|check| check.tier == tier);
        page += &format!("\n## {tier}: {about} ({})\n\n", rows.clone().count());
        page += "| check | what must hold | machine | deadline | needs | only in |\n|---|---|---|---|---|---|\n";
        rows.for_each(|check| page += &row(check));
    }
    page += "\n## Outside the tiers\n\n\
             `try` and `bisect` tell this story first; it is asked with the module that was just built.\n\n\
             | check | what must hold | machine | deadline | needs | only in |\n|---|---|---|---|---|---|\n";
    page += &row(SMOKE);
    super::holds("checks.md", &page);
}

fn row(check: &Check) -> String {
    let machine = match check.start {
        Start::Settled => "fork",
        Start::PowerOn => "boots",
    };
    let nightly = check.nightly.map(|limit| format!(" ({})", limit.as_secs()));
    let kernel = check.enforced.then_some("kernels that enforce signatures");
    let only: Vec<&str> = check.variants.iter().copied().chain(kernel).collect();
    format!(
        "| `{}` | {} | {machine} | {}{} | {} | {} |\n",
        check.name,
        check.about,
        check.deadline.as_secs(),
        nightly.unwrap_or_default(),
        check.needs.join(", "),
        only.join(", "),
    )
}
