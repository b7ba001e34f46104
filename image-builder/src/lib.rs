//! A variant and a VexFS source tree go in, an image comes out.
//!
//! The work is a short list of stages ([`build`]; a table says all about each): our own guest programs,
//! the base root file system (mmdebstrap), the module built against that base's exact kernel, the
//! bootable disk, Packer's provisioning of the running system, and the seal (compact, compress, manifest,
//! checksums). Each stage is keyed by the digest of everything that goes into it and kept in a
//! cache; a key seen before costs nothing and a new one can say what changed
//! ([`BuildEvent::StageStarted`]).
//!
//! The types to know: [`BuildRequest`] (what to build, from what), [`image::Image`] (what came out: a disk
//! whose digest has been checked against its manifest) and [`BuildError`] (sentences with a
//! remedy). Progress is reported as typed [`BuildEvent`]s; nothing here prints. Booting the image
//! and judging it is the host-harness's business.

mod archive;
mod build;
mod error;
mod event;
mod evidence;
mod fault;
mod host;
mod packages;
mod plan;
mod record;
mod request;
mod run;
mod source;
mod stages;
mod store;
mod versions;
mod workshop;

pub use build::build;
pub use error::{BuildError, MissingTool};
pub use event::Progress;
pub use evidence::{Finding, sign, verify};
pub use fault::Fault;
pub use request::{
    BuildRequest, FaultsRequest, KernelChoice, ModuleSigning, ToolsRequest, variants,
};
pub use results::BuildEvent;
pub use source::SourceChecks;
pub use stages::faults::faults;
pub use stages::tools_disk::tools_disk;
pub use store::{DEFAULT_CACHE_CAP, clean_stages, empty_cache, parse_size};
pub use workshop::{Installed, Product, Workshop, WorkshopRequest};
