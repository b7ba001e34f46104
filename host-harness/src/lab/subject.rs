//! A module that takes the place of the image's own in a guest, so that what a check finds is what it
//! would find in an image with this module.
//!
//! The settled guest that is forked has the image's module loaded. It is taken out first, and has to go
//! without a word in the kernel log: what it left behind would be laid at the other's door. Then the new
//! one is put where modprobe(8) finds it, and loaded.

use std::time::Duration;

use image::Manifest;
use kernel_log::{Expectations, Record, judge};
use results::Subject;

use super::{Failure, Guest};

/// How long a module's file may take into the guest, and depmod(8) there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an image has its module; `provision/10-module.sh` puts it there.
pub fn place(manifest: &Manifest) -> String {
    format!(
        "/lib/modules/{}/extra/vexfs/{}",
        manifest.kernel.release, manifest.module.name
    )
}

/// Takes the image's own module out of a settled guest.
pub(super) async fn take_out(guest: &Guest, module: &str) -> Result<(), Failure> {
    let bad = |what: String| {
        Failure::Ours(format!(
            "the image's own module stands in the way: {what}. Build the image again from a tree that \
             works: `cargo images build`"
        ))
    };
    let modules = guest
        .ask("list modules", guest.client().modules(PATIENCE))
        .await?;
    if !modules.iter().any(|loaded| loaded.name == module) {
        return Ok(());
    }
    let mark = guest.kernel_log_mark().await?;
    let unload = guest.client().unload_module(module, PATIENCE);
    guest
        .ask(&format!("unload the image's {module}"), unload)
        .await
        .map_err(|failure| match failure {
            Failure::Agent { .. } => bad(failure.to_string()),
            other => other,
        })?;
    let log = guest.kernel_log_since(mark).await?;
    let records: Vec<Record> = log.iter().map(Record::from).collect();
    match judge(&records, &Expectations::none()).first() {
        Some(finding) => Err(bad(format!(
            "it does not unload cleanly ({})",
            finding.title
        ))),
        None => Ok(()),
    }
}

/// Puts a module where the image's own is, and loads it.
pub(super) async fn load(subject: &Subject, guest: &Guest) -> Result<(), Failure> {
    for (from, to, mode) in &subject.files {
        guest.put_with_mode(from, to, *mode).await?;
    }
    guest
        .put_with_mode(&subject.file, &subject.place, 0o644)
        .await?;
    if subject.depmod {
        guest.sh("depmod").await?;
    }
    let client = guest.client();
    let loading = async {
        match subject.depends {
            true => client.load_module(&subject.name, "", PATIENCE).await,
            false => client.load_module_file(&*subject.place, "", PATIENCE).await,
        }
    };
    match guest.ask("load the module", loading).await {
        Err(Failure::Agent { source, .. }) if source.fault_kind().is_some() => {
            let title = format!("the kernel does not take {}: {source}", subject.name);
            Err(Failure::check("module", title, ""))
        }
        other => other,
    }
}
