//! Where a received next hop is: on the link, or nowhere.
//!
//! Only next hops on a link of this host count: a route over a router that is farther away would
//! need routes to that router, which are the operator's to give.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::netlink::{Hop, Interface};
use proto::bgp::NextHop;

/// Where a peer's routes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::agent::bgp) struct Origin {
    /// The peer is of another AS.
    pub(in crate::agent::bgp) external: bool,
    /// Index of the session's interface.
    pub(in crate::agent::bgp) device: Option<u32>,
    /// Index of the VRF that the session is in.
    pub(in crate::agent::bgp) vrf: Option<u32>,
}

/// The next hop for the kernel; `None`: it is of no use, as it is on no link, or our own address.
pub(in crate::agent::bgp) fn hop(
    next_hop: &NextHop,
    origin: &Origin,
    interfaces: &[Interface],
) -> Option<Hop> {
    match *next_hop {
        NextHop::V4(via) => on_link(via.into(), origin, interfaces),
        NextHop::V6(via) if via.is_unicast_link_local() => local(via.into(), origin, interfaces),
        NextHop::V6(via) => on_link(via.into(), origin, interfaces),
        // RFC 2545 §3: the link-local one is there for who shares the link.
        NextHop::V6Both { global, link_local } => local(link_local.into(), origin, interfaces)
            .filter(|_| link_local.is_unicast_link_local())
            .or_else(|| on_link(global.into(), origin, interfaces)),
    }
}

/// On the session's own interface.
fn local(via: IpAddr, origin: &Origin, interfaces: &[Interface]) -> Option<Hop> {
    let interface = interfaces
        .iter()
        .find(|interface| interface.up && Some(interface.index) == origin.device)?;
    let own = interface.addresses.iter().any(|(ip, _)| *ip == via);
    (!own).then_some(Hop {
        via,
        device: interface.index,
    })
}

/// On the interface with the longest matching subnet.
fn on_link(via: IpAddr, origin: &Origin, interfaces: &[Interface]) -> Option<Hop> {
    let all = interfaces
        .iter()
        .filter(|it| it.up && !it.flags.loopback)
        .filter(|it| origin.vrf.is_none() || it.master == origin.vrf);
    let subnets = all.flat_map(|it| it.addresses.iter().map(move |address| (it, address)));
    let mut best: Option<(u8, u32)> = None;
    for (interface, (ip, length)) in subnets {
        if *ip == via {
            return None;
        }
        let on_it = IpNet::new(*ip, *length).is_ok_and(|subnet| subnet.contains(&via));
        if on_it && best.is_none_or(|(longest, _)| *length > longest) {
            best = Some((*length, interface.index));
        }
    }
    best.map(|(_, device)| Hop { via, device })
}

#[cfg(test)]
mod tests {
    use linux::netlink::LinkFlags;

    use super::*;

    fn interface(index: u32, addresses: &[(&str, u8)]) -> Interface {
        Interface {
            index,
            name: format!("eth{index}"),
            mac: None,
            up: true,
            carrier: true,
            flags: LinkFlags::default(),
            master: (index == 4).then_some(9),
            mtu: 1500,
            addresses: addresses
                .iter()
                .map(|(ip, length)| (ip.parse().expect("an address"), *length))
                .collect(),
        }
    }

    #[test]
    fn a_next_hop_is_on_a_link_or_of_no_use() {
        let mut down = interface(5, &[("10.5.0.1", 24)]);
        down.up = false;
        let mut lo = interface(1, &[("127.0.0.1", 8)]);
        lo.flags.loopback = true;
        let all = [
            lo,
            interface(2, &[("10.0.0.11", 16), ("fd00::11", 64), ("fe80::11", 64)]),
            interface(3, &[("10.0.1.11", 24)]),
            interface(4, &[("10.0.0.11", 24)]),
            down,
        ];
        let find = |next_hop, vrf| {
            let origin = Origin {
                external: true,
                device: Some(2),
                vrf,
            };
            hop(&next_hop, &origin, &all).map(|hop| (hop.via.to_string(), hop.device))
        };
        let v4 = |text: &str| NextHop::V4(text.parse().expect("an address"));
        let v6 = |text: &str| NextHop::V6(text.parse().expect("an address"));
        let both = |global: &str, link_local: &str| NextHop::V6Both {
            global: global.parse().expect("an address"),
            link_local: link_local.parse().expect("an address"),
        };
        let there = |via: &str, device| Some((via.to_owned(), device));
        for (next_hop, vrf, want) in [
            (v4("10.0.2.1"), None, there("10.0.2.1", 2)),
            (v4("10.0.1.1"), None, there("10.0.1.1", 3)),
            (v4("10.0.0.1"), Some(9), there("10.0.0.1", 4)),
            (v4("10.0.1.1"), Some(9), None),
            (v4("10.0.1.11"), None, None),
            (v4("10.5.0.2"), None, None),
            (v4("127.0.0.2"), None, None),
            (v4("192.0.2.1"), None, None),
            (v6("fd00::1"), None, there("fd00::1", 2)),
            (v6("fe80::1"), None, there("fe80::1", 2)),
            (v6("fe80::11"), None, None),
            (both("2001:db8::1", "fe80::1"), None, there("fe80::1", 2)),
            (both("fd00::1", "::"), None, there("fd00::1", 2)),
        ] {
            assert_eq!(find(next_hop, vrf), want, "{next_hop:?} {vrf:?}");
        }
        let nowhere = Origin::default();
        assert_eq!(hop(&v6("fe80::1"), &nowhere, &all), None);
    }
}
