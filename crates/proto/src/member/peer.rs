//! What is known of one peer.

use std::{net::SocketAddr, time::Duration};

use super::{Echo, Error, Kind, Packet};

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not heard yet, and not waited for long enough.
    Unknown,
    /// Heard within the timeout.
    Alive,
    /// Silent for longer.
    Dead,
    /// Stopped on purpose.
    Left,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) state: State,
    /// When an unknown or alive peer is dead.
    pub(super) deadline: Duration,
    /// The newest that was taken from the peer, told back to it.
    pub(super) heard: Echo,
    /// What the peer told of us.
    pub(super) echo: Echo,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, deadline: Duration) -> Self {
        Self {
            address,
            state: State::Unknown,
            deadline,
            heard: Echo::default(),
            echo: Echo::default(),
        }
    }

    /// Whether its deadline counts.
    pub(super) fn watched(&self) -> bool {
        matches!(self.state, State::Unknown | State::Alive)
    }

    /// Notes a datagram and gives the state that it asks for. `None`: nothing new, because a peer
    /// that left stays gone until its next incarnation.
    pub(super) fn take(&mut self, packet: &Packet) -> Result<Option<State>, Error> {
        let Echo {
            incarnation,
            sequence,
            ..
        } = self.heard;
        if (packet.incarnation, packet.sequence) <= (incarnation, sequence) {
            return Err(Error::Replayed {
                name: packet.node.clone(),
                incarnation: packet.incarnation,
                sequence: packet.sequence,
                last_incarnation: incarnation,
                last_sequence: sequence,
            });
        }
        let restarted = packet.incarnation != incarnation;
        self.heard.incarnation = packet.incarnation;
        self.heard.sequence = packet.sequence;
        if restarted {
            self.heard.payload = 0;
        }
        self.echo = packet.echo;
        Ok(match packet.kind {
            Kind::Beat if self.state == State::Left && !restarted => None,
            Kind::Beat => Some(State::Alive),
            Kind::Leave => Some(State::Left),
        })
    }
}
