//! Why a datagram is dropped.

use std::net::IpAddr;

use thiserror::Error;

use super::State;

/// Why a datagram is dropped. Offsets count from the payload's first byte; sections are RFC 5880's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Shorter than any packet.
    #[error("BFD packet ends at offset {length}, before its 24 bytes")]
    Truncated {
        /// Length of the payload.
        length: usize,
    },
    /// Another version (§6.8.6).
    #[error("BFD version {version} at offset 0 is not 1")]
    Version {
        /// What is there.
        version: u8,
    },
    /// The length field cannot be (§6.8.6).
    #[error("BFD length {length} at offset 3 is below {least} or beyond the payload's {payload}")]
    Length {
        /// What is there.
        length: u8,
        /// The least that is good.
        least: usize,
        /// Length of the payload.
        payload: usize,
    },
    /// Detection multiplier 0 (§6.8.6).
    #[error("BFD detection multiplier at offset 2 is 0")]
    Multiplier,
    /// The M bit is set (§6.8.6).
    #[error("BFD multipoint bit at offset 1 is set")]
    Multipoint,
    /// The sender's discriminator is 0 (§6.8.6).
    #[error("BFD discriminator of the sender at offset 4 is 0")]
    MyDiscriminator,
    /// No discriminator of ours in a state that needs one (§6.8.6).
    #[error("BFD discriminator of the receiver at offset 8 is 0 in state {state}")]
    YourDiscriminator {
        /// The sender's state.
        state: State,
    },
    /// It carries authentication, and no session uses it (§6.8.6).
    #[error("BFD packet is authenticated, which no session here is")]
    Authenticated,
    /// It came over a router, or is forged (RFC 5881 §5, RFC 5883 §5).
    #[error("BFD packet of {from} came with TTL {ttl}, the session demands {least}")]
    Ttl {
        /// The sender.
        from: IpAddr,
        /// TTL or hop limit.
        ttl: u8,
        /// What the session demands.
        least: u8,
    },
    /// No session has the discriminator (§6.8.6).
    #[error("BFD packet of {from} names discriminator {yours:#010x}, which no session has")]
    UnknownDiscriminator {
        /// The sender.
        from: IpAddr,
        /// What it names.
        yours: u32,
    },
    /// The session of the discriminator has another neighbour, interface or kind.
    #[error("BFD packet of {from} names the session of another neighbour")]
    OtherSession {
        /// The sender.
        from: IpAddr,
    },
    /// No session waits for the sender (§6.8.6).
    #[error("BFD packet of {from} belongs to no session")]
    Stranger {
        /// The sender.
        from: IpAddr,
    },
    /// The session is held down (§6.8.6).
    #[error("BFD session is held down")]
    AdminDown,
    /// An echo packet that is neither ours nor to be sent back.
    #[error("BFD echo packet of {from} with TTL {ttl} is not of a session with echo")]
    Echo {
        /// The sender.
        from: IpAddr,
        /// TTL or hop limit.
        ttl: u8,
    },
}
