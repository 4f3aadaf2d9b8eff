//! Which traffic comes from Pods of this cluster, or of this node, and what that changes
//! (`spec/dataplane.md` §1.6): kube-proxy's detectors of local traffic; and the ranges that cluster
//! IPs come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::Family;
use crate::world::Node;

/// How a Pod's traffic is told from others', as the node's administrator says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detector {
    /// By source, in one of these ranges; a family without one is not told apart.
    ClusterCidr(Vec<IpNet>),
    /// By source, in `spec.podCIDRs` of the Node.
    NodeCidr,
    /// By the bridge that it comes in by.
    Bridge(String),
    /// By how the name of the interface begins that it comes in by.
    Prefix(String),
}

impl Default for Detector {
    fn default() -> Self {
        Self::ClusterCidr(Vec::new())
    }
}

/// What the proxy is told of sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// How Pods are told from others.
    pub detector: Detector,
    /// Everything to a cluster IP is masqueraded.
    pub masquerade_all: bool,
}

impl Sources {
    /// What that means on `node`, once it is known.
    pub fn on(&self, node: Option<&Node>) -> Locality {
        let pods = match &self.detector {
            Detector::ClusterCidr(ranges) => Pods::Ranges(trunc(ranges)),
            Detector::NodeCidr => {
                Pods::Ranges(node.map_or_else(Vec::new, |node| trunc(&node.pod_ranges)))
            }
            Detector::Bridge(name) => Pods::Interface {
                name: name.clone(),
                prefix: false,
            },
            Detector::Prefix(name) => Pods::Interface {
                name: name.clone(),
                prefix: true,
            },
        };
        Locality {
            pods,
            masquerade_all: self.masquerade_all,
            cluster_ranges: Vec::new(),
            loopback: Loopback::default(),
        }
    }
}

fn trunc(ranges: &[IpNet]) -> Vec<IpNet> {
    let mut ranges: Vec<IpNet> = ranges.iter().map(IpNet::trunc).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// Where the traffic of Pods comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pods {
    /// From these addresses. A family without a range is not told apart.
    Ranges(Vec<IpNet>),
    /// By this interface, or by those whose names begin so.
    Interface {
        /// Its name, or how that begins.
        name: String,
        /// How it begins.
        prefix: bool,
    },
}

impl Default for Pods {
    fn default() -> Self {
        Self::Ranges(Vec::new())
    }
}

/// What the cluster and the node's options change on this node, whatever its Services, with no
/// choices left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locality {
    /// Where the traffic of Pods comes from.
    pub pods: Pods,
    /// Everything to a cluster IP is masqueraded.
    pub masquerade_all: bool,
    /// The ranges that cluster IPs come from (ServiceCIDR): what is for an address of theirs that no
    /// Service has is dropped, before it leaves for somebody's default route.
    #[serde(default)]
    pub cluster_ranges: Vec<IpNet>,
    /// How this host's connections to its loopback go on.
    #[serde(default)]
    pub loopback: Loopback,
}

/// The source with which packets to a node port on the loopback go on: the kernel routes none with
/// a loopback address out of `lo`. An address of this host; `None`: no node ports there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loopback {
    /// Of those to 127.0.0.1.
    pub v4: Option<Ipv4Addr>,
    /// Of those to `::1`.
    pub v6: Option<Ipv6Addr>,
}

