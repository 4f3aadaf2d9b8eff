//! Brings the forward plan to the kernel: one module per back end.

pub mod conntrack;
pub mod ipvs;
pub mod nft;
