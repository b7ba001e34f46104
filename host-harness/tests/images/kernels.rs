//! Kernels compiled from source, for real (nightly): what a kernel full of sanitizers finds that no other does,
//! and what one refuses that trusts a key.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use host_harness::checks;
use host_harness::lab::Setup;
use host_harness::runner;
use image::SigningState;
use image_builder::{BuildRequest, FaultsRequest, KernelChoice, ModuleSigning};
use libtest_mimic::Failed;
use machine::{Host, HostRequest};
use results::{CaseResult, Layout};

use super::fault::Fault;
use super::{block_on, layout, setup_of, show};

/// A test and its name.
pub type Row = (&'static str, fn() -> Result<(), Failed>);

pub const TESTS: &[Row] = &[
    ("kasan_finds_what_nobody_else_does", || {
        found(
            "slab_oob",
            ("kasan", "KASAN: slab-out-of-bounds Write in fault_init"),
        )
    }),
    ("kmemleak_finds_what_nobody_else_does", || {
        found(
            "kmalloc_forgotten",
            ("kmemleak", "memory leak in fault_forget"),
        )
    }),
    (
        "production_with_a_key_takes_signed_modules_only",
        signed_modules_only,
    ),
];

/// Builds an image of its own, beside the others, and what checks of it need.
async fn built(
    name: &str,
    request: impl FnOnce(BuildRequest) -> BuildRequest,
) -> Result<Setup, Failed> {
    let main = layout()?;
    let here = Layout::find(Some(&main.out.join("kernels").join(name)))?;
    let host = Host::probe(&here.cache, HostRequest::default()).await?;
    let request = request(BuildRequest {
        out_dir: here.out.clone(),
        cache_dir: here.cache.clone(),
        accelerator: host.accel.chosen.to_string(),
        ..BuildRequest::new(&here.workspace)
    });
    let image = image_builder::build(&request, &()).await?;
    setup_of(here, host, image).await
}

async fn run(setup: Setup, check: &str) -> Result<CaseResult, Failed> {
    let check = checks::find(check).ok_or("no such check")?;
    let result = runner::run_check(&Arc::new(setup), check).await;
    show(&result);
    Ok(result)
}

/// A fault that passes unseen on the distribution's kernel (`fault::…`) is told on one with sanitizers, and
/// without it nothing is.
fn found(fault: &'static str, (kind, title): (&str, &str)) -> Result<(), Failed> {
    let (clean, seen) = block_on(async {
        let setup = built("debug", |request| BuildRequest {
            kernel: KernelChoice::Source("debug".into()),
            ..request
        })
        .await?;
        instrumented(&setup)?;
        let faults = FaultsRequest {
            out_dir: setup.layout.out.clone(),
            cache_dir: setup.layout.cache.clone(),
            ..FaultsRequest::new(&setup.layout.workspace)
        };
        let made = image_builder::faults(&faults, &setup.image.manifest, &()).await?;
        let clean = run(setup.clone(), "mkfs_mount").await?;
        let fault = Fault::find(fault).ok_or("no such fault")?;
        let broken = Setup {
            breaks: vec![fault.as_break(&made)],
            ..setup
        };
        Ok::<_, Failed>((clean, run(broken, "mkfs_mount").await?))
    })?;
    if !clean.outcome.is_ok() {
        return Err(format!("without a fault: {:?}", clean.outcome).into());
    }
    match seen.outcome.failure() {
        (saw, of, _) if (saw, of) == (kind, title) => Ok(()),
        (saw, of, _) => Err(format!("expected {kind} `{title}`, saw {saw} `{of}`").into()),
    }
}

/// KASAN watches the module, and KCOV records where it goes.
fn instrumented(setup: &Setup) -> Result<(), Failed> {
    let debug = setup.image.manifest.module.debug.as_ref();
    let name = &debug.ok_or("no module with debug information")?.name;
    let module = fs::read(setup.image.dir.join(name))?;
    for function in ["__asan_load8", "__sanitizer_cov_trace_pc"] {
        let bytes = function.as_bytes();
        if !module.windows(bytes.len()).any(|window| window == bytes) {
            return Err(format!("{name} never calls {function}").into());
        }
    }
    Ok(())
}

/// A key made for this test; the kernel has its certificate.
fn signed_modules_only() -> Result<(), Failed> {
    let keys = layout()?.out.join("kernels/keys");
    fs::create_dir_all(&keys)?;
    let (key, certificate) = (keys.join("key.pem"), keys.join("cert.pem"));
    // The same key for the next run: another one would be another kernel.
    if !certificate.is_file() {
        make_key(&key, &certificate)?;
    }
    let signing = ModuleSigning {
        key: key.clone(),
        certificate,
    };
    let result = block_on(async {
        let setup = built("signed", |request| BuildRequest {
            variant: "production".into(),
            kernel: KernelChoice::Source("plain".into()),
            module_signing: Some(signing),
            ..request
        })
        .await?;
        assert_eq!(setup.image.manifest.signing.state, SigningState::Enforced);
        holds_no_key(&setup.image.disk, &key)?;
        run(setup, "module_signing").await
    })?;
    match result.outcome.is_ok() {
        true => Ok(()),
        false => Err(format!("{:?}", result.outcome).into()),
    }
}

fn make_key(key: &Path, certificate: &Path) -> Result<(), Failed> {
    let status = Command::new("openssl")
        .args([
            "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256",
        ])
        .args(["-days", "3650", "-subj", "/CN=VexFS test of module signing"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err("openssl made no key".into()),
    }
}

/// Nothing of the key's content is on the disk: no line of it.
fn holds_no_key(disk: &Path, key: &Path) -> Result<(), Failed> {
    let key = fs::read_to_string(key)?;
    let line = key
        .lines()
        .nth(1)
        .ok_or("an empty key")?
        .as_bytes()
        .to_vec();
    let mut file = File::open(disk)?;
    let mut window = Vec::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk)?;
        window.extend_from_slice(&chunk[..read]);
        if window.windows(line.len()).any(|bytes| bytes == line) {
            return Err("the key is in the image".into());
        }
        if read == 0 {
            return Ok(());
        }
        let keep = window.len().saturating_sub(line.len());
        window.drain(..keep);
    }
}
