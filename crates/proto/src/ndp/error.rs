//! Errors of the neighbour discovery decoder.

use thiserror::Error;

use crate::{ethernet, responder::DropReason};

/// Why a frame is not a neighbour solicitation or advertisement that we read. Offsets count from
/// the frame's first byte.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The Ethernet header does not read.
    #[error("NDP frame's header is not usable")]
    Ethernet(#[from] ethernet::Error),
    /// Another protocol.
    #[error("{field} {value:#x} at offset {offset} is not neighbour discovery")]
    Foreign {
        /// The field that tells.
        field: &'static str,
        /// Where it is.
        offset: usize,
        /// What is there.
        value: u16,
    },
    /// The frame ends inside the packet.
    #[error("NDP packet ends at offset {length}, before the end of its field at offset {offset}")]
    Truncated {
        /// Where the missing field starts.
        offset: usize,
        /// End of the packet.
        length: usize,
    },
    /// The packet was forwarded by a router (RFC 4861 §7.1).
    #[error("NDP hop limit {found} at offset 21 is not 255: the packet is from off-link")]
    HopLimit {
        /// What is there.
        found: u8,
    },
    /// The checksum does not fit.
    #[error("NDP checksum {found:#06x} at offset 56 does not fit the packet")]
    Checksum {
        /// What is there.
        found: u16,
    },
    /// A field has a value that RFC 4861 §7.1 forbids.
    #[error("NDP packet is invalid at offset {offset}: {why}")]
    Invalid {
        /// Where the field is.
        offset: usize,
        /// The rule that it breaks.
        why: &'static str,
    },
}

impl From<&Error> for DropReason {
    fn from(error: &Error) -> Self {
        match error {
            Error::Ethernet(ethernet::Error::Vlan { .. }) => Self::Vlan,
            Error::Foreign { .. } => Self::Foreign,
            Error::HopLimit { .. } => Self::HopLimit,
            Error::Checksum { .. } => Self::Checksum,
            Error::Ethernet(ethernet::Error::Truncated { .. })
            | Error::Truncated { .. }
            | Error::Invalid { .. } => Self::Malformed,
        }
    }
}
