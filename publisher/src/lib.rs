//! What a build made, laid out for download, and brought to where people fetch it.
//!
//! [`bundle()`] lays out one folder with all of a run: images, their documents, reports, dossiers, and
//! an index that names every file with its digest. [`publish`] brings the images of a bundle to a
//! [`Destination`]: a folder here or behind SSH, or an OCI layout or registry. Whatever ends it
//! half-way, a reader there sees whole releases only, and the next try goes on where this one broke
//! off. `latest` there moves only to an image that passed every check it was asked.
//!
//! The types to know: [`Index`] (what a bundle or a release says of itself), [`Destination`] and
//! [`Published`] (what came of it). What passed is the caller's word; nothing here knows of checks or
//! machines. Programs that do the work (ssh, skopeo, zstd, sha256sum) run below a keeper.

mod bundle;
mod delta;
mod destination;
mod error;
mod folder;
mod index;
mod layout;
mod notify;
mod registry;
mod release;
mod run;

pub use bundle::{Content, ImageFiles, bundle};
pub use delta::Delta;
pub use destination::Destination;
pub use error::PublishError;
pub use index::{FileEntry, INDEX, ImageEntry, Index, Tally};
pub use notify::{notify, redacted};
pub use release::{Latest, Options, Published, publish};
