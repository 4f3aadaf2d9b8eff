//! What Corten says of itself in objects, as values: the counters of pools, `ConfigurationState`,
//! and which Services this node announces (`spec/metallb.md` §1.1, §1.8 to §1.10).
//!
//! Owns only the texts and the rules; who writes them when is the shell's business. A value is
//! compared with what the API server shows before it is written, so that nothing is written twice.

mod bgp;
mod configuration;
mod l2;
mod pool;
mod summary;
#[cfg(test)]
mod tests;

pub use bgp::{Advertised, Claims, News, Peers, bgp_status, claims};
pub use configuration::{Component, Configuration, configuration};
pub use l2::{Announced, l2_status};
pub use pool::{counters, pools};
