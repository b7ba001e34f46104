//! `vexfs-images build`

use std::path::PathBuf;
use std::time::Instant;

use ::report::{Recorder, TerminalReporter};
use clap::builder::PossibleValuesParser;
use futures_util::StreamExt;
use image::{Format, Image};
use image_builder::{BuildError, BuildRequest, KernelChoice, ModuleSigning, SourceChecks};
use machine::Host;
use results::{BuildEvent, Event, Layout, SharedReporters};

use crate::options::{Machines, Place, Telling, Usage};
use crate::validate::{self, Again};

/// What to build.
#[derive(Debug, Clone, clap::Args)]
pub struct What {
    /// Variants to build, separated by commas, or `all`
    #[arg(long, value_delimiter = ',', default_value = "minimal")]
    pub variants: Vec<String>,
    /// Version the images are labelled with
    #[arg(long, default_value = "1.0.0", value_parser = version)]
    pub vexfs_version: String,
    /// Kernel series
    #[arg(long, default_value = "6.1", value_parser = PossibleValuesParser::new(["6.1", "6.12"]))]
    pub kernel_version: String,
    /// Which kernel: the distribution's, one compiled from its source (presets in provision/kernel:
    /// plain, debug), or the first with the second beside it
    #[arg(
        long,
        default_value = "distribution",
        value_name = "distribution|source[:PRESET]|both[:PRESET]"
    )]
    pub kernel: KernelChoice,
    /// Sign modules with this private key (PEM); it is copied nowhere
    #[arg(long, value_name = "FILE", requires = "module_cert")]
    pub module_key: Option<PathBuf>,
    /// Its certificate (PEM); a kernel compiled from source trusts it
    #[arg(long, value_name = "FILE", requires = "module_key")]
    pub module_cert: Option<PathBuf>,
    /// VexFS source: a folder, a tarball, or a tag or commit of a git repository [default: the
    /// tree in the checkout]
    #[arg(long, value_name = "DIR|TARBALL|URL@REVISION")]
    pub vexfs_source: Option<PathBuf>,
    /// What the source must be: of a tarball's file, else of the tree as manifest.json has it
    #[arg(long, value_name = "sha256:DIGITS")]
    pub source_digest: Option<String>,
    /// The revision must be a tag that `git verify-tag` accepts
    #[arg(long)]
    pub verify_tag: bool,
    /// SSH keys that may have signed the tag (ssh-keygen(1)) [default: what git is set to trust]
    #[arg(long, value_name = "FILE", requires = "verify_tag")]
    pub allowed_signers: Option<PathBuf>,
    /// What to know about the source, instead of its own vexfs-source.toml
    #[arg(long, value_name = "FILE")]
    pub source_config: Option<PathBuf>,
    /// Debian mirror to build from [default: what the host's apt uses]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Build from the archive's state of a date: 2024-01-31, or 20240131T120000Z
    #[arg(long, value_name = "DATE", conflicts_with = "mirror")]
    pub snapshot_date: Option<String>,
    /// Archive of past states: {date} stands for the date, {archive} for debian and debian-security
    /// [default: Debian's own, snapshot.debian.org]
    #[arg(long, value_name = "URL", requires = "snapshot_date")]
    pub snapshot_mirror: Option<String>,
    /// Keyring that the mirror is signed with [default: Debian's, from debian-archive-keyring]
    #[arg(long, value_name = "FILE")]
    pub keyring: Option<PathBuf>,
    /// Forms of the image besides qcow2, separated by commas: raw, vmdk (AWS), vhd (Azure), gcp
    /// (Google), oci (containers)
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    pub format: Vec<Format>,
    /// Variants at once; see [`Args`] and `ci`.
    #[arg(skip)]
    pub at_once: Option<usize>,
    /// What finished stages and downloaded packages may take on disk, like 16G
    #[arg(long, value_name = "SIZE", env = "VEXFS_CACHE_CAP", default_value = "16G", value_parser = size)]
    pub cache_cap: u64,
    /// Memory of the machine that is provisioned, in MiB [default: what the variant says]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..=1_048_576))]
    pub memory: Option<u32>,
    /// Virtual size of the disk, like 8G [default: what the variant says]
    #[arg(long, value_name = "SIZE")]
    pub disk_size: Option<String>,
    /// First line: root's password, or better the hash `openssl passwd -6` makes of it [default: root is locked]
    #[arg(long, value_name = "FILE")]
    pub root_password_file: Option<PathBuf>,
    /// Public SSH keys that let root in [default: nobody's]
    #[arg(long, value_name = "FILE")]
    pub authorized_keys: Option<PathBuf>,
    /// Debian mirror the image itself is set to use, beside its -security [default: Debian's own]
    #[arg(long, value_name = "URL")]
    pub image_mirror: Option<String>,
    /// Sign the checksums with this SSH key
    #[arg(long, value_name = "KEY")]
    pub sign: Option<PathBuf>,
    /// Leave out the test stage inside the guest
    #[arg(long)]
    pub no_testing: bool,
    /// Say why each stage ran
    #[arg(long)]
    pub explain: bool,
    #[command(flatten)]
    pub telling: Telling,
}

