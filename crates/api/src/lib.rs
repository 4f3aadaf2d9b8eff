//! Kubernetes kinds as plain Rust types: the objects Corten reads and writes.
//!
//! Owns the public contract: field names, defaults, annotation names and, with the feature
//! `crds`, the CRD schemas made from these very types. It holds no policy: whether a pool is
//! good is decided in `plan`.
//!
//! The structs are slim: they carry what Corten uses and nothing else, and a missing field is
//! its default. Sources: Kubernetes API conventions; `MetalLB` API group `metallb.io`.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod core;
pub mod corten;
#[cfg(feature = "crds")]
pub mod crds;
mod de;
pub mod duration;
mod kind;
pub mod meta;
pub mod metallb;
pub mod object;

#[cfg(feature = "crds")]
pub mod schema;

pub use kind::Kind;
