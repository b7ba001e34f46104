//! Kernel modules: load, unload, list.

use std::ffi::CString;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use agent_protocol::message::{ModuleInfo, ModuleSource};
use agent_protocol::{Fault, FaultKind, Reply};
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use tokio::process::Command;

use crate::files::local_path;
use crate::off_thread;

/// Loads a module, by modprobe(8) or finit_module(2).
///
/// # Errors
/// With the kernel's errno, or modprobe's own words.
pub async fn load(module: ModuleSource, parameters: String) -> Result<Reply, Fault> {
    match module {
        ModuleSource::Name(name) => probe(&name, &parameters).await,
        ModuleSource::File(path) => {
            off_thread(move || {
                let what = format!("load module {path}");
                let parameters = c_string(parameters)?;
                let file =
                    File::open(local_path(&path)).map_err(|error| Fault::from_io(&what, &error))?;
                finit_module(&file, &parameters, ModuleInitFlags::empty())
                    .map_err(|errno| Fault::from_io(&what, &errno.into()))?;
                Ok(Reply::Done)
            })
            .await
        }
    }
}

async fn probe(name: &str, parameters: &str) -> Result<Reply, Fault> {
    let what = format!("modprobe {name}");
    let output = Command::new("modprobe")
        .arg("--")
        .arg(name)
        .args(parameters.split_whitespace())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Fault::from_io(&what, &error))?;
    if output.status.success() {
        return Ok(Reply::Done);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let kind = if words.contains("not found in directory") {
        FaultKind::NotFound
    } else {
        FaultKind::System
    };
    Err(Fault::new(
        kind,
        format!("{what}: {}: {}", output.status, words.trim()),
    ))
}

/// Removes a module that nobody uses.
///
/// # Errors
/// With the kernel's errno; [`FaultKind::Busy`] while it is in use.
pub async fn unload(name: String) -> Result<Reply, Fault> {
    off_thread(move || {
        let what = format!("unload module {name}");
        let name = c_string(name)?;
        // Without O_NONBLOCK the kernel refuses modules in use just the same since 3.13.
        delete_module(&name, DeleteModuleFlags::O_NONBLOCK)
            .map_err(|errno| Fault::from_io(&what, &errno.into()))?;
        Ok(Reply::Done)
    })
    .await
}

/// All loaded modules, by name.
///
/// # Errors
/// When `/proc/modules` cannot be read.
pub async fn list() -> Result<Reply, Fault> {
    off_thread(|| Ok(Reply::Modules(loaded()?))).await
}

/// All loaded modules, by name. Reads `/proc` and `/sys`.
///
/// # Errors
/// When `/proc/modules` cannot be read.
pub fn loaded() -> Result<Vec<ModuleInfo>, Fault> {
    let modules = match procfs::modules() {
        Ok(modules) => modules,
        // A kernel built without modules.
        Err(procfs::ProcError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => {
            return Err(Fault::new(
                FaultKind::System,
                format!("/proc/modules: {error}"),
            ));
        }
    };
    let mut modules: Vec<_> = modules
        .into_values()
        .map(|module| {
            let attribute = |name: &str| attribute(Path::new("/sys/module"), &module.name, name);
            ModuleInfo {
                size: module.size.into(),
                references: module.refcount,
                used_by: module.used_by.join(","),
                state: module.state,
                version: attribute("version"),
                taint: attribute("taint").unwrap_or_default(),
                name: module.name,
            }
        })
        .collect();
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    modules.truncate(agent_protocol::MAX_ITEMS);
    Ok(modules)
}

fn attribute(root: &Path, module: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(root.join(module).join(name)).ok()?;
    Some(text.trim_end().to_owned())
}

fn c_string(text: String) -> Result<CString, Fault> {
    CString::new(text).map_err(|_| Fault::new(FaultKind::Invalid, "a NUL inside a string"))
}
