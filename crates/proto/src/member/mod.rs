//! Who is alive (design.md §4.4), over UDP datagrams that the caller sends and receives.
//!
//! The interface is final; the inside is, for now, a plain timeout: each node beats to every other,
//! and a node silent for longer than the timeout is dead. Three guardians per node and obituaries
//! come in its place.
//!
//! What a [`Member`] owns: the beats, one record per peer, this node's payload (its `NodeState` as
//! opaque bytes) and the queues of datagrams and events. What it promises:
//! - A peer never heard from is unknown for one timeout after it was added, then dead.
//! - Time in which the caller did not run counts against nobody: deadlines move by as much. After
//!   a pause longer than the timeout the node is [isolated](Member::isolated): others may have
//!   taken its addresses. That ends when a peer echoes a beat sent after the pause (so datagrams
//!   that waited in the socket do not count), or when one more timeout brings nobody back to life.
//! - A datagram counts once: incarnation, then sequence, must grow per sender. This is kept in
//!   memory only: right after a restart an old datagram can be replayed once, and can keep a dead
//!   peer alive for one timeout.
//! - The payload is repeated until the peer has echoed its version, so loss delays it by a beat.
//!
//! The chosen parameters: a beat each 100 ms at most and a timeout of 1 s mean that at least nine
//! beats in a row must be lost for a false death. At 5 % loss that is 0.05⁹ · 36,000 beats an hour
//! = 7·10⁻⁸ an hour and pair; 1000 nodes see 0.002 a node and day (budget: 1). Beats of 200 ms
//! would give 4 or 5 losses, 0.006 to 0.1 an hour and pair: too often.

mod counters;
mod error;
mod fsm;
mod packet;
mod peer;
#[cfg(test)]
mod tests;

pub use counters::Counters;
pub use error::Error;
pub use fsm::{Config, Event, Member, Transmit};
pub use packet::{Echo, Key, Kind, MAX_LEN, MAX_NAME, MAX_PAYLOAD, NodeName, Packet, Payload};
pub use peer::State;
