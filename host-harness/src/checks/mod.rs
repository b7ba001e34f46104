//! The checks: a table of plain data, and one file of stories per topic.
//!
//! A check is something that must hold of an image. Its row says what it is called, what it costs
//! and what kind of machine it needs; its story is a few lines that talk to a [`crate::lab::Guest`] and never
//! to QEMU. How machines come about is the [`Lab`]'s work, who judges is the runner's.

mod boot;
mod corners;
pub mod counts;
mod filesystem;
pub mod filter;
mod firstboot;
mod hardening;
mod inventory;
mod invitation;
mod limits;
mod load;
mod module;
mod performance;
mod proof;
mod secrets;
mod service;
mod signing;
mod smoke;
mod vexctl;
mod workbench;

use std::pin::Pin;
use std::time::Duration;

use image::{SigningRecord, SigningState, SourceConfig};
use kernel_log::{Expectations, Expected};
use results::Tier;
use serde::Serialize;

use crate::lab::{Failure, Lab};

/// What kind of machine a check works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// A booted, settled guest; how long ago it booted does not matter.
    Settled,
    /// Machines of its own, from power-on: the boot itself is what is checked.
    PowerOn,
}

/// The future of a story.
pub type Telling<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// One row of the registry.
#[derive(Clone, Copy)]
pub struct Check {
    /// Its name in reports and test filters; unique.
    pub name: &'static str,
    /// What must hold, as a sentence for a report.
    pub about: &'static str,
    /// How dear it is.
    pub tier: Tier,
    /// The machine it needs.
    pub start: Start,
    /// Longest time it may take on a settled guest under emulation, kept by the host; with the
    /// reduced counts of CI.
    pub deadline: Duration,
    /// The same with the nightly counts, where those take longer than that.
    pub nightly: Option<Duration>,
    /// What it does.
    pub story: for<'a> fn(&'a mut Lab) -> Telling<'a>,
    /// Capabilities of the file system it needs; where the source tree says that one is lacking
    /// (`lacks` in `vexfs-source.toml`), the check is skipped with that reason.
    pub needs: &'static [&'static str],
    /// The variants it is about; empty for all.
    pub variants: &'static [&'static str],
    /// Whether it is about a kernel that takes only modules signed by a key it trusts; on any other it
    /// is skipped, with the reason the build has noted.
    pub enforced: bool,
    /// What the second judge may or must find while it runs. Whatever else it finds counts against
    /// the check.
    pub expects: &'static [Expected],
}

impl Check {
    /// Longest time it may take in this process, by what it is to count.
    pub fn deadline(&self) -> Duration {
        match (counts::Scale::of_environment(), self.nightly) {
            (Ok(counts::Scale::Whole), Some(nightly)) => nightly,
            _ => self.deadline,
        }
    }

    /// Its name in test filters and reports, on the image of a variant.
    pub fn case_name(&self, variant: &str) -> String {
        format!("{variant}::{}::{}", self.tier, self.name)
    }

    /// Whether it says anything about images of this variant.
    pub fn is_about(&self, variant: &str) -> bool {
        self.variants.is_empty() || self.variants.contains(&variant)
    }

    /// Why it cannot be asked of this image, as far as that is known beforehand.
    pub fn skip_reason(&self, source: &SourceConfig, signing: &SigningRecord) -> Option<String> {
        if self.enforced && signing.state != SigningState::Enforced {
            return Some(format!(
                "module signing is {}: {}",
                signing.state, signing.reason
            ));
        }
        let lacking = self.needs.iter().find(|need| source.lacks(need))?;
        Some(format!("{} says it lacks {lacking}", source.name))
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("tier", &self.tier)
            .finish()
    }
}

impl Check {
    /// What it declares to the second judge.
    pub fn expectations(&self) -> Expectations {
        Expectations::declared(self.expects)
    }
}

/// A row: name, what must hold, tier, start, deadline in seconds, story; then what is unusual
/// about it, as `field: value`.
macro_rules! checks {
    ($($name:literal $about:literal $tier:ident $start:ident $deadline:literal $story:path
       $(, $field:ident: $value:expr)*;)*) => {
        &[$({
            #[allow(unused_mut, reason = "most rows are quite usual")]
            let mut check = Check {
                name: $name,
                about: $about,
                tier: Tier::$tier,
                start: Start::$start,
                deadline: Duration::from_secs($deadline),
                nightly: None,
                story: |lab| Box::pin($story(lab)),
                needs: &[],
                variants: &[],
                enforced: false,
                expects: &[],
            };
            $(check.$field = $value;)*
            check
        }),*]
    };
}