/// Options of `build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
    #[command(flatten)]
    again: Revalidate,
    /// Variants that are built side by side [default, also without N: one more than processors, if
    /// memory allows]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0")]
    parallel: Option<usize>,
    /// Do not boot and check the images afterwards
    #[arg(long)]
    no_validation: bool,
    /// Also make the disk with the tools of the full checks, which otherwise the first of them does
    #[arg(long)]
    tools: bool,
}

/// Whether what has passed before is checked again.
#[derive(Debug, Clone, clap::Args)]
pub struct Revalidate {
    /// Run the checks even if they passed on this very image before
    #[arg(long)]
    revalidate: bool,
}

impl Revalidate {
    /// The rule that follows from it.
    pub fn rule(&self) -> Again {
        if self.revalidate {
            Again::Always
        } else {
            Again::IfChanged
        }
    }
}

/// Builds, then validates (quick).
pub async fn run(mut args: Args) -> anyhow::Result<u8> {
    args.what.at_once = args.parallel;
    let layout = args.place.layout()?;
    let host = args.machines.host(&layout).await?;
    let terminal = TerminalReporter::new(args.what.telling.verbose, args.what.explain);
    let recorder = Recorder::new(&layout, host_harness::host::kind_of(&host));
    let reporters = SharedReporters::new(vec![Box::new(terminal), Box::new(recorder)]);
    reporters.emit(&Event::RunStarted {
        facts: host.facts(),
    });
    let begin = Instant::now();
    let built = images(&layout, &host, &args.what, !args.no_validation, &reporters).await?;
    for image in &built.images {
        println!("{}", image.disk.display());
    }
    if args.tools {
        validate::tools(&layout, true, &reporters).await?;
    }
    let mut code = 0;
    if args.no_validation || built.images.is_empty() {
        reporters.emit(&Event::RunFinished {
            seconds: begin.elapsed().as_secs_f64(),
        });
    } else {
        code = validate::judge(
            &layout,
            &host,
            built.images.clone(),
            &validate::Which::default(),
            args.again.rule(),
            &reporters,
        )
        .await?;
    }
    built.error().map_or(Ok(code), Err)
}

/// What came of building several variants.
#[derive(Debug, Default)]
pub struct Built {
    /// The images.
    pub images: Vec<Image>,
    /// Variants without one, and why.
    pub failures: Vec<(String, BuildError)>,
}

impl Built {
    /// All failures in one error.
    pub fn error(mut self) -> Option<anyhow::Error> {
        let lines: Vec<String> = self
            .failures
            .iter()
            .map(|(v, e)| format!("  {v}: {e}"))
            .collect();
        let (variant, first) = self.failures.pop()?;
        let said = match lines.len() {
            1 => format!("image {variant} was not built"),
            n => format!("{n} images were not built:\n{}\nthe last", lines.join("\n")),
        };
        Some(anyhow::Error::new(first).context(said))
    }
}

/// Builds every variant asked for, some side by side: what is common to them is made once, and the
/// others wait for it. One that fails does not stop the others.
pub async fn images(
    layout: &Layout,
    host: &Host,
    what: &What,
    validation: bool,
    reporters: &SharedReporters,
) -> anyhow::Result<Built> {
    let variants = variants(layout, &what.variants)?;
    let at_once = at_once(what, variants.len());
    let one = |variant: String| async move {
        let request = request(layout, host, what, &variant, validation);
        let progress = |step: &BuildEvent| {
            reporters.emit(&Event::Build {
                variant: variant.clone(),
                step: step.clone(),
            });
        };
        let made = async {
            let image = image_builder::build(&request, &progress).await?;
            if let Some(key) = &what.sign {
                image_builder::sign(&image.dir, key).await?;
            }
            Ok(image)
        };
        let made = made.await;
        if let Err(error) = &made {
            // Not only in the end: the others may take long.
            let text = format!("not built: {error}");
            progress(&BuildEvent::Note { text });
        }
        (variant, made)
    };
    let mut built = Built::default();
    // As they end, so that a long one holds up none that waits.
    let mut results: Vec<_> = futures_util::stream::iter(variants.clone().into_iter().map(one))
        .buffer_unordered(at_once)
        .collect()
        .await;
    results.sort_by_key(|(variant, _)| variants.iter().position(|asked| asked == variant));
    for (variant, result) in results {
        match result {
            Ok(image) => built.images.push(image),
            Err(error) => built.failures.push((variant, error)),
        }
    }
    Ok(built)
}

