//! The image holds what is declared of its variant, and nothing that is not: `declared/*.toml` says
//! what, and the manifest which packages.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::lab::{Failure, Lab, line_difference};

/// What every image has, and what single variants add and take away.
const ALL: &str = include_str!("declared/all.toml");
const VARIANTS: &[(&str, &str)] = &[
    ("minimal", include_str!("declared/minimal.toml")),
    ("development", include_str!("declared/development.toml")),
    ("testing", include_str!("declared/testing.toml")),
    ("production", include_str!("declared/production.toml")),
];

/// What is declared of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Declared {
    units: BTreeSet<String>,
    listening: BTreeSet<String>,
    suid: BTreeSet<String>,
    users: BTreeSet<String>,
    logins: BTreeSet<String>,
    programs: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// What a variant changes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Delta {
    with: Declared,
    without: Declared,
}

/// One kind of thing: what to call it, what is declared, and the script that lists what there is.
type Kind = (
    &'static str,
    fn(&mut Declared) -> &mut BTreeSet<String>,
    &'static str,
);

/// What is compared both ways.
const KINDS: &[Kind] = &[
    (
        "enabled unit",
        |declared| &mut declared.units,
        "systemctl --root=/ list-unit-files --state=enabled --plain --no-legend | awk '{print $1}'",
    ),
    (
        "listening port",
        |declared| &mut declared.listening,
        "ss -H -tuln | awk '{n = split($5, part, \":\"); print $1, part[n]}'",
    ),
    (
        "SUID or SGID file",
        |declared| &mut declared.suid,
        "find / -xdev -type f -perm /6000",
    ),
    (
        "user",
        |declared| &mut declared.users,
        "cut -d: -f1 /etc/passwd",
    ),
    (
        "user with a login shell",
        |declared| &mut declared.logins,
        "awk -F: '$7 !~ /(nologin|false)$/ {print $1}' /etc/passwd",
    ),
];

impl Declared {
    /// What is declared of a variant. One that no file speaks of has what all have.
    fn of(variant: &str) -> Result<Declared, toml::de::Error> {
        let mut declared: Declared = toml::from_str(ALL)?;
        let text = VARIANTS.iter().find(|(name, _)| *name == variant);
        let mut delta: Delta = toml::from_str(text.map_or("", |(_, text)| text))?;
        let fields = KINDS.iter().map(|(_, field, _)| *field);
        let others: [fn(&mut Declared) -> &mut BTreeSet<String>; 2] = [
            |declared| &mut declared.programs,
            |declared| &mut declared.files,
        ];
        for field in fields.chain(others) {
            let without = std::mem::take(field(&mut delta.without));
            let with = std::mem::take(field(&mut delta.with));
            let set = field(&mut declared);
            set.retain(|item| !without.contains(item));
            set.extend(with);
        }
        Ok(declared)
    }
}

/// Units, ports, SUID files and users are those declared; programs and files that are promised are
/// there; the packages are the manifest's.
pub async fn declared(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let manifest = lab.manifest();
    let mut declared = Declared::of(&manifest.variant)
        .map_err(|e| Failure::Ours(format!("checks/declared: {e}")))?;
    let mut wrong = Vec::new();
    // The guest has no end of processes to start under emulation: one shell for all lists.
    let lists: Vec<String> = KINDS
        .iter()
        .map(|(_, _, script)| format!("{script}; echo ==="))
        .collect();
    let text = guest.sh(&lists.join("\n")).await?;
    for ((what, field, _), list) in KINDS.iter().zip(text.split("===\n")) {
        let found: BTreeSet<String> = list.lines().map(|line| line.trim().to_owned()).collect();
        let declared = field(&mut declared);
        wrong.extend(
            found
                .difference(declared)
                .map(|item| format!("{what} {item} is not declared")),
        );
        wrong.extend(
            declared
                .difference(&found)
                .map(|item| format!("{what} {item} is missing")),
        );
    }
    let promised: Vec<_> = declared
        .programs
        .iter()
        .chain(&declared.files)
        .cloned()
        .collect();
    let missing = guest
        .sh(&format!(
            "for name in {}; do command -v \"$name\" >/dev/null || [ -e \"$name\" ] || echo \"$name\"; done",
            promised.join(" ")
        ))
        .await?;
    wrong.extend(
        missing
            .lines()
            .map(|name| format!("{name} is promised and missing")),
    );
    let packages = guest
        .sh("dpkg-query --show --showformat='${Package} ${Version} ${Architecture}\\n' | sort")
        .await?;
    let mut listed: Vec<_> = manifest
        .packages
        .iter()
        .map(|p| format!("{} {} {}", p.name, p.version, p.architecture))
        .collect();
    listed.sort();
    let difference = line_difference(&listed.join("\n"), &packages);
    wrong.extend(
        difference
            .lines()
            .map(|line| format!("package {line} (- the manifest, + the image)")),
    );
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(Failure::check(
            "inventory",
            format!("the image is not what is declared: {first}"),
            wrong.join("\n"),
        )),
    }
}

