//! Who is alive (design.md §4.4), over UDP datagrams that the caller sends and receives.
//!
//! **Guardians.** The nodes stand in a ring, in the order of SHA-256 of their names. Each beats to
//! the next three that it holds for alive, and names them in its beats: so all guardians of a node
//! agree on who they are, whatever else they disagree on. When three beats are missed, a guardian
//! probes five times; then it votes. A majority of the guardians that are alive themselves makes an
//! obituary, which goes to every node. With one guardian (two nodes) one vote is the majority: both
//! sides of a cut bury each other. With two guardians (three nodes) both must vote.
//!
//! **Silence.** A node that was not run, or heard no guardian, for as long as a death takes, is
//! [isolated](Member::isolated): others may have its addresses. So is one that reads its own
//! obituary. That ends when a guardian acknowledges a beat sent since, and not before two beats'
//! time, which the others need to yield. Where nobody at all is heard for [`Profile::lost`], the
//! others are dead for this node and it goes on alone: each side of a split network answers. When it
//! then hears one of them that lived, it was cut off itself, and is isolated once more.
//!
//! **Incarnations.** An obituary ends an incarnation. Who reads his own takes the next one, and who
//! hears of it knows that he lived after it; so a false death heals. A datagram also says which
//! incarnation of the receiver it is for: what was recorded before a restart, of either side, proves
//! nothing, and clocks are not compared. A node whose clock was set back learns its number from the
//! others.
//!
//! **The rest of the nodes** hear of each other at start and at changes (a hello, repeated until it
//! is answered, which also carries the payload), and one by one in a slow rotation, which finds
//! deaths that obituaries did not reach: nodes cut into parts, asymmetric faults. A node never heard
//! from is unknown, and dead after [`Profile::lost`].
//!
//! **Succession.** A process that ends for its node's next one says so ([`Member::make_way`]): until
//! that is there, for a stated time, the node is no death.
//!
//! Cost per node does not grow with the nodes: about 105 beats, 18 acknowledgements and 11 hellos a
//! second in the default profile; with three or four nodes, which all guard each other,
//! beats alone. Only starts, deaths and changed payloads cost one datagram a node.
//!
//! **Most datagrams need not be read at once**: what counts of a beat is when it arrived. So the
//! caller may leave those that [`PATIENT`] describes in a socket of their own until something is
//! due, as long as [`Member::may_wait`] says so, and is woken once a beat instead of for each
//! datagram.
//!
//! Time in which the caller did not run counts against nobody: deadlines move by as much.

mod counters;
mod error;
mod fsm;
mod guard;
mod isolation;
mod packet;
mod peer;
mod profile;
mod rounds;
mod succession;
#[cfg(test)]
mod tests;

pub use counters::{ByKind, Counters, KINDS};
pub use error::Error;
pub use fsm::{Config, Event, Member, Transmit};
pub use isolation::Cause;
pub use packet::{
    Body, Death, Id, Key, MAX_GUARDIANS, MAX_LEN, MAX_NAME, MAX_PAYLOAD, NodeName, PATIENT, Packet,
    Pattern, Payload,
};
pub use peer::State;
pub use profile::Profile;
pub use succession::LONGEST_ABSENCE;
