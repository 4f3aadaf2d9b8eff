//! The shares that a Service asks for: `node-1=3,10.244.1.2=5` (`corten.dev/ipvs-weights`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// The largest weight that `ipvsadm(8)` takes.
const LARGEST: u32 = 65_535;

/// Weights of a service port's endpoints, as the Service asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Of its endpoints, those with another weight than 1.
    pub others: BTreeMap<SocketAddr, u32>,
    /// The first part of the annotation that is none, as written.
    pub bad: Option<Name>,
}

impl Weights {
    /// The weight of an endpoint.
    pub fn of(&self, endpoint: &SocketAddr) -> u32 {
        self.others.get(endpoint).copied().unwrap_or(1)
    }
}

/// The annotation as read.
#[derive(Debug, Default)]
pub(in crate::forward) struct Asked<'a> {
    nodes: BTreeMap<&'a str, u32>,
    addresses: BTreeMap<IpAddr, u32>,
    bad: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// Parts behind commas, each the name of a node or an endpoint's address, and a number. What
    /// is none is left out, and the rest counts.
    pub(in crate::forward) fn read(text: &'a str) -> Self {
        let mut asked = Self::default();
        for part in text.split(',').map(str::trim) {
            let read = part.split_once('=').and_then(|(who, weight)| {
                let weight: u32 = weight.trim().parse().ok()?;
                let who = who.trim();
                (weight <= LARGEST && !who.is_empty()).then_some((who, weight))
            });
            match read {
                Some((who, weight)) => {
                    match who.parse() {
                        Ok(address) => asked.addresses.insert(address, weight),
                        Err(_) => asked.nodes.insert(who, weight),
                    };
                }
                None => {
                    asked.bad.get_or_insert(part);
                }
            }
        }
        asked
    }

    /// The weights of these endpoints, each given with its node. An address is nearer than a node.
    pub(in crate::forward) fn weights<'e>(
        &self,
        endpoints: impl Iterator<Item = (SocketAddr, Option<&'e str>)>,
    ) -> Weights {
        let others = endpoints.filter_map(|(at, node)| {
            let of_node = || self.nodes.get(node?);
            let weight = self.addresses.get(&at.ip()).or_else(of_node)?;
            (*weight != 1).then_some((at, *weight))
        });
        Weights {
            others: others.collect(),
            bad: self.bad.map(Name::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_and_others_left_out() {
        let endpoints = ["10.1.0.2:80", "10.1.0.3:80", "[fd00::2]:80", "10.1.0.4:80"];
        let nodes = [Some("a"), Some("b"), Some("a"), None];
        for (text, weights, bad) in [
            ("a=3", [3, 1, 3, 1], None),
            ("a=3, b = 2", [3, 2, 3, 1], None),
            ("a=3,10.1.0.2=5,fd00::2=1", [5, 1, 1, 1], None),
            ("10.1.0.4=0,c=9", [1, 1, 1, 0], None),
            ("a=65535,b=65536", [65_535, 1, 65_535, 1], Some("b=65536")),
            ("a=-1,,b=2", [1, 2, 1, 1], Some("a=-1")),
            ("", [1, 1, 1, 1], Some("")),
            ("a", [1, 1, 1, 1], Some("a")),
            ("=4,a=2", [2, 1, 2, 1], Some("=4")),
        ] {
            let endpoints: Vec<SocketAddr> =
                endpoints.iter().map(|it| it.parse().unwrap()).collect();
            let asked = Asked::read(text);
            let found = asked.weights(endpoints.iter().copied().zip(nodes));
            let seen: Vec<u32> = endpoints.iter().map(|it| found.of(it)).collect();
            assert_eq!(
                (&*seen, found.bad.as_deref()),
                (&weights[..], bad),
                "{text:?}"
            );
        }
    }
}