/// All checks, in the order in which they are reported.
pub const REGISTRY: &[Check] = checks! {
    "settles" "boots to a settled system with no failed unit"
        BootOnly PowerOn 180 boot::settles;
    "boots_twice" "boots the same twice from the untouched image"
        Quick PowerOn 360 boot::boots_twice;
    "power_cycle" "what was written is there, and mounted, after a reboot and after a power-off"
        Full PowerOn 360 boot::power_cycle, needs: &["persistence"];
    "uninvited_silence" "without the credential nothing listens"
        Quick PowerOn 180 invitation::uninvited_silence;
    "stranger_refused" "an unprivileged user inside the guest is refused by the agent"
        Quick Settled 60 invitation::stranger_refused;
    "wrong_secret_refused" "a host that does not know the secret is refused"
        Quick Settled 60 invitation::wrong_secret_refused;
    "module_load" "the module loads and shows its version"
        Quick Settled 60 module::load;
    "module_unload" "the module unloads with nothing new in the kernel log"
        Quick Settled 60 module::unload;
    "mkfs_mount" "a fresh file system mounts and unmounts"
        Quick Settled 60 filesystem::mkfs_mount;
    "write_remount_compare" "what was written is there after a remount"
        Quick Settled 120 filesystem::write_remount_compare, needs: &["persistence"];
    "space_returns" "what deleted files took is free again"
        Quick Settled 60 filesystem::space_returns, needs: &["free-space"];
    "vexctl_status" "vexctl shows its version and the status of a mount"
        Quick Settled 60 vexctl::status;
    "udev" "udev knows a disk with the file system, by its UUID and label too"
        Quick Settled 60 corners::udev, needs: &["vexfs-format"];
    "service" "vexfs.service starts, mounts and stops"
        Quick Settled 90 service::mounts_and_stops, needs: &["persistence"];
    "fio_verify" "fio reads back what it wrote"
        Quick Settled 180 load::fio_verify, needs: &["persistence"];
    "stress" "a short stress-ng run leaves a healthy file system"
        Quick Settled 180 load::stress;
    "enospc" "a full disk says so, and all room is free again when everything is deleted"
        Full Settled 120 limits::enospc;
    "many_names" "ten thousand names in a directory are all found again"
        Full Settled 180 limits::many_names;
    "sparse_file" "a sparse file over 4 GiB keeps its data and its holes"
        Full Settled 60 limits::sparse_file;
    "deep_paths" "a path longer than PATH_MAX survives a remount"
        Full Settled 60 limits::deep_paths;
    "rename_storm" "sixteen processes rename in one tree, and no name is lost or doubled"
        Full Settled 300 limits::rename_storm;
    "module_reload" "the module is loaded, used and unloaded again and again on a busy system"
        Full Settled 290 limits::module_reload;
    "mount_cycles" "mounts and unmounts again and again under load, and what was written stays"
        Full Settled 1200 filesystem::mount_cycles, needs: &["persistence"];
    "pjdfstest" "no case of pjdfstest fails that passes on ext4 in the same guest"
        Full Settled 240 proof::pjdfstest;
    "fsx" "fsx finds the file as it left it, with mmap and direct I/O, for several seeds"
        Full Settled 240 proof::fsx, needs: PERSISTENCE, nightly: minutes(50);
    "fio_modes" "fio reads back what it wrote: sequential and random, buffered, direct and mapped, and after a remount"
        Full Settled 240 proof::fio_modes, needs: PERSISTENCE, nightly: minutes(20);
    "stress_filesystem" "all of stress-ng's file system stressors leave a healthy file system and a silent kernel"
        Full Settled 240 proof::stress_filesystem, nightly: minutes(10);
    "power_cut" "after a power cut at any moment everything that was fsynced is there, and the file system is sound"
        Full PowerOn 280 proof::power_cut, needs: &["crash-safety"], nightly: minutes(55);
    "metadata_fuzz" "damaged metadata is answered with errors, never with an oops or a hang"
        Full Settled 240 proof::metadata_fuzz, needs: &["vexfs-format"], nightly: minutes(40), expects: proof::DAMAGED;
    "fsck_damage" "fsck finds every planted damage and repairs it"
        Full Settled 240 proof::fsck_damage, needs: &["vexfs-format"], nightly: minutes(10);
    "search_exact" "search finds what a brute force on the host finds, to the last bit"
        Full Settled 240 proof::search_exact, needs: &["vectors"], nightly: minutes(20);
    "posix_corners" "system calls hardly anybody makes end as they should"
        Full Settled 120 corners::posix, needs: &["vexfs-format"];
    "mount_corners" "options, remounts, a freeze and /sys do as they are told"
        Full Settled 120 corners::mount, needs: &["vexfs-format"], expects: corners::REFUSED;
    "errors_option" "damage gives an error, then what errors= says; fsck repairs it"
        Full Settled 120 corners::errors_option, needs: &["vexfs-format"], expects: corners::DAMAGED;
    "errors_panic" "damage panics the kernel of a mount with errors=panic, and nothing but the damage is left"
        Full PowerOn 120 corners::errors_panic, needs: &["vexfs-format"];
    "performance" "fio and search cost no more beside ext4 than they did on this kind of host"
        Full PowerOn 600 performance::beside_the_stored;
    "no_secrets" "no password, key or token is in the image"
        Quick Settled 120 secrets::none_in_the_image;
    "inventory" "what is declared is there, and nothing that is not: packages, units, ports, SUID files, users"
        Quick Settled 120 inventory::declared;
    "no_leftovers" "nothing of the build is left"
        Quick Settled 120 inventory::no_leftovers;
    "journal_clean" "the boot's journal has no errors"
        Quick Settled 60 inventory::journal;
    "boots_uefi" "the same disk boots under UEFI"
        Full PowerOn 240 firstboot::boots_uefi;
    "first_boot_keys" "two machines of one image differ in machine id, host keys and random seed"
        Full Settled 240 firstboot::first_boot_keys;
    "clock" "the clock is right after a boot without network"
        Full PowerOn 180 firstboot::clock;
    "disk_grows" "on a larger disk the root file system is larger"
        Full PowerOn 240 firstboot::disk_grows;
    "seeded" "a NoCloud seed is carried out once"
        Full PowerOn 240 firstboot::seeded;
    "sysctls" "the kernel is set as the variant says"
        Quick Settled 60 hardening::sysctls, variants: &["production", "testing"];
    "hardened_access" "nobody gets in as root, nobody by a password"
        Quick Settled 60 hardening::access, variants: PRODUCTION;
    "hardened_network" "a neighbour reaches SSH and nothing else"
        Quick Settled 120 hardening::firewall, variants: PRODUCTION;
    "hardened_mounts" "what users can write to holds no devices, setuid files or programs"
        Quick Settled 60 hardening::mounts, variants: PRODUCTION;
    "security_updates" "security fixes come by themselves, and no kernel among them"
        Quick Settled 60 hardening::updates, variants: PRODUCTION;
    "kernel_update" "with a newer kernel package installed, VexFS still mounts after the next start"
        Full PowerOn 300 hardening::kernel_update, variants: PRODUCTION;
    "module_signing" "the kernel is locked down and refuses a module that is not signed, or not any more"
        Quick Settled 60 signing::module_signing, variants: PRODUCTION, enforced: true, expects: signing::UNSIGNED;
    "audit" "changes to configuration are on record"
        Quick Settled 60 hardening::audit, variants: PRODUCTION;
    "logs_bounded" "logs are kept, bounded and rotated"
        Quick Settled 90 hardening::logs, variants: PRODUCTION;
    "metrics" "Prometheus gets the numbers of a mounted file system"
        Quick Settled 60 hardening::metrics, variants: PRODUCTION;
    "security_score" "systemd-analyze finds our services little exposed"
        Quick Settled 120 hardening::score, variants: PRODUCTION;
    "debug_info" "the module tells a debugger where it is in its source"
        Quick Settled 60 workbench::debug_info, variants: DEVELOPMENT;
    "module_builds" "the module builds in the image without network"
        Full Settled 900 workbench::module_builds, variants: DEVELOPMENT;
    "vexctl_builds" "vexctl's tests pass in the image without network"
        Full Settled 3000 workbench::vexctl_builds, variants: DEVELOPMENT;
};

