//! What can go wrong between us and IPVS.

use std::io;

use crate::nft::DecodeError;

/// Talking to IPVS failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on the socket failed.
    #[error("netlink socket: cannot {action}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel sent something that does not decode.
    #[error("IPVS sent a message that does not decode")]
    Decode(#[from] DecodeError),
    /// There is no IPVS.
    #[error("the kernel has no IPVS (module ip_vs)")]
    Missing,
    /// A request was refused.
    #[error("IPVS refused to {what}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Decode(_) | Self::Missing => None,
        }
    }
}
