//! BGP for IPv4 and IPv6 unicast (RFC 4271, RFC 4760, and those that the rooms name).
//!
//! | Room | Holds |
//! |---|---|
//! | `packet` with `open`, `capability`, `update`, `attribute`, `notification`, `refresh` | bytes to values and back, incremental framing |
//! | `error`, `attribute::flaw` | what is wrong, where, by which paragraph, and what follows: a NOTIFICATION, or a disposition of RFC 7606 |
//! | `negotiated`, `codec` | what two OPENs agree on |
//! | [`fsm`] | one peer: two connections at most, timers, graceful restart |
//! | [`adj_out`] | routes that should be announced against those sent |
//! | [`adj_in`], [`loc_rib`] | routes that were accepted, and which of them count |
//! | `fuzz`, `cases` | targets that take any bytes; the cases of RFC 7606 |
//!
//! The caller's loop: bytes from the socket to [`fsm::Peer::received`]; its outputs to sockets,
//! status and both RIBs; after each change [`AdjOut::poll`] into one buffer, sent on the session's
//! connection, with [`fsm::Peer::queued`]. RFC 7606 decides on malformed attributes: a session ends
//! only where its prefixes cannot be read. AS_SET and confederations are not spoken (RFC 9774).

pub mod adj_in;
pub mod adj_out;
mod attribute;
mod capability;
#[cfg(any(test, feature = "cases"))]
pub mod cases;
mod codec;
mod error;
mod family;
pub mod fsm;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod initial;
pub mod loc_rib;
mod messages;
mod negotiated;
pub mod notification;
mod open;
#[cfg(test)]
mod oracle;
mod packet;
mod prefix;
mod reader;
mod refresh;
mod role;
#[cfg(test)]
mod tests;
mod update;

pub use adj_in::{AdjIn, LearnedPath};
pub use adj_out::{AdjOut, LocalAddresses, Path};
pub use attribute::{
    Aggregator, AsPath, AttributeFault, Attributes, Community, DEFAULT_LOCAL_PREF, Disposition,
    ExtendedCommunity, Flaw, LargeCommunity, LinkBandwidth, NextHop, Opaque, Origin,
};
pub use capability::{AddPath, Capability, GracefulRestart, LongLived};
pub use codec::Codec;
pub use error::{Error, Fault};
pub use family::{AfiSafi, Families, Family};
pub use initial::Initial;
pub use loc_rib::LocRib;
pub use messages::Messages;
pub use negotiated::Negotiated;
pub use notification::Notification;
pub use open::{Asn, Open};
pub use packet::{Framer, HEADER_LEN, Kind, MAX_EXTENDED_LEN, MAX_LEN, Message, keepalive};
pub use prefix::{Nlri, Prefix, PrefixError};
pub use refresh::{Refresh, RefreshKind};
pub use role::{LocalRole, Role, RoleMismatch};
pub use update::{Announce, Announced, TooLarge, Update, Withdraw, end_of_rib};