const DEVELOPMENT: &[&str] = &["development"];
const PERSISTENCE: &[&str] = &["persistence"];
const PRODUCTION: &[&str] = &["production"];

pub use smoke::SMOKE;

/// A deadline with nightly counts.
const fn minutes(minutes: u64) -> Option<Duration> {
    Some(Duration::from_secs(minutes * 60))
}

/// The check of this name.
pub fn find(name: &str) -> Option<&'static Check> {
    REGISTRY
        .iter()
        .chain([SMOKE])
        .find(|check| check.name == name)
}

/// The checks a run of this tier includes, of those whose name contains `pattern`.
pub fn selected<'a>(tier: Tier, pattern: &'a str) -> impl Iterator<Item = &'static Check> + 'a {
    REGISTRY
        .iter()
        .filter(move |check| check.tier <= tier && check.name.contains(pattern))
}

/// Names of the checks without which an image of this variant is not good: all of the tier, at least `quick`,
/// that are about it.
pub fn required(variant: &str, tier: Tier) -> Vec<&'static str> {
    selected(tier.max(Tier::Quick), "")
        .filter(|check| check.is_about(variant))
        .map(|check| check.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_test_filter() {
        let all = REGISTRY.iter().chain([SMOKE]);
        let mut names: Vec<_> = all.map(|c| c.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a name is registered twice");
        for name in names {
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_declared_can_be_meant() {
        for check in REGISTRY {
            assert_eq!(check.expectations().verify(), Ok(()), "{}", check.name);
        }
    }

    #[test]
    fn tiers_contain_each_other() {
        let count = |tier| selected(tier, "").count();
        assert!(count(Tier::BootOnly) >= 1);
        assert!(count(Tier::BootOnly) < count(Tier::Quick));
        assert!(count(Tier::Quick) <= count(Tier::Full));
        assert_eq!(count(Tier::Full), REGISTRY.len());
    }

    #[test]
    fn what_is_required_is_at_least_quick_and_about_the_variant() {
        let quick = required("minimal", Tier::Quick);
        assert_eq!(required("minimal", Tier::BootOnly), quick);
        let beyond = |names: &[&str]| names.iter().any(|name| !quick.contains(name));
        assert!(
            beyond(&required("minimal", Tier::Full)),
            "the full checks have not run"
        );
        assert!(
            beyond(&required("production", Tier::Quick)),
            "production has checks of its own"
        );
    }
}