/// What the build needs on its way must print nothing here.
const LEFTOVERS: &[(&str, &str)] = &[
    (
        "package lists",
        "find /var/lib/apt/lists -type f ! -name lock",
    ),
    (
        "downloaded packages",
        "find /var/cache/apt -name '*.deb' -o -name '*.bin'",
    ),
    (
        "settings of the build",
        "find /etc/apt /etc/dpkg -name '*mmdebstrap*' -o -name 'vexfs-build'",
    ),
    (
        "old states of files",
        "find /etc /var/lib/dpkg -xdev -name '*.dpkg-*' -o -xdev -name '*.ucf-*' -o -xdev -name '*~' -o -xdev -path '/var/lib/dpkg/*-old'",
    ),
    (
        "temporary files",
        "find /tmp /var/tmp -mindepth 1 ! -path '/tmp/.*-unix' ! -path '*/systemd-private-*'",
    ),
    (
        "logs older than this machine",
        "find /var/log -type f -size +0 ! -newer /etc/machine-id",
    ),
    (
        "a bar to services",
        "find /usr/sbin -name policy-rc.d -o -name '*.REAL'",
    ),
    ("packages half installed", "dpkg --audit"),
    (
        "somebody's files",
        "find /root /home /srv /opt /mnt /media -mindepth 1 ! -name '.bashrc' ! -name '.profile' ! -path '/root/.ssh*'",
    ),
];

/// Nothing of the build is left.
pub async fn no_leftovers(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let mut left = Vec::new();
    for (what, scan) in LEFTOVERS {
        let output = guest.exec(["/bin/sh", "-uc", scan]).await?;
        let said = format!("{}{}", output.stdout_text(), output.stderr_text());
        if !said.trim().is_empty() {
            left.push(format!("{what}:\n{said}"));
        }
    }
    match left.first().and_then(|first| first.lines().next()) {
        None => Ok(()),
        Some(first) => Err(Failure::check(
            "leftovers",
            format!("the build left {}", first.trim_end_matches(':')),
            left.concat(),
        )),
    }
}

/// Nothing in the journal of the boot is an error; how long the boot took goes into the report.
pub async fn journal(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let errors = guest
        .sh("journalctl --boot --priority err --no-pager --quiet --output cat")
        .await?;
    let warnings = guest
        .sh("journalctl --boot --priority warning --no-pager --quiet --output cat | wc -l")
        .await?;
    lab.fact("journal-warnings", warnings.trim());
    // `Startup finished in 4.6s (kernel) + 10.2s (userspace) = 14.8s`, by the guest's own clock.
    let startup = guest.sh("systemd-analyze time | head -n 1").await?;
    lab.fact("time-to-settled", startup.trim());
    if errors.trim().is_empty() {
        return Ok(());
    }
    Err(Failure::check(
        "journal",
        format!(
            "the journal has errors: {}",
            errors.lines().next().unwrap_or_default()
        ),
        errors.clone(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_read_and_names_only_what_is_there_to_be_taken() {
        let all: Declared = toml::from_str(ALL).expect("all.toml");
        for (variant, text) in VARIANTS {
            let mut delta: Delta = toml::from_str(text).expect(variant);
            for (what, field, _) in KINDS {
                let mut all = all.clone();
                let gone: Vec<_> = field(&mut delta.without)
                    .difference(field(&mut all))
                    .cloned()
                    .collect();
                assert!(gone.is_empty(), "{variant}: {what} {gone:?}");
            }
        }
    }

    #[test]
    fn a_variant_adds_and_takes() {
        let production = Declared::of("production").expect("declared");
        assert!(production.units.contains("auditd.service"));
        assert!(!production.suid.contains("/usr/bin/mount"));
        assert!(production.suid.contains("/usr/bin/su"));
        assert_eq!(
            Declared::of("minimal").expect("one"),
            Declared::of("edge").expect("other")
        );
    }
}
