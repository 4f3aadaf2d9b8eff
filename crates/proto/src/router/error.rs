//! Errors of the router discovery decoder.

use std::net::Ipv6Addr;

use thiserror::Error;

/// Why a message is not one of router discovery that counts. Offsets count from the ICMPv6
/// message's first byte.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Another ICMPv6 message.
    #[error("ICMPv6 type {found} at offset 0 is not router discovery")]
    Foreign {
        /// What is there.
        found: u8,
    },
    /// The message ends inside a field.
    #[error(
        "router discovery message ends at offset {length}, inside its field at offset {offset}"
    )]
    Truncated {
        /// Where the missing field starts.
        offset: usize,
        /// End of the message.
        length: usize,
    },
    /// The packet was forwarded by a router (RFC 4861 §6.1).
    #[error("hop limit {found} is not 255: the message is from off-link")]
    HopLimit {
        /// What is there.
        found: u8,
    },
    /// An advertisement comes from a link-local address (RFC 4861 §6.1.2).
    #[error("router advertisement from {found}, which is not link-local")]
    Source {
        /// Who sent it.
        found: Ipv6Addr,
    },
    /// A field has a value that RFC 4861 §6.1 forbids.
    #[error("router discovery message is invalid at offset {offset}: {why}")]
    Invalid {
        /// Where the field is.
        offset: usize,
        /// The rule that it breaks.
        why: &'static str,
    },
}
