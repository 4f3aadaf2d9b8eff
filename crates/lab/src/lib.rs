//! See Cargo.toml.

pub mod controlplane;
