//! The addresses of a node on which `nodePort`s are (`spec/dataplane.md` §1.5), kube-proxy's
//! `--nodeport-addresses`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::is_of;
use crate::net::Family;
use crate::world::Node;

/// Which addresses are wanted, and which there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePorts {
    /// Those in one of these ranges; `None`: the node's primary ones, kube-proxy's default with
    /// nftables. A family without a range of its own has all.
    pub ranges: Option<Vec<IpNet>>,
    /// This host's own addresses, where ranges choose among them: neither loopback nor link-local
    /// ones, nor those of Services.
    pub own: BTreeSet<IpAddr>,
}

impl NodePorts {
    /// The families that the ranges do not speak of.
    pub fn unrestricted(&self) -> Vec<Family> {
        let ranges = self.ranges.iter();
        ranges
            .flat_map(|ranges| {
                let families = [Family::V4, Family::V6].into_iter();
                families.filter(|family| !ranges.iter().any(|range| is_of(range, *family)))
            })
            .collect()
    }

    /// The addresses of one family.
    pub(super) fn addresses(&self, node: Option<&Node>, family: Family) -> Vec<IpAddr> {
        let Some(ranges) = &self.ranges else {
            let primary = node.and_then(|node| node.primary(family));
            return primary.into_iter().collect();
        };
        let own = self.own.iter().copied();
        let ranges = ranges.iter().filter(|range| is_of(range, family));
        let all = ranges.clone().next().is_none();
        own.filter(|address| Family::of(*address) == family)
            .filter(|address| all || ranges.clone().any(|range| range.contains(address)))
            .collect()
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
                "10.5.0.1 172.16.0.2",
                "10.5.0.1 172.16.0.2",
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
}
