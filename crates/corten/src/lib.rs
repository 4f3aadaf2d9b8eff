//! The binary as a library: shells around the pure crates. See ARCHITECTURE.md for its tasks.

pub mod agent;
mod backoff;
pub mod cli;
mod client;
pub mod controller;
pub mod http;
mod kept;
mod log;
pub mod manifest;
pub mod member_secret;
pub mod nodes;
mod obstacles;
mod one;
pub mod owner;
pub mod probe;
pub mod removal;
pub mod report;
pub mod sink;
pub mod source;
pub mod state;
pub mod status;
mod statuses;
pub mod webhook;
