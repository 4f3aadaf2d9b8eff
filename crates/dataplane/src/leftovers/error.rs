//! Why what kube-proxy has left could not be found or removed.

use linux::netlink::NetlinkError;
use linux::{iptables, ipvs, nft};

/// It could not be found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not enough rights.
    #[error(
        "nf_tables refuses changes: the capability NET_ADMIN is needed in this network namespace"
    )]
    Denied,
    /// The rules.
    #[error("cannot {action} rules")]
    Rules {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: nft::Error,
    },
    /// The virtual servers.
    #[error("cannot {action} virtual servers")]
    Servers {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: ipvs::Error,
    },
    /// A virtual server or a set is still there.
    #[error("{what} cannot be removed")]
    Stays {
        /// Which.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The interface.
    #[error("cannot look for {device}, or remove it", device = super::names::DEVICE)]
    Device(#[from] NetlinkError),
    /// The old tables.
    #[error(transparent)]
    Legacy(#[from] iptables::Error),
    /// Others kept changing the rules.
    #[error(
        "others changed the rules during each of {attempts} attempts to remove them; does kube-proxy still run?"
    )]
    Busy {
        /// How often it was tried.
        attempts: u32,
    },
    /// The runtime of a netlink socket.
    #[error("cannot start a runtime")]
    Runtime(#[source] std::io::Error),
}

/// A refusal of nf_tables or ipset, while doing `action`.
pub(super) fn rules(action: &'static str) -> impl FnOnce(nft::Error) -> Error {
    move |source| match crate::nft::errno(&source) {
        Some(crate::nft::EPERM) => Error::Denied,
        _ => Error::Rules { action, source },
    }
}

/// A refusal of IPVS.
pub(super) fn servers(action: &'static str) -> impl FnOnce(ipvs::Error) -> Error {
    move |source| Error::Servers { action, source }
}
