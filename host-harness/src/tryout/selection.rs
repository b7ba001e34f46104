//! Which checks matter for a module.

use results::Tier;

use crate::checks::filter::{self, Filter};
use crate::checks::{Check, REGISTRY, Start};

/// Quick checks that look at the image and its way in, and find the same whatever its module does. A
/// check that is not named here is asked.
const OF_THE_IMAGE: &[&str] = &[
    "stranger_refused",
    "wrong_secret_refused",
    "no_secrets",
    "inventory",
    "no_leftovers",
    "journal_clean",
    "sysctls",
    "hardened_access",
    "hardened_network",
    "hardened_mounts",
    "security_updates",
    "module_signing",
    "audit",
    "logs_bounded",
    "security_score",
];

/// Checks for a module.
#[derive(Debug)]
pub struct Selection {
    /// Those that are asked.
    pub checks: Vec<&'static Check>,
    /// Those that were meant but boot the image itself, and so would be about the image's own module.
    pub booting: Vec<&'static str>,
}

/// The checks for a module in images of `variant`: of the quick tier those that matter, with filters all
/// that they take, dear ones too.
pub fn select(variant: &str, filters: &[Filter]) -> Selection {
    let meant = |check: &&Check| match filters {
        [] => check.tier <= Tier::Quick && !OF_THE_IMAGE.contains(&check.name),
        filters => filter::takes(filters, check.name),
    };
    let about = REGISTRY.iter().filter(|check| check.is_about(variant));
    let (checks, booting): (Vec<_>, Vec<_>) = about
        .filter(meant)
        .partition(|check| check.start == Start::Settled);
    Selection {
        checks,
        booting: booting.iter().map(|check| check.name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_exists() {
        for name in OF_THE_IMAGE {
            let check = REGISTRY.iter().find(|check| check.name == *name);
            let check = check.unwrap_or_else(|| panic!("no check {name}"));
            assert!(check.tier <= Tier::Quick, "{name} is not asked anyway");
        }
    }

    #[test]
    fn the_quick_tier_is_what_uses_the_module() {
        let filters = |words: &[&str]| -> Vec<Filter> {
            let words = words.iter().map(|word| word.parse().expect("a filter"));
            words.collect()
        };
        let names = |words: &[&str]| -> Vec<&str> {
            let selection = select("minimal", &filters(words));
            selection.checks.iter().map(|check| check.name).collect()
        };
        assert!(names(&[]).contains(&"write_remount_compare"));
        assert!(!names(&[]).contains(&"inventory"));
        assert_eq!(names(&["enospc"]), ["enospc"]);
        assert_eq!(names(&["inventory"]), ["inventory"]);
        assert_eq!(
            names(&["test(=inventory)", "enospc"]),
            ["enospc", "inventory"]
        );
        assert_eq!(
            select("minimal", &filters(&["boots_twice"])).booting,
            ["boots_twice"]
        );
        assert!(names(&["no_such_check"]).is_empty());
    }
}
