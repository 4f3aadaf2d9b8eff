//! Bidirectional Forwarding Detection: asynchronous mode over one hop (RFC 5880, RFC 5881) and over
//! several (RFC 5883), with the echo function.
//!
//! A [`Session`] is the state machine of one neighbour. [`Sessions`] owns all sessions of a node:
//! it takes datagrams as they come from the sockets, drops what RFC 5880 §6.8.6 wants dropped (and
//! counts it by reason), finds the session, and says what to send and when to be called again.
//!
//! What the caller has to do:
//! - One socket per family on each of [`CONTROL_PORT`] and [`MULTIHOP_PORT`] (and [`ECHO_PORT`]
//!   where a profile wants echo), which tell TTL or hop limit, destination and interface of what
//!   comes in. It sends with TTL 255 from a source port in [`SOURCE_PORTS`], one for each session.
//! - Echo over IPv4 goes in whole frames (`frame`): on the interface of a neighbour with echo it
//!   sees frames with BFD in them, and hands them on before the datagrams of the same packets.
//! - It drains the sockets before it calls `on_timeout`: what waits in a socket was in time.
//! - A daemon's packets do not survive it: the C bit is never set (RFC 5880 §4.1, RFC 5882 §4.3).
//! - Towards BGP only [`Change::path_failed`] counts. That the neighbour, or this side, took the
//!   session down on purpose is no failure of the path (RFC 5882 §3.2, RFC 9384).
//!
//! Demand mode is followed where the neighbour asks for it and never asked for. Authentication is
//! not in use: packets that carry it are dropped, as §6.8.6 says.

mod counters;
mod echo;
mod error;
mod frame;
mod fsm;
mod packet;
mod sessions;
mod settings;
#[cfg(test)]
mod tests;
mod timers;

pub use counters::Counters;
pub use echo::{ECHO_LEN, Echo};
pub use error::Error;
pub use fsm::{Change, Remote, Session, Transmit};
pub use packet::{
    CONTROL_PORT, Diagnostic, ECHO_PORT, LEN, MULTIHOP_PORT, Packet, SOURCE_PORTS, State, TTL,
};
pub use sessions::{Arrival, Key, Sent, Sessions};
pub use settings::{Hops, Settings};
