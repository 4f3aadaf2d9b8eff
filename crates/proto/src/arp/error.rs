//! Errors of the ARP decoder.

use thiserror::Error;

use crate::{ethernet, responder::DropReason};

/// Why a frame is not an ARP packet that we read. Offsets count from the frame's first byte.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The Ethernet header does not read.
    #[error("ARP frame's header is not usable")]
    Ethernet(#[from] ethernet::Error),
    /// Another protocol.
    #[error("EtherType {ethertype:#06x} at offset 12 is not ARP")]
    NotArp {
        /// What is there.
        ethertype: u16,
    },
    /// The frame ends inside the packet.
    #[error("ARP packet ends at offset {length}, before its field at offset {offset}")]
    Truncated {
        /// Where the missing field starts.
        offset: usize,
        /// Length of the frame.
        length: usize,
    },
    /// Not Ethernet and IPv4.
    #[error("ARP hardware/protocol description {found:02x?} at offset 14 is not Ethernet/IPv4")]
    Kind {
        /// Hardware type, protocol type and their address lengths.
        found: [u8; 6],
    },
    /// Neither request nor reply.
    #[error("ARP operation {operation} at offset 20 is neither request nor reply")]
    Operation {
        /// What is there.
        operation: u16,
    },
}

impl From<&Error> for DropReason {
    fn from(error: &Error) -> Self {
        match error {
            Error::Ethernet(ethernet::Error::Vlan { .. }) => Self::Vlan,
            Error::NotArp { .. } | Error::Kind { .. } => Self::Foreign,
            Error::Ethernet(ethernet::Error::Truncated { .. })
            | Error::Truncated { .. }
            | Error::Operation { .. } => Self::Malformed,
        }
    }
}
