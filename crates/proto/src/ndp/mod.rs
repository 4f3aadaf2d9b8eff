//! Neighbour discovery for addresses that the kernel does not own (RFC 4861; MetalLB's layer 2
//! mode, spec §4.3).
//!
//! [`Packet`] is one Ethernet frame with a neighbour solicitation or advertisement; [`Responder`]
//! answers for the addresses announced on one interface; [`Groups`] counts the solicited-node
//! groups that the interface must be in; [`unsolicited`] builds the frame that moves an address,
//! [`probe`] the one that asks for it, [`solicitation`] the one by which a host asks for another.

mod error;
mod fsm;
mod groups;
mod packet;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use fsm::{Outcome, Responder};
pub use groups::{Change, Groups, multicast_mac, solicited_node};
pub use packet::{ALL_NODES, Message, Packet, probe, solicitation, unsolicited};
