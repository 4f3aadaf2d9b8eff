//! Errors of membership datagrams.

use std::net::IpAddr;

use thiserror::Error;

use super::{Id, MAX_GUARDIANS, MAX_NAME, MAX_PAYLOAD, NodeName};

/// Why a datagram was refused, or a value cannot be sent. Offsets count from the datagram's first
/// byte.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The datagram ends too early.
    #[error("membership datagram ends at offset {length}, inside its field at offset {offset}")]
    Truncated {
        /// Where the field starts.
        offset: usize,
        /// Length of the datagram.
        length: usize,
    },
    /// Another protocol on our port.
    #[error("membership datagram starts with {found:02x?}: not ours")]
    Magic {
        /// What is there.
        found: [u8; 2],
    },
    /// Another version of the protocol.
    #[error("membership version {found} at offset 2 is not known here")]
    Version {
        /// What is there.
        found: u8,
    },
    /// A kind of the future.
    #[error("membership kind {found} at offset 2 is not known here")]
    Kind {
        /// What is there.
        found: u8,
    },
    /// A flag of the future.
    #[error("membership flags {found:#04x} at offset 3 are not known here")]
    Flags {
        /// What is there.
        found: u8,
    },
    /// The list of guardians has another length than it can have.
    #[error("{length} bytes of guardians at offset {offset}: 4 each, and at most {MAX_GUARDIANS}")]
    Guardians {
        /// Where they start.
        offset: usize,
        /// Their length.
        length: usize,
    },
    /// The node name is empty or too long.
    #[error("node name of {length} bytes: 1 to {MAX_NAME} are possible")]
    NameLength {
        /// Its length.
        length: usize,
    },
    /// The payload is too long.
    #[error("payload of {length} bytes: at most {MAX_PAYLOAD} are possible")]
    PayloadLength {
        /// Its length.
        length: usize,
    },
    /// There is more than the fields need.
    #[error("membership datagram of {length} bytes should end at offset {offset}")]
    Trailing {
        /// Where it should end.
        offset: usize,
        /// Its length.
        length: usize,
    },
    /// The tag does not fit: another key, or changed on the way.
    #[error("membership datagram's authentication fails: is the key the same on every node?")]
    BadTag,
    /// This node has a key, the sender has none.
    #[error("membership datagram is not authenticated, but this node has a key")]
    Untagged,
    /// The sender has a key, this node has none.
    #[error("membership datagram is authenticated, but this node has no key")]
    UnexpectedTag,
    /// The sender is not among the peers.
    #[error("node {id} is not a peer of this node")]
    UnknownPeer {
        /// The sender.
        id: Id,
    },
    /// The sender has this node's name.
    #[error("another node at {from} calls itself {name}, as this node does")]
    OwnName {
        /// The name.
        name: NodeName,
        /// Its address.
        from: IpAddr,
    },
    /// Without a key the address is the only credential.
    #[error("node {name} is expected at {expected}, but its datagram came from {from}")]
    WrongAddress {
        /// The sender.
        name: NodeName,
        /// The peer's address.
        expected: IpAddr,
        /// The datagram's source.
        from: IpAddr,
    },
    /// It was taken before, or is older than what can be told from that, or is of an earlier
    /// incarnation.
    #[error("datagram {incarnation}/{sequence} of node {name} is a replay: {last} is the newest")]
    Replayed {
        /// The sender.
        name: NodeName,
        /// The datagram's incarnation.
        incarnation: u64,
        /// The datagram's sequence number.
        sequence: u32,
        /// The newest incarnation known.
        last: u64,
    },
}
