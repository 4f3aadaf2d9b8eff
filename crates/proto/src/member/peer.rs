//! What is known of one peer.

use std::{net::SocketAddr, time::Duration};

use super::{Error, NodeName, Packet};

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not heard yet, and not waited for long enough.
    Unknown,
    /// There.
    Alive,
    /// Buried, or silent for too long.
    Dead,
    /// Stopped on purpose.
    Left,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) name: NodeName,
    pub(super) address: SocketAddr,
    pub(super) state: State,
    /// The newest known; 0: none.
    pub(super) incarnation: u64,
    window: Window,
    /// This incarnation and all before it have ended: by obituary or on purpose.
    pub(super) over: u64,
    /// The one that it was held for dead in.
    pub(super) died: u64,
    /// When it was heard last; before that, when it was added.
    pub(super) heard: Duration,
    /// Version of its payload that was taken.
    pub(super) have: u32,
    /// What it knows of this node's incarnation: nothing, or a version of the payload.
    pub(super) acknowledged: Option<u32>,
    /// When something was last sent in answer to what proves nothing.
    pub(super) answered: Option<Duration>,
}

impl Peer {
    pub(super) fn new(name: NodeName, address: SocketAddr, now: Duration) -> Self {
        Self {
            name,
            address,
            state: State::Unknown,
            incarnation: 0,
            window: Window::default(),
            over: 0,
            died: 0,
            heard: now,
            have: 0,
            acknowledged: None,
            answered: None,
        }
    }

    /// Notes the number of a datagram that is no recording; each counts once.
    pub(super) fn admit(&mut self, packet: &Packet) -> Result<(), Error> {
        if packet.incarnation > self.incarnation {
            self.incarnation = packet.incarnation;
            self.window = Window::default();
            self.have = 0;
        }
        if packet.incarnation < self.incarnation || !self.window.admit(packet.sequence) {
            return Err(Error::Replayed {
                name: self.name.clone(),
                incarnation: packet.incarnation,
                sequence: packet.sequence,
                last: self.incarnation,
            });
        }
        Ok(())
    }
}

/// Which sequence numbers were taken: the greatest and the 63 before it, so that datagrams may
/// overtake each other (as RFC 4303 §3.4.3 does it).
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    greatest: u32,
    /// Bit n: `greatest` - n was taken.
    taken: u64,
}

impl Window {
    fn admit(&mut self, sequence: u32) -> bool {
        if sequence > self.greatest {
            let ahead = sequence - self.greatest;
            self.taken = self.taken.checked_shl(ahead).unwrap_or(0) | 1;
            self.greatest = sequence;
            return true;
        }
        let bit = 1u64.checked_shl(self.greatest - sequence).unwrap_or(0);
        let fresh = bit != 0 && self.taken & bit == 0;
        self.taken |= bit;
        fresh
    }
}