impl Loopback {
    /// The same by family.
    pub fn source(self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// No family has node ports there.
    pub const fn is_off(self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

impl Locality {
    /// The same, where cluster IPs come from these ranges.
    #[must_use]
    pub fn within(self, ranges: impl IntoIterator<Item = IpNet>) -> Self {
        let ranges: Vec<IpNet> = ranges.into_iter().collect();
        Self {
            // In order, and none twice: an address may be of several ServiceCIDRs.
            cluster_ranges: IpNet::aggregate(&ranges),
            ..self
        }
    }

    /// Whether `address` is one that only a Service may have.
    pub fn is_cluster_ip(&self, address: IpAddr) -> bool {
        let mut ranges = self.cluster_ranges.iter();
        ranges.any(|range| range.contains(&address))
    }

    /// Whether Pods are told from others in this family.
    pub fn is_known(&self, family: Family) -> bool {
        match &self.pods {
            Pods::Ranges(ranges) => ranges.iter().any(|range| is_of(range, family)),
            Pods::Interface { .. } => true,
        }
    }

    /// Whether what comes from `source` by `interface` (`None`: this host sends it) is a Pod's.
    pub fn is_pod(&self, source: IpAddr, interface: Option<&str>) -> bool {
        match &self.pods {
            Pods::Ranges(ranges) => ranges.iter().any(|range| range.contains(&source)),
            Pods::Interface { name, prefix } => interface.is_some_and(|interface| match prefix {
                true => interface.starts_with(name.as_str()),
                false => interface == name,
            }),
        }
    }

    /// Whether a connection to a cluster IP is masqueraded whatever its endpoint.
    pub fn masquerades(&self, source: IpAddr, interface: Option<&str>) -> bool {
        let foreign = self.is_known(Family::of(source)) && !self.is_pod(source, interface);
        self.masquerade_all || foreign
    }
}

/// Whether the range is of the family.
pub fn is_of(range: &IpNet, family: Family) -> bool {
    Family::of(range.network()) == family
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|net| net.parse().expect("a range"))
            .collect()
    }

    /// Detector, and what it makes of a source and an interface: known in the family, a Pod.
    #[test]
    fn detectors() {
        let node = Node {
            pod_ranges: nets("10.244.3.0/24 fd00:3::/64"),
            ..Node::default()
        };
        let cluster = |text: &str| Detector::ClusterCidr(nets(text));
        let bridge = || Detector::Bridge("cbr0".to_owned());
        let prefix = || Detector::Prefix("veth".to_owned());
        let table = [
            (cluster(""), "10.244.1.1", Some("veth1"), false, false),
            (cluster("10.244.9.9/16"), "10.244.1.1", None, true, true),
            (cluster("10.244.0.0/16"), "10.245.0.1", None, true, false),
            (cluster("10.244.0.0/16"), "fd00::1", None, false, false),
            (
                cluster("10.244.0.0/16 fd00::/48"),
                "fd00::1",
                None,
                true,
                true,
            ),
            (Detector::NodeCidr, "10.244.3.7", None, true, true),
            (Detector::NodeCidr, "10.244.4.7", None, true, false),
            (Detector::NodeCidr, "fd00:3::7", None, true, true),
            (bridge(), "10.244.3.7", Some("cbr0"), true, true),
            (bridge(), "10.244.3.7", Some("cbr01"), true, false),
            (bridge(), "10.244.3.7", None, true, false),
            (prefix(), "fd00::1", Some("veth1a2b"), true, true),
            (prefix(), "fd00::1", Some("eth0"), true, false),
            (prefix(), "fd00::1", None, true, false),
        ];
        for (detector, source, interface, known, pod) in table {
            let name = format!("{detector:?} {source} {interface:?}");
            let source: IpAddr = source.parse().expect("an address");
            let sources = Sources {
                detector,
                masquerade_all: false,
            };
            let locality = sources.on(Some(&node));
            assert_eq!(locality.is_known(Family::of(source)), known, "{name}");
            assert_eq!(locality.is_pod(source, interface), pod, "{name}");
            let masquerades = locality.masquerades(source, interface);
            assert_eq!(masquerades, known && !pod, "{name}");
            let all = Sources {
                masquerade_all: true,
                ..sources
            };
            assert!(all.on(Some(&node)).masquerades(source, interface), "{name}");
        }
        // Before the Node has its ranges, nothing is told apart.
        let sources = Sources {
            detector: Detector::NodeCidr,
            masquerade_all: false,
        };
        for node in [None, Some(&Node::default())] {
            assert!(!sources.on(node).is_known(Family::V4));
        }
    }
}
