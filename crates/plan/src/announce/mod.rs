//! Which node makes the network send an address's traffic to it.

pub mod bgp;
pub mod election;
pub mod l2;
pub mod linux;
pub mod mac;
pub mod owners;
pub mod stations;
pub mod tenure;

#[cfg(test)]
mod tests;
