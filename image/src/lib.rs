//! A finished image: a folder with a disk, and what is known about it.
//!
//! Everybody who has to do with images meets here and nowhere else: who makes them, who boots them, who
//! reports and publishes them. This crate reads an image, holds its files against its [`Manifest`], looks
//! into its disk without booting or mounting it ([`inspect`]) and tells two disks apart
//! ([`inspect::diff()`]).
//!
//! It leaves to others how an image is made (image-builder), how it is booted, and whether it is any good
//! (host-harness). It starts one program, qemu-img(1), below the [`keeper`].
//!
//! The types to know: [`Image`] (a disk whose digest has been checked), [`Manifest`] (what is in it and
//! what it was made from, as data) and [`SourceConfig`] (what is special about the file system in it; checks
//! go by that). What goes wrong is an [`ImageError`], a sentence with a remedy.

mod error;
mod format;
mod image;
pub mod inspect;
mod manifest;
mod source_config;
pub mod sparse;

pub use error::ImageError;
pub use format::Format;
pub use image::{Image, MANIFEST, STAMP};
pub use manifest::{
    CompiledRecord, FileRecord, KernelRecord, Manifest, ModuleRecord, Package, ProgramRecord,
    SCHEMA, SECOND_KERNEL_SKU, SigningRecord, SigningState, SourceOrigin, SourceRecord,
    StageRecord,
};
pub use source_config::{FILE as SOURCE_CONFIG, SourceConfig};
