//! Where a boot's time went, from what console, kernel log and systemd say. Pure.

use std::time::Duration;

use agent_protocol::message::KmsgRecord;
use machine::Line;
use results::figures::{Stage, UnitTime};

/// What the console says when firmware hands over to the disk's loader: SeaBIOS, OVMF, GRUB itself.
const LOADER_BEGINS: &[&str] = &[
    "Booting from Hard Disk",
    "BdsDxe: starting",
    "Welcome to GRUB",
];

/// How many of the slowest units are told.
const SLOWEST: usize = 12;

/// What was found out about a boot.
pub struct Clues<'a> {
    /// The console.
    pub console: &'a [Line],
    /// Host time at which the kernel's clock began, since power-on.
    pub kernel_began: Duration,
    /// The kernel log, from its beginning.
    pub kernel_log: &'a [KmsgRecord],
    /// `systemctl show` of the manager, its `…TimestampMonotonic`.
    pub manager: &'a str,
}

/// The stages from power-on to a settled system.
///
/// # Errors
/// A sentence, when systemd does not say when it began or ended.
pub fn stages(clues: &Clues<'_>) -> Result<Vec<Stage>, String> {
    let kernel_began = clues.kernel_began.as_secs_f64();
    let mut stages = Vec::new();
    let mut stage = |name: &str, from: f64, to: f64| {
        stages.push(Stage {
            name: name.into(),
            seconds: (to - from).max(0.0),
        });
    };
    let loader = clues.console.iter().find(|line| {
        let begins = |words: &&str| line.text.contains(*words);
        LOADER_BEGINS.iter().any(begins) && line.at < clues.kernel_began
    });
    match loader {
        Some(line) => {
            let at = line.at.as_secs_f64();
            stage("firmware", 0.0, at);
            stage("loader", at, kernel_began);
        }
        // A kernel that QEMU put into memory.
        None => stage("firmware", 0.0, kernel_began),
    }
    let moment = |name: &str| {
        property(clues.manager, name)
            .map(|us| us / 1e6)
            .filter(|seconds| *seconds > 0.0)
    };
    let user_space = moment("UserspaceTimestampMonotonic")
        .ok_or("systemd does not say when it began (UserspaceTimestampMonotonic)")?;
    let finish = moment("FinishTimestampMonotonic")
        .ok_or("systemd does not say when the boot was over (FinishTimestampMonotonic)")?;
    let init = clues.kernel_log.iter().find(|record| {
        record.is_kernel() && record.text.starts_with("Run /") && record.text.contains(" as init")
    });
    match init {
        Some(record) => {
            let at = record.time_us as f64 / 1e6;
            stage("kernel", 0.0, at);
            stage("initramfs", at, user_space);
        }
        None => stage("kernel", 0.0, user_space),
    }
    stage("user space", user_space, finish);
    Ok(stages)
}

/// The slowest units from `systemctl show '*' --property=Id,InactiveExitTimestampMonotonic,
/// ActiveEnterTimestampMonotonic`, in which an empty line ends a unit.
pub fn slowest_units(show: &str) -> Vec<UnitTime> {
    let mut units: Vec<UnitTime> = show
        .split("\n\n")
        .filter_map(|block| {
            let name = block.lines().find_map(|line| line.strip_prefix("Id="))?;
            // Devices come when the kernel finds them; slices, targets and scopes take no time.
            let works = [".service", ".mount", ".socket", ".swap"];
            works.iter().find(|end| name.ends_with(**end))?;
            let start = property(block, "InactiveExitTimestampMonotonic")? / 1e6;
            let up = property(block, "ActiveEnterTimestampMonotonic")? / 1e6;
            (start > 0.0 && up >= start).then(|| UnitTime {
                name: name.to_owned(),
                start,
                seconds: up - start,
            })
        })
        .collect();
    units.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    units.truncate(SLOWEST);
    units
}

fn property(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> String {
        let path = format!("{}/golden/perf/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// A console log as the harness writes it.
    fn console(name: &str) -> Vec<Line> {
        golden(name)
            .lines()
            .filter_map(|line| {
                let (at, text) = line.strip_prefix('[')?.split_once("] ")?;
                Some(Line {
                    at: Duration::from_secs_f64(at.trim().parse().ok()?),
                    text: text.to_owned(),
                })
            })
            .collect()
    }

    fn init() -> KmsgRecord {
        KmsgRecord {
            sequence: 1,
            time_us: 2_000_000,
            facility: 0,
            level: 6,
            continuation: '-',
            text: "Run /init as init process".into(),
            properties: String::new(),
        }
    }

    fn told(console_name: &str, began: f64) -> Vec<(String, f64)> {
        let clues = Clues {
            console: &console(console_name),
            kernel_began: Duration::from_secs_f64(began),
            kernel_log: &[init()],
            manager: &golden("systemctl-show-manager.txt"),
        };
        let stages = stages(&clues).expect("they are told");
        let rounded = |stage: Stage| (stage.name, (stage.seconds * 1e3).round() / 1e3);
        stages.into_iter().map(rounded).collect()
    }

    fn names(stages: &[(String, f64)]) -> Vec<&str> {
        stages.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_bios_boot_is_told_apart() {
        let stages = told("console-bios.log", 1.5);
        let all = ["firmware", "loader", "kernel", "initramfs", "user space"];
        assert_eq!(names(&stages), all);
        assert_eq!(stages[0].1, 0.128);
        assert_eq!(stages[1].1, 1.372);
        assert_eq!(stages[2].1, 2.0);
    }

    #[test]
    fn a_kernel_put_into_memory_has_no_loader() {
        let stages = told("console-direct.log", 0.5);
        assert_eq!(
            names(&stages),
            ["firmware", "kernel", "initramfs", "user space"]
        );
    }

    #[test]
    fn a_system_that_is_still_starting_is_an_error() {
        let clues = Clues {
            console: &[],
            kernel_began: Duration::ZERO,
            kernel_log: &[],
            manager: "UserspaceTimestampMonotonic=3000000\nFinishTimestampMonotonic=0\n",
        };
        assert!(stages(&clues).expect_err("refused").contains("Finish"));
    }

    #[test]
    fn the_slowest_units_come_first_and_those_that_never_started_do_not() {
        let units = slowest_units(&golden("systemctl-show-units.txt"));
        assert_eq!(units.len(), SLOWEST);
        assert!(units.windows(2).all(|two| two[0].seconds >= two[1].seconds));
        assert!(units.iter().all(|unit| unit.start > 0.0));
        assert!(
            units.iter().any(|unit| unit.name == "ssh.service"),
            "{units:?}"
        );
        assert!(
            slowest_units(
                "Id=a.service\nInactiveExitTimestampMonotonic=0\nActiveEnterTimestampMonotonic=0\n"
            )
            .is_empty()
        );
    }
}
