//! A variant and a VexFS source tree go in, an image comes out.
//!
//! The work is a short list of stages ([`build`]): our own guest programs, the base root file
//! system (mmdebstrap), the module built against that base's exact kernel, the bootable disk,
//! Packer's provisioning of the running system, and the seal (compact, compress, manifest,
//! checksums). Each stage is keyed by the digest of everything that goes into it and kept in a
//! cache; a key seen before costs nothing and a new one can say what changed
//! ([`BuildEvent::StageStarted`]).
//!
//! The types to know: [`BuildRequest`] (what to build, from what), [`Image`] (what came out: a disk
//! whose digest has been checked against its [`Manifest`]) and [`BuildError`] (sentences with a
//! remedy). Progress is reported as typed [`BuildEvent`]s; nothing here prints. Booting the image
//! and judging it is the host-harness's business.

mod access;
mod apt;
mod build;
mod cache;
mod data;
mod error;
mod event;
mod evidence;
mod fault;
mod format;
mod git;
mod grub;
mod host;
mod image;
pub mod inspect;
mod kernel;
mod kernel_config;
mod key;
mod manifest;
mod plan;
mod request;
pub mod room;
mod run;
mod scratch;
mod signing;
mod source;
mod source_config;
mod sources;
mod sparse;
mod stages;
mod store;
mod tree;
mod verify;
mod versions;
mod workshop;

pub use build::build;
pub use cache::{DEFAULT_CACHE_CAP, clean_stages, empty_cache, parse_size};
pub use data::variants;
pub use error::{BuildError, MissingTool};
pub use event::Progress;
pub use fault::Fault;
pub use format::Format;
pub use host::cargo_home;
pub use image::Image;
pub use kernel::{KernelChoice, SECOND_KERNEL_SKU};
pub use manifest::{
    CompiledRecord, FileRecord, KernelRecord, Manifest, ModuleRecord, Package, ProgramRecord,
    SigningRecord, SigningState, SourceOrigin, SourceRecord, StageRecord,
};
pub use request::{BuildRequest, FaultsRequest, ModuleSigning, ToolsRequest};
pub use results::BuildEvent;
pub use source::SourceChecks;
pub use source_config::SourceConfig;
pub use stages::faults::faults;
pub use stages::tools_disk::tools_disk;
pub use verify::{Finding, sign, verify};
pub use workshop::{Installed, Product, Workshop, WorkshopRequest};
