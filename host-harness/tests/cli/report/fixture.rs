//! An `out/` as runs leave it, without machines: images without disks, verdicts, a dossier, figures and a
//! history; with hostile text wherever a guest can put some.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::report::history::{Figure, History, ImageMark, Run};
use host_harness::checks;
use host_harness::dossier::Facts;
use libtest_mimic::Failed;
use results::Outcome;
use results::dossier::{ImageFacts, Told, files};
use results::figures::Direction;
use results::figures::HostKind;
use results::stored;
use results::stored::Basis;
use results::{Attempt, CaseId, CaseResult, Part};
use serde_json::json;

/// What a guest would say to become part of the page.
pub const HOSTILE: &str = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2> \
     \"><svg onload=window.pwned=3> ' onmouseover='window.pwned=4 {{ 7*7 }} ]]> <!-- `${7*7}` | [x](javascript:window.pwned=5)";

/// The dossier of the failed check.
const DOSSIER: &str = "minimal-stress-0123456789";

/// The folder, and what is in it.
pub struct Out {
    dir: tempfile::TempDir,
}

impl Out {
    /// All of it.
    pub fn new() -> Result<Out, Failed> {
        let out = Out {
            dir: tempfile::tempdir()?,
        };
        for (variant, digit) in [("minimal", "a"), ("testing", "b")] {
            out.image(variant, digit)?;
        }
        out.verdicts()?;
        out.dossier()?;
        out.figures()?;
        out.history()?;
        Ok(out)
    }

    /// `out/`.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `out/reports`.
    pub fn reports(&self) -> PathBuf {
        self.path().join("reports")
    }

    fn image_dir(&self, variant: &str) -> PathBuf {
        self.path().join(format!("images/vexfs-{variant}-1.0.0"))
    }

    fn image(&self, variant: &str, digit: &str) -> Result<(), Failed> {
        let dir = self.image_dir(variant);
        fs::create_dir_all(&dir)?;
        let disk = format!("vexfs-{variant}-1.0.0.qcow2");
        let zst = format!("{disk}.zst");
        let stages = [
            ("base", 74.5),
            ("module", 17.2),
            ("image", 34.0),
            ("seal", 4.1),
        ];
        let manifest = json!({
            "schema": 1, "key": digit.repeat(64), "variant": variant, "vexfs_version": "1.0.0",
            "source_date_epoch": 0,
            "disk": {"name": disk, "bytes": 228_589_568, "sha256": digit.repeat(64)},
            "compressed": {"name": zst, "bytes": 63_246_439, "sha256": "c".repeat(64)},
            "kernel": {"series": "6.1", "release": "6.1.0-56-cloud-amd64",
                       "package": "linux-image-6.1.0-56-cloud-amd64", "version": "6.1.192-2"},
            "module": {"name": "vexfs.ko", "version": "1.0.0", "sha256": "d".repeat(64)},
            "source": {"sha256": "e".repeat(64), "commit": "0ee9fb35144ad5ae218ea616cae737b8d8da46a0"},
            "programs": {"vexctl": {"version": "1.0.0", "sha256": "f".repeat(64)}},
            "tools": {"packer": "1.6.6", "qemu-system-x86_64": "7.2.22"},
            "variables": {"image_variant": variant, "memory": "2048"},
            "packages": [{"name": "perl-base", "version": "5.36", "architecture": "amd64"}],
            "stages": stages.map(|(name, seconds)| json!({"name": name, "key": "k", "seconds": seconds})),
        });
        fs::write(dir.join("manifest.json"), manifest.to_string())?;
        fs::write(dir.join("SHA256SUMS"), "")?;
        Ok(fs::write(dir.join(disk), "no disk")?)
    }

    fn verdicts(&self) -> Result<(), Failed> {
        let host = [
            (
                "accelerator".to_owned(),
                "tcg (the processor shows neither vmx nor svm)".to_owned(),
            ),
            ("qemu".to_owned(), "7.2.22".to_owned()),
        ];
        for (variant, digit) in [("minimal", "a"), ("testing", "b")] {
            let basis: Basis = serde_json::from_value(json!({"image": digit.repeat(64)}))?;
            let about = checks::REGISTRY
                .iter()
                .filter(|check| check.is_about(variant));
            let results = about.map(|check| self.result(variant, check)).collect();
            stored::keep(&self.image_dir(variant), basis, &host, results)?;
        }
        Ok(())
    }