/// Memory that one build takes beside Packer's machine, in MiB: compilers, compression.
const BESIDE_THE_MACHINE_MIB: u64 = 1024;

/// How many variants are built side by side. One build does not keep a processor busy from beginning to
/// end (Packer's machine waits, and trees are read with one thread), so one more than there are processors.
fn at_once(what: &What, variants: usize) -> usize {
    let asked = what.at_once.filter(|n| *n > 0);
    let memory = u64::from(what.memory.unwrap_or(2048)) + BESIDE_THE_MACHINE_MIB;
    let fitting = available_mib().map_or(1, |mib| mib / memory);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let sensible = (processors + 1).min(usize::try_from(fitting).unwrap_or(processors));
    asked.unwrap_or(sensible).clamp(1, variants.max(1))
}

/// Memory that is free for us, in MiB.
fn available_mib() -> Option<u64> {
    use procfs::Current;
    let available = procfs::Meminfo::current().ok()?.mem_available?;
    Some(available >> 20)
}

/// A size like `16G`, in bytes.
fn size(word: &str) -> Result<u64, String> {
    image_builder::parse_size(word).ok_or_else(|| format!("`{word}` is no size like 16G"))
}

fn request(
    layout: &Layout,
    host: &Host,
    what: &What,
    variant: &str,
    validation: bool,
) -> BuildRequest {
    let defaults = BuildRequest::new(&layout.workspace);
    BuildRequest {
        variant: variant.to_owned(),
        vexfs_version: what.vexfs_version.clone(),
        kernel_version: what.kernel_version.clone(),
        kernel: what.kernel.clone(),
        module_signing: what
            .module_key
            .clone()
            .zip(what.module_cert.clone())
            .map(|(key, certificate)| ModuleSigning { key, certificate }),
        source: what
            .vexfs_source
            .clone()
            .unwrap_or_else(|| defaults.source.clone()),
        source_checks: SourceChecks {
            digest: what.source_digest.clone(),
            signed_tag: what.verify_tag,
            allowed_signers: what.allowed_signers.clone(),
            config: what.source_config.clone(),
        },
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        cache_cap: what.cache_cap,
        mirror: what.mirror.clone(),
        snapshot_date: what.snapshot_date.clone(),
        snapshot_mirror: what.snapshot_mirror.clone(),
        keyring: what.keyring.clone(),
        formats: what.format.iter().copied().collect(),
        image_security_mirror: what
            .image_mirror
            .as_ref()
            .map_or(defaults.image_security_mirror.clone(), |mirror| {
                format!("{}-security", mirror.trim_end_matches('/'))
            }),
        image_mirror: what
            .image_mirror
            .clone()
            .unwrap_or_else(|| defaults.image_mirror.clone()),
        root_password_file: what.root_password_file.clone(),
        authorized_keys: what.authorized_keys.clone(),
        accelerator: host.accel.chosen.to_string(),
        memory_mib: what.memory,
        disk_size: what.disk_size.clone(),
        enable_testing: !what.no_testing,
        enable_validation: validation,
        verbose: what.telling.verbose,
        ..defaults
    }
}

/// The variants meant, `all` spelled out.
fn variants(layout: &Layout, words: &[String]) -> anyhow::Result<Vec<String>> {
    if words != ["all"] {
        return Ok(words.to_vec());
    }
    let dir = layout.workspace.join("packer/variants");
    let entries = std::fs::read_dir(&dir).map_err(|e| {
        Usage(format!(
            "cannot list the variants in {}: {e}",
            dir.display()
        ))
    })?;
    let mut all: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            Some(
                entry
                    .file_name()
                    .to_str()?
                    .strip_suffix(".pkrvars.hcl")?
                    .to_owned(),
            )
        })
        .collect();
    all.sort();
    Ok(all)
}

/// A version number, with or without a leading `v`.
pub fn version(word: &str) -> Result<String, String> {
    let word = word.strip_prefix('v').unwrap_or(word);
    let numeric = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let release = word.split(['-', '+']).next().unwrap_or_default();
    let fine = word
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
    if fine && release.split('.').count() == 3 && release.split('.').all(numeric) {
        Ok(word.to_owned())
    } else {
        Err(format!("`{word}` is no version like 1.0.0"))
    }
}
