//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::RouteMessageBuilder;

use super::{Asked, Netlink, Result};

/// The protocol number of routes that an administrator made (`RTPROT_STATIC`).
pub const PROTOCOL_STATIC: u8 = 4;
/// `RT_TABLE_MAIN`.
const TABLE_MAIN: u32 = 254;

/// A unicast route with at most one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to: address and prefix length, `0.0.0.0/0` or `::/0` for all.
    pub to: (IpAddr, u8),
    /// The next hop.
    pub via: Option<IpAddr>,
    /// The interface's index.
    pub device: Option<u32>,
    /// The source address to prefer.
    pub source: Option<IpAddr>,
    /// Lower wins.
    pub metric: Option<u32>,
    /// Who made it.
    pub protocol: u8,
    /// The routing table.
    pub table: u32,
    /// Believe that the next hop is on the link.
    pub onlink: bool,
}

impl Route {
    /// A route of the main table, as an administrator makes them.
    pub fn new(to: IpAddr, prefix: u8) -> Self {
        Self {
            to: (to, prefix),
            via: None,
            device: None,
            source: None,
            metric: None,
            protocol: PROTOCOL_STATIC,
            table: TABLE_MAIN,
            onlink: false,
        }
    }

    /// Sets the next hop.
    #[must_use]
    pub fn via(self, hop: IpAddr) -> Self {
        Self {
            via: Some(hop),
            ..self
        }
    }

    /// Sets the interface.
    #[must_use]
    pub fn device(self, index: u32) -> Self {
        Self {
            device: Some(index),
            ..self
        }
    }

    fn message(&self) -> RouteMessage {
        let mut message = match self.to {
            (IpAddr::V4(to), prefix) => {
                let mut builder =
                    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, prefix);
                match self.via {
                    Some(IpAddr::V4(hop)) => builder = builder.gateway(hop),
                    Some(IpAddr::V6(hop)) => builder = builder.via(hop),
                    // Without a hop the destination is on the link, which the kernel wants to hear.
                    None => builder = builder.scope(RouteScope::Link),
                }
                if let Some(IpAddr::V4(source)) = self.source {
                    builder = builder.pref_source(source);
                }
                if self.onlink {
                    builder.onlink().build()
                } else {
                    builder.build()
                }
            }
            (IpAddr::V6(to), prefix) => {
                let mut builder =
                    RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, prefix);
                match self.via {
                    Some(IpAddr::V6(hop)) => builder = builder.gateway(hop),
                    // IPv6 over an IPv4 hop does not exist; its mapped form is refused by the
                    // kernel with an error that names the gateway.
                    Some(IpAddr::V4(hop)) => builder = builder.gateway(hop.to_ipv6_mapped()),
                    None => {}
                }
                if let Some(IpAddr::V6(source)) = self.source {
                    builder = builder.pref_source(source);
                }
                if self.onlink {
                    builder.onlink().build()
                } else {
                    builder.build()
                }
            }
        };
        message.header.protocol = RouteProtocol::from(self.protocol);
        // The header's octet cannot hold larger tables; the attribute always counts.
        message.header.table = u8::try_from(self.table).unwrap_or(0);
        message.attributes.push(RouteAttribute::Table(self.table));
        message
            .attributes
            .extend(self.device.map(RouteAttribute::Oif));
        message
            .attributes
            .extend(self.metric.map(RouteAttribute::Priority));
        message
    }

    fn from_message(message: &RouteMessage) -> Option<Self> {
        let any = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut route = Self::new(any, message.header.destination_prefix_length);
        route.protocol = message.header.protocol.into();
        route.table = message.header.table.into();
        route.onlink = message
            .header
            .flags
            .contains(netlink_packet_route::route::RouteFlags::Onlink);
        let ip = |address: &RouteAddress| match address {
            RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
            RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
            _ => None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => route.to.0 = ip(to)?,
                RouteAttribute::Gateway(hop) => route.via = ip(hop),
                RouteAttribute::Via(netlink_packet_route::route::RouteVia::Inet6(hop)) => {
                    route.via = Some((*hop).into())
                }
                RouteAttribute::PrefSource(source) => route.source = ip(source),
                RouteAttribute::Oif(index) => route.device = Some(*index),
                RouteAttribute::Priority(metric) => route.metric = Some(*metric),
                RouteAttribute::Table(table) => route.table = *table,
                _ => {}
            }
        }
        Some(route)
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.to.0, self.to.1)?;
        self.via.map_or(Ok(()), |hop| write!(f, " via {hop}"))?;
        self.device
            .map_or(Ok(()), |index| write!(f, " on link {index}"))
    }
}

impl Netlink {
    /// Adds a route; one that is there already is an error.
    pub async fn add_route(&self, route: &Route) -> Result<()> {
        let what = || format!("add route {route}");
        self.handle
            .route()
            .add(route.message())
            .execute()
            .await
            .asked(what)
    }

    /// Adds a route, in the place of the one with the same destination, metric and table.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let what = || format!("replace route {route}");
        self.handle
            .route()
            .add(route.message())
            .replace()
            .execute()
            .await
            .asked(what)
    }

    /// Removes a route.
    pub async fn del_route(&self, route: &Route) -> Result<()> {
        let what = || format!("remove route {route}");
        self.handle
            .route()
            .del(route.message())
            .execute()
            .await
            .asked(what)
    }

    /// All unicast routes of both families and all tables; multipath ones without next hops.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            let mut answers = self.handle.route().get(filter).execute();
            while let Some(message) = answers.try_next().await.asked(|| "list routes".into())? {
                if message.header.kind == netlink_packet_route::route::RouteType::Unicast {
                    routes.extend(Route::from_message(&message));
                }
            }
        }
        Ok(routes)
    }
}