    fn result(&self, variant: &str, check: &checks::Check) -> CaseResult {
        let hostile = |text: &str| format!("{text} {HOSTILE}");
        let failed = (variant, check.name) == ("minimal", "stress");
        let outcome = match (variant, check.name) {
            ("minimal", "stress") => Outcome::fail(
                "oops",
                hostile("general protection fault"),
                hostile("The check itself says: it broke\n  | RIP: 0010"),
            ),
            ("testing", "service") => Outcome::Infrastructure {
                what: "no room left on the host".into(),
            },
            ("testing", "module_unload") => Outcome::Skip {
                reason: "vexfs says it lacks unloading".into(),
            },
            _ => Outcome::Pass,
        };
        let mut kernel_log = String::from(
            "<5>[    0.000000] Linux version 6.1.0\n<4>[    1.100000] vexfs: loading out-of-tree module taints kernel.\n",
        );
        let mut transcript = String::from("[    0.000] connect -> protocol version 1 (0.122 s)\n");
        if failed {
            kernel_log += &format!(
                "<3>[    2.500000] vexfs: {HOSTILE}\n<1>[    3.0] BUG: unable to handle page fault\n"
            );
            transcript += &format!(
                "[    0.4] exec stress-ng -> exited with code 1\n            | {HOSTILE}\n"
            );
        }
        let flaky = (variant, check.name) == ("testing", "stress");
        let earlier = flaky.then(|| Attempt {
            outcome: Outcome::fail("check", "not the first time", ""),
            transcript: String::new(),
            kernel_log: String::new(),
            dossier: None,
        });
        let part = |name: String, outcome| Part { name, outcome };
        CaseResult {
            case: CaseId::new(variant, check.tier, check.name),
            outcome,
            took: Duration::from_millis(2340),
            properties: vec![
                ("boot-id".into(), "b1b8d7ef".into()),
                (hostile("said"), hostile("value")),
                ("count-mount_cycles".into(), "25 of 500".into()),
                ("exposure-ssh.service".into(), "9.6 of 10".into()),
            ],
            transcript,
            kernel_log,
            parts: match failed {
                true => vec![
                    part("one".into(), Outcome::Pass),
                    part(hostile("two"), Outcome::fail("check", hostile("no"), "")),
                ],
                false => Vec::new(),
            },
            earlier: earlier.into_iter().collect(),
            dossier: failed.then(|| self.reports().join("dossiers").join(DOSSIER)),
        }
    }

    fn dossier(&self) -> Result<(), Failed> {
        let dossiers = self.reports().join("dossiers");
        let names = [
            (DOSSIER, "stress"),
            ("minimal-fio_verify-abcdef0123", "fio_verify"),
        ];
        for (name, check) in names {
            let dir = dossiers.join(name);
            fs::create_dir_all(&dir)?;
            let facts = Facts {
                subject: None,
                format: results::dossier::FORMAT,
                case: format!("minimal::quick::{check}"),
                variant: "minimal".into(),
                check: check.into(),
                about: "what is written can be read".into(),
                outcome: Told {
                    kind: "oops".into(),
                    title: format!("left by another run {HOSTILE}"),
                    detail: HOSTILE.into(),
                },
                first_finding: Some(format!("general protection fault {HOSTILE}")),
                oops: true,
                overran: false,
                written: 1_795_000_000,
                took_s: 3.5,
                deadline_s: 60.0,
                seed: 7,
                breaks: Vec::new(),
                properties: vec![("boot-id".into(), HOSTILE.into())],
                image: ImageFacts {
                    dir: self.image_dir("minimal"),
                    sha256: "a".repeat(64),
                },
                tools: PathBuf::from("/tools"),
                out: self.path().to_owned(),
                boot_deadline_s: 150.0,
                machines: Vec::new(),
            };
            fs::write(dir.join(files::FACTS), serde_json::to_vec(&facts)?)?;
            fs::write(dir.join(files::README), "# It failed\n")?;
            let console =
                format!("[     0.1] SeaBIOS\n[     4.8] [    2.500000] vexfs: {HOSTILE}\n");
            fs::write(dir.join(files::CONSOLE), console)?;
            fs::write(dir.join(files::OOPS), "RIP: vexfs_write at super.c:42\n")?;
            fs::write(
                dir.join(files::KERNEL_LOG),
                format!("<3>[    2.500000] vexfs: {HOSTILE}\n"),
            )?;
        }
        Ok(())
    }

