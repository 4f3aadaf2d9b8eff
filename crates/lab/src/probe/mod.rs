//! Probes: questions that a host asks the network, without outside tools.

mod asker;
mod frame;
mod gap;
mod http;
mod neighbour;

use std::net::IpAddr;

pub use asker::{Ask, Asker};
pub use gap::{Gaps, Prober, Target};
pub use http::{Answer, HttpError};

/// The unspecified address of a family: "any of mine".
pub(crate) fn any(ip: IpAddr) -> IpAddr {
    if ip.is_ipv6() {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    }
}
