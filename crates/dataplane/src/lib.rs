//! Brings the forward plan to the kernel: one module per back end. And takes away what kube-proxy has
//! left there ([`leftovers`]).

pub mod conntrack;
pub mod ipvs;
pub mod leftovers;
pub mod nft;
