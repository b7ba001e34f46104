//! Where the time of a boot went: from files of `perf run`, else from the console of a check that boots.

use serde::Serialize;

use results::figures::Record;

/// One boot.
#[derive(Debug, Clone, Serialize)]
pub struct Boot {
    /// The image's variant.
    pub image: String,
    /// `bios`, `uefi` or `direct`.
    pub firmware: String,
    /// Who measured it.
    pub from: String,
    /// The kind of host.
    pub host: String,
    /// One after the other, from power-on.
    pub stages: Vec<Stage>,
    /// The units that took longest.
    pub units: Vec<Unit>,
}

/// A part of a boot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// What it is.
    pub name: String,
    /// When it began, in seconds since power-on.
    pub start: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// A unit's part of a boot.
#[derive(Debug, Clone, Serialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// When it began, in seconds since the kernel's start.
    pub start: f64,
    /// How long until it was up, in seconds.
    pub seconds: f64,
}

/// The boots of a file of `perf run`.
pub(super) fn of_measured(measured: &Record) -> Vec<Boot> {
    let boots = measured.waterfall.iter().map(|boot| {
        let mut start = 0.0;
        let stages = boot.stages.iter().map(|stage| {
            let this = Stage {
                name: stage.name.clone(),
                start,
                seconds: stage.seconds,
            };
            start += stage.seconds;
            this
        });
        Boot {
            image: boot.image.clone(),
            firmware: boot.firmware.clone(),
            from: format!("perf run of {}", measured.time),
            host: measured.fingerprint.host.label(),
            stages: stages.collect(),
            units: boot
                .units
                .iter()
                .map(|unit| Unit {
                    name: unit.name.clone(),
                    start: unit.start,
                    seconds: unit.seconds,
                })
                .collect(),
        }
    });
    boots.collect()
}

/// What the console shows when a stage begins, and the stage. The console has the host's clock.
const MARKS: &[(&str, &str)] = &[
    ("firmware", ""),
    ("loader", "Welcome to GRUB"),
    ("kernel", "] Linux version "),
    ("initramfs", "] Run /init as init process"),
    ("user space", "running in system mode"),
];
/// What it shows when all is up; the last of them counts.
const OVER: &[&str] = &[
    "Reached target multi-user.target",
    "Reached target graphical.target",
];
/// The check whose console is read.
pub(super) const CHECK: &str = "settles";

/// The boot that the check [`CHECK`] saw. `None` when its console does not tell.
pub(super) fn of_console(image: &str, host: &str, console: &str) -> Option<Boot> {
    let firmware = match console.contains("SeaBIOS") {
        true => "bios",
        false => "uefi",
    };
    let mut stages: Vec<Stage> = Vec::new();
    let mut lines = console.lines();
    for (name, mark) in MARKS {
        let start = match *mark {
            "" => 0.0,
            mark => time(lines.find(|line| line.contains(mark))?)?,
        };
        if let Some(last) = stages.last_mut() {
            last.seconds = start - last.start;
        }
        stages.push(Stage {
            name: (*name).to_owned(),
            start,
            seconds: 0.0,
        });
    }
    let over = |line: &&str| OVER.iter().any(|mark| line.contains(mark));
    let end = time(console.lines().rev().find(over)?)?;
    let last = stages.last_mut()?;
    if end <= last.start {
        return None;
    }
    last.seconds = end - last.start;
    Some(Boot {
        image: image.to_owned(),
        firmware: firmware.to_owned(),
        from: format!(
            "the console of the check {CHECK}; `vexfs-images perf run` measures units too"
        ),
        host: host.to_owned(),
        stages,
        units: Vec::new(),
    })
}

/// The host's clock at the head of a console line: `[     4.885] …`.
fn time(line: &str) -> Option<f64> {
    let (time, _) = line.strip_prefix('[')?.split_once(']')?;
    time.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\
[     0.102] SeaBIOS (version 1.16)
[     0.337] Welcome to GRUB!
[     4.885] [    0.000000] Linux version 6.1.0
[     7.548] [    2.434627] Run /init as init process
[     8.703] [    3.589501] systemd[1]: systemd 252 running in system mode (+PAM)
[    20.100] [   15.0] systemd[1]: Reached target graphical.target - Graphical Interface.
[    29.615] [   24.500671] reboot: Power down
";

    #[test]
    fn a_console_tells_the_stages() {
        let boot = of_console("minimal", "here", CONSOLE).expect("a boot");
        let rows: Vec<(&str, f64, f64)> = boot
            .stages
            .iter()
            .map(|s| {
                (
                    s.name.as_str(),
                    s.start,
                    (s.seconds * 1000.0).round() / 1000.0,
                )
            })
            .collect();
        let expected = [
            ("firmware", 0.0, 0.337),
            ("loader", 0.337, 4.548),
            ("kernel", 4.885, 2.663),
            ("initramfs", 7.548, 1.155),
            ("user space", 8.703, 11.397),
        ];
        assert_eq!(rows, expected);
        assert_eq!(boot.firmware, "bios");
        // A boot that got stuck is no boot.
        let stuck: String = CONSOLE.lines().take(4).map(|l| format!("{l}\n")).collect();
        assert!(of_console("minimal", "here", &stuck).is_none());
    }
}
