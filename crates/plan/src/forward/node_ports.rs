//! The addresses of a node on which `nodePort`s are (`spec/dataplane.md` §1.5), kube-proxy's
//! `--nodeport-addresses`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Loopback, is_of};
use crate::net::Family;
use crate::world::Node;

/// Which addresses are wanted, and which there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePorts {
    /// Those in one of these ranges; `None`: the node's primary ones, kube-proxy's default with
    /// nftables. A family without a range of its own has all, unless `primary` is wanted. Ranges of
    /// loopback addresses, and only these, mean 127.0.0.1 and ::1 (KEP-6032).
    pub ranges: Option<Vec<IpNet>>,
    /// The node's primary ones, beside those in the ranges.
    #[serde(default)]
    pub primary: bool,
    /// This host's own addresses, where ranges choose among them: neither loopback nor link-local
    /// ones, nor those of Services.
    pub own: BTreeSet<IpAddr>,
}

/// The loopback address with node ports.
const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

impl NodePorts {
    /// The families that the ranges do not speak of.
    pub fn unrestricted(&self) -> Vec<Family> {
        let ranges = self.ranges.iter().filter(|_| !self.primary);
        ranges
            .flat_map(|ranges| {
                let families = [Family::V4, Family::V6].into_iter();
                families.filter(|family| !ranges.iter().any(|range| is_of(range, *family)))
            })
            .collect()
    }

    /// The addresses of one family.
    pub(super) fn addresses(&self, node: Option<&Node>, family: Family) -> Vec<IpAddr> {
        let primary = node.and_then(|node| node.primary(family));
        let Some(ranges) = &self.ranges else {
            return primary.into_iter().collect();
        };
        let own = self.own.iter().copied();
        let ranges = ranges.iter().filter(|range| is_of(range, family));
        let all = ranges.clone().next().is_none() && !self.primary;
        let here = self.loopback(node).source(family).is_some();
        let found: BTreeSet<IpAddr> = own
            .filter(|address| Family::of(*address) == family)
            .filter(|address| all || ranges.clone().any(|range| range.contains(address)))
            .chain(primary.filter(|_| self.primary))
            .chain(here.then(|| loopback(family)))
            .collect();
        found.into_iter().collect()
    }

    /// How connections to loopback addresses go on from here. Without an address to go on from, the
    /// loopback has no node ports.
    pub fn loopback(&self, node: Option<&Node>) -> Loopback {
        let wanted = |family| {
            let mut ranges = self.ranges.iter().flatten();
            ranges.any(|range| range.network().is_loopback() && range.contains(&loopback(family)))
        };
        let source = |family| {
            let primary = node.and_then(|node| node.primary(family));
            let mut own = self.own.iter().copied();
            // What the Node says is an address of it may be one that it has behind a router.
            let is_own = primary.filter(|address| self.own.contains(address));
            let own = || own.find(|address| Family::of(*address) == family);
            wanted(family).then(|| is_own.or_else(own).or(primary))?
        };
        Loopback {
            v4: match source(Family::V4) {
                Some(IpAddr::V4(address)) => Some(address),
                _ => None,
            },
            v6: match source(Family::V6) {
                Some(IpAddr::V6(address)) => Some(address),
                _ => None,
            },
        }
    }

