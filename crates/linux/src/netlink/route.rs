//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteProtocol, RouteScope, RouteVia,
};
use rtnetlink::RouteMessageBuilder;

use super::{Asked, Netlink, Result};

/// The protocol number of routes that an administrator made (`RTPROT_STATIC`).
pub const PROTOCOL_STATIC: u8 = 4;
/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;

/// A next hop and the interface that it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// Its address.
    pub via: IpAddr,
    /// The interface's index.
    pub device: u32,
}

/// A unicast route.
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
    /// Several next hops, of equal weight, in place of `via` and `device`.
    pub multipath: Vec<Hop>,
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
            multipath: Vec::new(),
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

    /// Sets the next hops: one or several.
    #[must_use]
    pub fn hops(mut self, hops: &[Hop]) -> Self {
        if let [hop] = hops {
            return self.via(hop.via).device(hop.device);
        }
        self.multipath = hops.to_vec();
        self
    }

    /// The next hops with a known interface, in order.
    pub fn next_hops(&self) -> Vec<Hop> {
        let mut hops = self.multipath.clone();
        if let (Some(via), Some(device)) = (self.via, self.device) {
            hops.push(Hop { via, device });
        }
        hops.sort_unstable();
        hops
    }

    fn message(&self) -> RouteMessage {
        let mut message = match self.to {
            (IpAddr::V4(to), prefix) => {
                let mut builder =
                    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, prefix);
                match self.via {
                    Some(IpAddr::V4(hop)) => builder = builder.gateway(hop),
                    Some(IpAddr::V6(hop)) => builder = builder.via(hop),
                    None if !self.multipath.is_empty() => {}
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
        if !self.multipath.is_empty() {
            let hops = self.multipath.iter().map(|hop| self.next_hop(*hop));
            message
                .attributes
                .push(RouteAttribute::MultiPath(hops.collect()));
        }
        message
    }

    fn next_hop(&self, hop: Hop) -> RouteNextHop {
        let gateway = match (self.to.0, hop.via) {
            // RFC 8950 in the kernel's words.
            (IpAddr::V4(_), IpAddr::V6(via)) => RouteAttribute::Via(RouteVia::Inet6(via)),
            (_, via) => RouteAttribute::Gateway(via.into()),
        };
        let mut message = RouteNextHop::default();
        message.interface_index = hop.device;
        message.attributes.push(gateway);
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
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => route.to.0 = ip(to)?,
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.via = via(attribute),
                RouteAttribute::MultiPath(hops) => {
                    let hops = hops.iter().filter_map(|hop| {
                        let via = hop.attributes.iter().find_map(via)?;
                        let device = hop.interface_index;
                        Some(Hop { via, device })
                    });
                    route.multipath = hops.collect();
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

/// The table that a route is in, and the interfaces that it leads to.
pub(super) fn place(message: &RouteMessage) -> (u32, Vec<u32>) {
    let mut table = message.header.table.into();
    let mut devices = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => devices.push(*index),
            RouteAttribute::MultiPath(hops) => {
                devices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    (table, devices)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// The address of a next hop.
fn via(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(hop) => ip(hop),
        RouteAttribute::Via(RouteVia::Inet(hop)) => Some((*hop).into()),
        RouteAttribute::Via(RouteVia::Inet6(hop)) => Some((*hop).into()),
        _ => None,
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.to.0, self.to.1)?;
        self.via.map_or(Ok(()), |hop| write!(f, " via {hop}"))?;
        self.device
            .map_or(Ok(()), |index| write!(f, " on link {index}"))?;
        for hop in &self.multipath {
            write!(f, " via {} on link {}", hop.via, hop.device)?;
        }
        match self.table {
            TABLE_MAIN => Ok(()),
            table => write!(f, " in table {table}"),
        }
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

    /// Removes the route of this destination, metric, protocol and table, whatever its next hops.
    pub async fn del_route_by_key(&self, route: &Route) -> Result<()> {
        let what = || format!("remove route {route}");
        let bare = Route {
            via: None,
            device: None,
            multipath: Vec::new(),
            ..route.clone()
        };
        let mut message = bare.message();
        // Any scope, in the kernel's words.
        message.header.scope = RouteScope::NoWhere;
        let request = self.handle.route().del(message);
        request.execute().await.asked(what)
    }

    /// All unicast routes of both families and all tables.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            let mut answers = self.handle.route().get(filter).execute();
            while let Some(message) = answers.try_next().await.asked(|| "list routes".into())? {
                use netlink_packet_route::route::{RouteFlags, RouteType};
                // What the kernel learnt of paths is among them.
                let learnt = message.header.flags.contains(RouteFlags::Cloned);
                if message.header.kind == RouteType::Unicast && !learnt {
                    routes.extend(Route::from_message(&message));
                }
            }
        }
        Ok(routes)
    }
}
