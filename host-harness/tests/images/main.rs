//! The checks of each image as nextest cases, each on a machine of its own; for every check a case
//! that breaks what it guards and sees it go red; the fault gallery, and the gallery of hosts.

mod dossier;
mod fault;
mod gallery;
mod host;
mod kernels;
mod red;
mod schema;

use std::sync::Arc;

use host_harness::checks::{self, Check};
use host_harness::dossier::Policy;
use host_harness::lab::{Break, Setup};
use host_harness::runner;
use image::{Image, SigningRecord, SourceConfig};
use image_builder::{BuildRequest, ToolsRequest};
use libtest_mimic::{Arguments, Failed, Trial};
use machine::{Host, HostRequest};
use results::{CaseResult, Layout, Outcome};

/// The variant that is built when no image exists.
const DEFAULT: &str = "minimal";

fn main() {
    machine::hook();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [host::PLAYER, row] => return host::player(row).expect("plays"),
        [host::HOLDER] => return host::hold().expect("holds"),
        _ => {}
    }
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for variant in variants() {
        let source = source(&variant);
        for check in checks::REGISTRY.iter().filter(|c| c.is_about(&variant)) {
            let name = check.case_name(&variant);
            let variant = variant.clone();
            let trial = Trial::test(name, move || passes(&variant, check));
            // nextest shows what a test skips at run time as passed, so it must be known here.
            let reason = source.as_ref();
            trials.push(
                match reason.and_then(|(s, signing)| check.skip_reason(s, signing)) {
                    None => trial,
                    Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
                },
            );
        }
    }
    let there = variants();
    for case in red::CASES {
        let trial = Trial::test(format!("red::{}", case.name), move || red::turns_red(case));
        let variant = case.variant();
        trials.push(match there.iter().any(|one| one == variant) {
            true => trial,
            false => trial
                .with_kind(format!("no image of {variant} to break"))
                .with_ignored_flag(true),
        });
    }
    for (name, test) in dossier::TESTS {
        trials.push(Trial::test(format!("dossier::{name}"), *test));
    }
    for (name, test) in kernels::TESTS {
        trials.push(Trial::test(format!("nightly::{name}"), *test));
    }
    trials.push(Trial::test(
        "schema::what_vexctl_says_fits",
        schema::what_vexctl_says_fits,
    ));
    trials.push(Trial::test(
        "red::every_check_has_a_case",
        red::every_check_has_a_case,
    ));
    trials.push(Trial::test(
        "red::one_panic_leaves_the_others_alone",
        red::one_panic_leaves_the_others_alone,
    ));
    for fault in fault::FAULTS {
        trials.push(Trial::test(format!("fault::{}", fault.name), move || {
            fault::shows(fault)
        }));
    }
    trials.push(Trial::test(
        "fault::the_readme_is_true",
        fault::the_readme_is_true,
    ));
    trials.push(Trial::test(
        "fault::every_source_is_used",
        fault::every_source_is_used,
    ));
    for row in host::ROWS {
        let tier = if row.nightly { "nightly_host" } else { "host" };
        trials.push(Trial::test(format!("{tier}::{}", row.name), move || {
            host::shows(row)
        }));
    }
    trials.push(Trial::test(
        "host::the_readme_is_true",
        host::the_readme_is_true,
    ));
    libtest_mimic::run(&arguments, trials).exit();
}

/// The variants with an image, and the default one, which is built on the spot.
fn variants() -> Vec<String> {
    let mut found: Vec<String> = layout()
        .ok()
        .and_then(|layout| std::fs::read_dir(layout.images()).ok())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("manifest.json").is_file())
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_prefix("vexfs-")?.split('-').next()?.to_owned())
        })
        .chain([DEFAULT.to_owned()])
        .collect();
    found.sort();
    found.dedup();
    found
}

/// What the variant's image says of the file system in it; of the tree it will be built from when
/// there is no image yet. `None` when neither can be read: the checks will say why.
fn source(variant: &str) -> Option<(SourceConfig, SigningRecord)> {
    let layout = layout().ok()?;
    match Image::find(&layout.out, variant).ok()? {
        Some(image) => Some((image.manifest.source.config, image.manifest.signing)),
        None => {
            let config = SourceConfig::of_tree(&layout.workspace.join("vexfs")).ok()?;
            Some((config, SigningRecord::default()))
        }
    }
}

fn layout() -> Result<Layout, Failed> {
    Layout::find(None).map_err(Failed::from)
}

/// The check must pass. What it did is printed either way: nextest keeps it in its report.
fn passes(variant: &str, check: &'static Check) -> Result<(), Failed> {
    let result = run(variant, check, Vec::new(), Policy::from_env()?)?;
    show(&result);
    match &result.outcome {
        Outcome::Pass => Ok(()),
        failed => {
            let (kind, title, detail) = failed.failure();
            let dossier = result.dossier.as_ref();
            let dossier = dossier.map(|dir| format!("\nDossier: {}", dir.display()));
            let dossier = dossier.unwrap_or_default();
            Err(format!("{kind}: {title}{dossier}\n{detail}").into())
        }
    }
}

/// Runs one check on the variant's image, with something broken on purpose or not.
fn run(
    variant: &str,
    check: &'static Check,
    breaks: Vec<Break>,
    dossiers: Policy,
) -> Result<CaseResult, Failed> {
    block_on(async {
        let setup = setup(variant, breaks, dossiers).await?;
        Ok::<_, Failed>(runner::run_check(&Arc::new(setup), check).await)
    })
}

fn block_on<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

async fn setup(variant: &str, breaks: Vec<Break>, dossiers: Policy) -> Result<Setup, Failed> {
    let layout = layout()?;
    let host = Host::probe(&layout.cache, HostRequest::default()).await?;
    // Whoever comes first builds; the builder's lock makes the others wait and find it done.
    let image = find_or_build(&layout, &host, variant).await?;
    Ok(Setup {
        breaks,
        dossiers,
        ..setup_of(layout, host, image).await?
    })
}

async fn find_or_build(layout: &Layout, host: &Host, variant: &str) -> Result<Image, Failed> {
    Ok(match Image::find(&layout.out, variant)? {
        Some(image) => image,
        None => {
            let request = BuildRequest {
                variant: variant.to_owned(),
                out_dir: layout.out.clone(),
                cache_dir: layout.cache.clone(),
                accelerator: host.accel.chosen.to_string(),
                ..BuildRequest::new(&layout.workspace)
            };
            image_builder::build(&request, &()).await?
        }
    })
}

/// What checks of an image need, with nothing to break.
async fn setup_of(layout: Layout, host: Host, image: Image) -> Result<Setup, Failed> {
    let tools = ToolsRequest {
        full: true,
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        ..ToolsRequest::new(&layout.workspace)
    };
    let tools = image_builder::tools_disk(&tools, &()).await?;
    Ok(Setup::new(layout, host, image, tools))
}

fn show(result: &CaseResult) {
    println!(
        "{}: {:?} in {:.1} s",
        result.case,
        result.outcome,
        result.took.as_secs_f64()
    );
    for (name, value) in &result.properties {
        println!("{name}: {value}");
    }
    if let Some(dossier) = &result.dossier {
        println!("dossier: {}", dossier.display());
    }
    println!("{}", result.transcript);
    eprintln!("{}", result.kernel_log);
}
