//! Router discovery for BGP peers that are known by their interface alone (RFC 4861 §6, in the
//! practice of RFC 7938).
//!
//! Both ends tell the link that they are there, and each learns the other's link-local address from
//! that: [`Message`] is an ICMPv6 message, [`Discovery`] says when ours are due and knows who was
//! heard. We say "router" with a lifetime of 0 s: nobody may take this node for a default router.

mod error;
mod fsm;
mod packet;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use fsm::Discovery;
pub use packet::{ADVERTISEMENT, Message, SOLICITATION};

use std::net::Ipv6Addr;

/// `ff02::1`, who hears advertisements.
pub const ALL_NODES: Ipv6Addr = crate::ndp::ALL_NODES;
/// `ff02::2`, who hears solicitations.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
