//! Why the executor could not do its work.

use std::io;

use linux::ipvs;
use linux::netlink::NetlinkError;

use crate::nft;

/// The IPVS executor failed as a whole. What concerns one service port only is in
/// [`nft::Report::refused`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rule set beside the virtual servers.
    #[error(transparent)]
    Rules(#[from] nft::Error),
    /// There is no IPVS.
    #[error("the kernel has no IPVS (CONFIG_IP_VS)")]
    Missing,
    /// Not enough rights.
    #[error("IPVS refuses changes: the capability NET_ADMIN is needed in this network namespace")]
    Denied,
    /// A setting of the kernel is wrong and cannot be changed from here.
    #[error("{key} has to be {value} for IPVS")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What it should be.
        value: &'static str,
        /// Why it cannot be set.
        #[source]
        source: io::Error,
    },
    /// The kernel's virtual servers could not be read or written.
    #[error("cannot {action} virtual servers")]
    Servers {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: ipvs::Error,
    },
    /// The interface with the Services' addresses.
    #[error("cannot put addresses on {device}", device = super::DEVICE)]
    Device(#[from] NetlinkError),
    /// An interface of that name is somebody else's.
    #[error("interface {device} is not Corten's (its alias is not {alias:?})", device = super::DEVICE, alias = super::ALIAS)]
    Foreign,
    /// The runtime of the netlink socket.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
}

/// `EPERM`.
const EPERM: i32 = 1;

/// What a refusal while doing `action` means.
pub(super) fn failed(action: &'static str) -> impl FnOnce(ipvs::Error) -> Error {
    move |source| match source {
        ipvs::Error::Missing => Error::Missing,
        source if source.errno() == Some(EPERM) => Error::Denied,
        source => Error::Servers { action, source },
    }
}
