//! What VexFS looks like from outside the kernel: making, reading and controlling it.
//!
//! The library knows the on-disk format ([`ondisk`], the mirror of `vexfs/vexfs_format.h`), how to
//! lay a file system out ([`geometry`]) and write it ([`mkfs`]), how to read one that may be damaged
//! ([`image`]), and the configuration file ([`config`]). Mounting and everything that happens on a
//! mounted file system is the kernel's; the command line is in the binary.
//!
//! The types to know: [`geometry::Geometry`], [`image::Image`], [`config::Config`].

pub mod checksum;
pub mod config;
pub mod formats;
pub mod fsck;
pub mod geometry;
pub mod image;
pub mod journal;
pub mod mkfs;
pub mod mounts;
pub mod ondisk;
pub mod reader;
pub mod vectors;