    fn figures(&self) -> Result<(), Failed> {
        let metric = |name: &str,
                      subject: &str,
                      unit: &str,
                      better: &str,
                      samples: [f64; 3],
                      spread: [f64; 2]| {
            let peer = (subject != "vexfs").then_some("vexfs");
            let [p50, p99] = spread;
            json!({"name": name, "subject": subject, "unit": unit, "direction": better, "samples": samples,
                   "peer_of": peer, "percentiles": (p99 > 0.0).then(|| json!({"p50": p50, "p99": p99}))})
        };
        let file = json!({
            "schema": 1, "time": "2026-11-20T12:00:00Z",
            "fingerprint": {"cpu": "Example 9000", "cores": 2, "accelerator": "tcg", "vsock": "user", "qemu": "7.2.22",
                "host_kernel": "6.1", "guest_kernel": "6.1.0-56-cloud-amd64", "image_sha256": "a".repeat(64), "variant": "minimal"},
            "metrics": [
                metric("fio/seq_read", "ext4", "MB/s", "higher", [310.0, 300.0, 320.0], [0.0, 0.0]),
                metric("fio/seq_read", "xfs", "MB/s", "higher", [290.0, 280.0, 305.0], [0.0, 0.0]),
                metric("fio/seq_read", "vexfs", "MB/s", "higher", [250.0, 240.0, 262.0], [0.0, 0.0]),
                metric("fio/fsync", "ext4", "ms", "lower", [2.1, 2.0, 2.4], [1.9, 9.0]),
                metric("fio/fsync", "vexfs", "ms", "lower", [3.4, 3.3, 3.9], [3.1, 14.0]),
                metric("agent/round_trip", "vexfs", "ms", "lower", [0.4, 0.41, 0.5], [0.4, 1.2]),
            ],
            "waterfall": [{"image": "minimal", "firmware": "bios",
                "stages": [{"name": "firmware", "seconds": 0.4}, {"name": "loader", "seconds": 4.5},
                    {"name": "kernel", "seconds": 2.6}, {"name": "initramfs", "seconds": 1.2}, {"name": "user space", "seconds": 7.1}],
                "units": [{"name": format!("systemd-udev-settle.service {HOSTILE}"), "start": 4.0, "seconds": 3.1},
                    {"name": "vexfs.service", "start": 6.0, "seconds": 2.2}]}],
        });
        let dir = self.reports().join("perf");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("first.json"), file.to_string())?;
        Ok(fs::write(dir.join("broken.json"), "{")?)
    }

    fn history(&self) -> Result<(), Failed> {
        let history = History::open(&self.path().join("history.redb"))?;
        let sizes = |kernel: u64| {
            BTreeMap::from([
                ("linux-image-6.1.0-56-cloud-amd64".to_owned(), kernel),
                ("perl-base".to_owned(), 10_660_000),
                ("coreutils".to_owned(), 6_780_000),
                ("systemd".to_owned(), 6_750_000),
                ("libssl3".to_owned(), 5_400_000),
                (format!("odd {HOSTILE}"), 4_000_000),
            ])
        };
        let mut now = sizes(92_730_000);
        now.insert("brand-new".into(), 3_000_000);
        now.extend((0..60).map(|n| (format!("small-{n}"), 100_000)));
        history.keep_sizes(&"a".repeat(64), &now)?;
        history.keep_sizes(&"b".repeat(64), &now)?;
        let mut before = sizes(90_000_000);
        before.insert("gone".into(), 2_500_000);
        history.keep_sizes(&"9".repeat(64), &before)?;
        for n in 0..24_u64 {
            // Slower from the thirteenth run on.
            let seconds = 4.0 + 0.03 * ((n * 7) % 5) as f64 + if n >= 12 { 2.0 } else { 0.0 };
            let figure = |series: &str, value: f64, of_host: bool| Figure {
                series: series.into(),
                unit: if of_host { "s" } else { "MiB" }.into(),
                better: Direction::Lower,
                value,
                of_host,
            };
            history.add(&Run {
                at_ms: (1_794_000_000 + n * 3600) * 1000,
                what: "checks".into(),
                host: HostKind {
                    cpu: format!("Example 9000 {HOSTILE}"),
                    cores: if n == 23 { 64 } else { 2 },
                    accelerator: "tcg".into(),
                    vsock: "user".into(),
                    qemu: "7.2.22".into(),
                    host_kernel: "6.1".into(),
                },
                images: vec![ImageMark {
                    variant: "minimal".into(),
                    version: "1.0.0".into(),
                    sha256: "9".repeat(64),
                    commit: None,
                }],
                outcomes: vec![(
                    "minimal::quick::stress".into(),
                    if n % 6 == 5 { "fail" } else { "pass" }.into(),
                )],
                figures: vec![
                    figure("minimal::quick::stress", seconds, true),
                    figure(
                        "minimal::quick::fio_verify",
                        7.0 + 0.1 * ((n * 3) % 7) as f64,
                        true,
                    ),
                    figure("minimal: size of the disk", 218.0, false),
                ],
            })?;
        }
        Ok(())
    }
}