    /// Where a port of the node is answered; `None`: everywhere, also where the node's primary
    /// addresses are wanted and not known.
    pub(super) fn listen(&self, node: Option<&Node>) -> Option<Vec<IpAddr>> {
        let everything = |family| {
            let ranges = self.ranges.as_deref().unwrap_or_default();
            let mut of_family = ranges.iter().filter(|range| is_of(range, family));
            of_family.any(|range| range.prefix_len() == 0)
        };
        let families = [Family::V4, Family::V6];
        let open = |family| everything(family) || self.unrestricted().contains(&family);
        if self.ranges.is_some() && families.into_iter().all(open) {
            return None;
        }
        let all = families.map(|family| self.addresses(node, family));
        let all: Vec<IpAddr> = all.into_iter().flatten().collect();
        (self.ranges.is_some() || !all.is_empty()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list<T: std::str::FromStr<Err: std::fmt::Debug>, C: FromIterator<T>>(text: &str) -> C {
        text.split_whitespace()
            .map(|item| item.parse().expect("one of them"))
            .collect()
    }

    /// Ranges, and the addresses that are chosen.
    #[test]
    fn kube_proxys_rules() {
        let node = Node {
            addresses: list("172.16.0.1 172.16.0.2 fd00::1"),
            ..Node::default()
        };
        let own = "10.5.0.1 172.16.0.1 172.16.0.2 fd00::1 fd05::1";
        let table = [
            (None, "172.16.0.1 fd00::1", "172.16.0.1 fd00::1", ""),
            (
                Some("10.5.0.0/16 fd05::/64"),
                "10.5.0.1 fd05::1",
                "10.5.0.1 fd05::1",
                "",
            ),
            (
                Some("10.0.0.0/8 172.16.0.2/32 ::1/128"),
                "10.5.0.1 172.16.0.2 ::1",
                "10.5.0.1 172.16.0.2 ::1",
                "",
            ),
            // Only what says the loopback means it, and the addresses that are served there.
            (
                Some("127.0.0.0/8 fd05::/64"),
                "127.0.0.1 fd05::1",
                "127.0.0.1 fd05::1",
                "",
            ),
            (Some("127.0.0.2/32 fd05::/64"), "fd05::1", "fd05::1", ""),
            (
                Some("0.0.0.0/1 fd05::/64"),
                "10.5.0.1 fd05::1",
                "10.5.0.1 fd05::1",
                "",
            ),
            // A family that has no range of its own has all.
            (
                Some("10.5.0.0/16"),
                "10.5.0.1 fd00::1 fd05::1",
                "10.5.0.1 fd00::1 fd05::1",
                "IPv6",
            ),
            (
                Some("fd05::/64"),
                "10.5.0.1 172.16.0.1 172.16.0.2 fd05::1",
                "10.5.0.1 172.16.0.1 172.16.0.2 fd05::1",
                "IPv4",
            ),
            (Some("0.0.0.0/0 ::/0"), own, "*", ""),
            (Some("0.0.0.0/0"), own, "*", "IPv6"),
            (Some(""), own, "*", "IPv4 IPv6"),
            (Some("192.168.0.0/16 fd09::/64"), "", "", ""),
        ];
        for (ranges, expected, listen, unrestricted) in table {
            let ports = NodePorts {
                ranges: ranges.map(list),
                primary: false,
                own: list(own),
            };
            let found: Vec<IpAddr> = [Family::V4, Family::V6]
                .into_iter()
                .flat_map(|family| ports.addresses(Some(&node), family))
                .collect();
            assert_eq!(found, list::<IpAddr, Vec<_>>(expected), "{ranges:?}");
            let listen = (listen != "*").then(|| list::<IpAddr, Vec<_>>(listen));
            assert_eq!(ports.listen(Some(&node)), listen, "{ranges:?}");
            let names: Vec<String> = ports.unrestricted().iter().map(|f| f.to_string()).collect();
            assert_eq!(names.join(" "), unrestricted, "{ranges:?}");
        }
        let nowhere = NodePorts::default();
        assert!(nowhere.addresses(None, Family::V4).is_empty());
        assert_eq!(nowhere.listen(None), None);
    }

    /// What is wanted beside the primary addresses, and what that makes of a node without IPv6.
    #[test]
    fn the_primary_addresses_and_others() {
        let node = Node {
            addresses: list("172.16.0.1"),
            ..Node::default()
        };
        let all = [Family::V4, Family::V6];
        for (ranges, own, expected, sources) in [
            (
                "127.0.0.1/32 ::1/128",
                "",
                "127.0.0.1 172.16.0.1",
                "172.16.0.1",
            ),
            (
                "127.0.0.1/32 ::1/128",
                "10.5.0.1 172.16.0.1 fd05::1",
                "127.0.0.1 172.16.0.1 ::1",
                "172.16.0.1 fd05::1",
            ),
            // The primary one is not this host's.
            (
                "127.0.0.1/32",
                "10.5.0.1 fd05::1",
                "127.0.0.1 172.16.0.1",
                "10.5.0.1",
            ),
            ("10.0.0.0/8", "10.5.0.1 fd05::1", "10.5.0.1 172.16.0.1", ""),
            ("", "10.5.0.1 fd05::1", "172.16.0.1", ""),
        ] {
            let ports = NodePorts {
                ranges: Some(list(ranges)),
                primary: true,
                own: list(own),
            };
            let found = all.map(|family| ports.addresses(Some(&node), family));
            assert_eq!(
                found.concat(),
                list::<IpAddr, Vec<_>>(expected),
                "{ranges:?}"
            );
            let found = all.map(|family| ports.loopback(Some(&node)).source(family));
            let found: Vec<IpAddr> = found.into_iter().flatten().collect();
            assert_eq!(found, list::<IpAddr, Vec<_>>(sources), "{ranges:?}");
            assert!(ports.unrestricted().is_empty());
        }
        assert_eq!(
            NodePorts::default().loopback(Some(&node)),
            Loopback::default()
        );
    }
}
