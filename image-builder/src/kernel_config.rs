//! What a module needs of a kernel, held against the kernel's own configuration.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::BuildError;

/// The file in the root of a source tree: a Kconfig fragment. A tree without one needs nothing.
pub(crate) const FILE: &str = "vexfs.config";

/// Checks the kernel whose headers are in the builder root against what the tree at `source` needs.
pub(crate) fn check(source: &Path, builder_root: &Path, release: &str) -> Result<(), BuildError> {
    let needs = source.join(FILE);
    if !needs.is_file() {
        return Ok(());
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(BuildError::io("read", path));
    let kernel = builder_root.join(format!("usr/src/linux-headers-{release}/.config"));
    let missing = missing(&read(&needs)?, &read(&kernel)?);
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
fn missing(fragment: &str, kernel: &str) -> Vec<String> {
    let has: BTreeMap<_, _> = options(kernel).collect();
    options(fragment)
        .filter_map(|(name, wanted)| {
            let has = has.get(name).copied().unwrap_or("n");
            let fine = has == wanted || (wanted == "m" && has == "y");
            (!fine).then(|| format!("{name}={wanted} is wanted, the kernel has {has}"))
        })
        .collect()
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
