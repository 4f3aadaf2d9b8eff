//! BGP for IPv4 and IPv6 unicast (RFC 4271, RFC 4760 and those named in the rooms).
pub mod adj_out;
mod attribute;
mod capability;
mod codec;
mod error;
mod family;
pub mod fsm;
mod negotiated;
pub mod notification;
mod open;
mod packet;
mod prefix;
mod reader;
mod refresh;
#[cfg(test)]
mod tests;
mod update;

pub use adj_out::{AdjOut, LocalAddresses, Path};
pub use attribute::{
    Aggregator, AsPath, AttributeFault, Attributes, Community, DEFAULT_LOCAL_PREF, Disposition,
    ExtendedCommunity, Flaw, LargeCommunity, LinkBandwidth, NextHop, Opaque, Origin,
};
pub use capability::{AddPath, Capability, GracefulRestart, LongLived};
pub use codec::Codec;
pub use error::{Error, Fault};
pub use family::{AfiSafi, Families, Family};
pub use negotiated::Negotiated;
pub use notification::Notification;
pub use open::{Asn, Open};
pub use packet::{Framer, HEADER_LEN, Kind, MAX_EXTENDED_LEN, MAX_LEN, Message, keepalive};
pub use prefix::{Nlri, Prefix, PrefixError};
pub use refresh::{Refresh, RefreshKind};
pub use update::{Announce, Announced, TooLarge, Update, Withdraw, end_of_rib};
