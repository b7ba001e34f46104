//! What a module needs of a kernel, held against the kernel's own configuration.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::BuildError;

/// The file in the root of a source tree: a Kconfig fragment. A tree without one needs nothing.
pub(crate) const FILE: &str = "vexfs.config";

/// Checks the kernel with the configuration `kernel` against what the tree at `source` needs.
pub(crate) fn check(source: &Path, kernel: &Path, release: &str) -> Result<(), BuildError> {
    let needs = source.join(FILE);
    if !needs.is_file() {
        return Ok(());
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(BuildError::io("read", path));
    let missing = missing(&read(&needs)?, &read(kernel)?);
    if missing.is_empty() {
        return Ok(());
    }
    Err(BuildError::KernelConfig {
        release: release.into(),
        needs,
        missing: missing.join("; "),
    })
}

/// What a fragment asks for and a kernel's configuration does not give, in the fragment's order.
pub(crate) fn missing(fragment: &str, kernel: &str) -> Vec<String> {
    let has: BTreeMap<_, _> = options(kernel).collect();
    options(fragment)
        .filter_map(|(name, wanted)| {
            let has = has.get(name).copied().unwrap_or("n");
            let fine = has == wanted || (wanted == "m" && has == "y");
            (!fine).then(|| format!("{name}={wanted} is wanted, the kernel has {has}"))
        })
        .collect()
}

/// A configuration with fragments over it: of an option said more than once the last word holds, in its
/// first place. What kbuild's merge_config.sh does; `make olddefconfig` then settles what follows. Only that a
/// module is wanted takes nothing built in away: [`missing`] would be content with it.
pub(crate) fn merge<'a>(base: &'a str, fragments: impl IntoIterator<Item = &'a str>) -> String {
    let mut values = BTreeMap::new();
    let mut order = Vec::new();
    for text in std::iter::once(base).chain(fragments) {
        for (name, value) in options(text) {
            match values.get(name) {
                None => order.push(name),
                Some(&"y") if value == "m" => continue,
                Some(_) => {}
            }
            values.insert(name, value);
        }
    }
    let line = |name: &&str| match values[*name] {
        "n" => format!("# {name} is not set\n"),
        value => format!("{name}={value}\n"),
    };
    order.iter().map(line).collect()
}

/// `CONFIG_A=y` and `# CONFIG_A is not set` lines.
fn options(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().map(str::trim).filter_map(|line| {
        let unset = line
            .strip_prefix("# ")
            .and_then(|rest| rest.strip_suffix(" is not set"))
            .map(|name| (name, "n"));
        unset
            .or_else(|| line.split_once('='))
            .filter(|(name, _)| name.starts_with("CONFIG_"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_fragments_win_and_nothing_else_changes() {
        let base =
            "# a comment\nCONFIG_A=y\nCONFIG_S=\"text\"\n# CONFIG_D is not set\nCONFIG_B=m\n";
        let one = "# CONFIG_A is not set\nCONFIG_N=3\n";
        let other = "CONFIG_N=4\nCONFIG_D=y\nCONFIG_D=m\n";
        assert_eq!(
            merge(base, [one, other]),
            "# CONFIG_A is not set\nCONFIG_S=\"text\"\nCONFIG_D=y\nCONFIG_B=m\nCONFIG_N=4\n"
        );
        assert_eq!(merge(&merge(base, []), []), merge(base, []));
    }

    #[test]
    fn built_in_serves_where_a_module_would() {
        let kernel =
            "# comment\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_S=\"text\"\n# CONFIG_D is not set\n";
        assert!(
            missing(
                "CONFIG_A=y\nCONFIG_A=m\nCONFIG_B=m\nCONFIG_S=\"text\"\n",
                kernel
            )
            .is_empty()
        );
        assert!(missing("# CONFIG_D is not set\n# CONFIG_E is not set\n", kernel).is_empty());
        assert_eq!(
            missing(
                "CONFIG_B=y\nCONFIG_D=m\n# CONFIG_A is not set\nCONFIG_E=y",
                kernel
            ),
            [
                "CONFIG_B=y is wanted, the kernel has m",
                "CONFIG_D=m is wanted, the kernel has n",
                "CONFIG_A=n is wanted, the kernel has y",
                "CONFIG_E=y is wanted, the kernel has n",
            ]
        );
    }
}
