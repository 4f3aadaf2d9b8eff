//! Which node makes the network send an address's traffic to it.

pub mod bgp;
pub mod election;
pub mod l2;

#[cfg(test)]
mod tests;
