//! ARP for addresses that the kernel does not own (RFC 826, RFC 5227; MetalLB's layer 2 mode).
//!
//! [`Packet`] is one Ethernet frame with ARP for IPv4; [`Responder`] answers for the addresses
//! announced on one interface; [`gratuitous`] builds the frames that move an address here,
//! [`probe`] the one that asks for it, [`request`] the one by which a host asks for another.

mod error;
mod fsm;
mod packet;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use fsm::{Outcome, Responder};
pub use packet::{FRAME_LEN, Frame, Operation, Packet, gratuitous, probe, request};
