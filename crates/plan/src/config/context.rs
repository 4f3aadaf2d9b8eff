//! What compiling needs to know besides the objects.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;

use super::address::Blocks;
use super::{SecretFacts, Selector, chooses};
use crate::name::Name;
use crate::world::{Labels, Node};

/// What compiling needs to know besides the objects.
#[derive(Clone, Debug, Default)]
pub struct Context<'a> {
    /// The namespace that configuration objects must live in.
    pub namespace: &'a str,
    /// `METALLB_BGP_TYPE=native`: peers on one node may differ in router ID and AS number, which
    /// one FRR could not do.
    pub native_bgp: bool,
    /// Labels of every known node. With none known, any two selections of nodes share one.
    pub nodes: BTreeMap<&'a str, &'a Labels>,
    /// Ranges in use by the cluster itself.
    pub ranges: Vec<KnownRange<'a>>,
    /// The Secrets of the namespace; `None`: nobody has looked, and peers are not judged by them.
    pub secrets: Option<&'a BTreeMap<Name, SecretFacts>>,
}

impl<'a> From<&'a str> for Context<'a> {
    /// Nothing is known but the namespace.
    fn from(namespace: &'a str) -> Self {
        Self {
            namespace,
            ..Self::default()
        }
    }
}

impl<'a> Context<'a> {
    /// With these nodes and these ranges of ClusterIPs, each by name.
    pub fn of_cluster(
        namespace: &'a str,
        nodes: &'a BTreeMap<Name, Node>,
        service_ranges: &'a BTreeMap<Name, Vec<IpNet>>,
    ) -> Self {
        let range = |net, purpose, owner| KnownRange {
            net,
            purpose,
            owner,
        };
        let mut ranges = Vec::new();
        for (name, node) in nodes {
            let own = node.addresses.iter().copied().map(IpNet::from);
            ranges.extend(own.map(|net| range(net, Purpose::Node, name)));
            let pods = node.pod_ranges.iter().copied();
            ranges.extend(pods.map(|net| range(net, Purpose::Pod, name)));
        }
        for (name, service_ranges) in service_ranges {
            let services = service_ranges.iter().copied();
            ranges.extend(services.map(|net| range(net, Purpose::Service, name)));
        }
        Self {
            nodes: nodes
                .iter()
                .map(|(name, node)| (&**name, &node.labels))
                .collect(),
            ranges,
            ..Self::from(namespace)
        }
    }

    /// Whether some node is selected by both; an empty list selects all nodes.
    pub(super) fn share_node(&self, a: &[Selector], b: &[Selector]) -> bool {
        self.nodes.is_empty()
            || self
                .nodes
                .values()
                .any(|labels| chooses(a, labels) && chooses(b, labels))
    }
}

/// A range that the cluster uses itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRange<'a> {
    /// The addresses.
    pub net: IpNet,
    /// What they are used for.
    pub purpose: Purpose,
    /// Name of the object that says so.
    pub owner: &'a str,
}

/// What a range of the cluster is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A node's own address.
    Node,
    /// The pods of a node.
    Pod,
    /// ClusterIPs.
    Service,
}

impl fmt::Display for KnownRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { net, owner, .. } = self;
        match self.purpose {
            Purpose::Node => write!(f, "the address {} of Node {owner:?}", net.addr()),
            Purpose::Pod => write!(f, "the Pod range {net} of Node {owner:?}"),
            Purpose::Service => write!(f, "the Service range {net} of ServiceCIDR {owner:?}"),
        }
    }
}

/// Ranges of one pool by entry, to hold the cluster's ranges against.
pub(super) struct Entries(Blocks<usize>);

impl Entries {
    pub(super) fn new(blocks: impl Iterator<Item = (IpNet, usize)>) -> Self {
        let mut entries = Blocks::default();
        for (block, entry) in blocks {
            entries.insert(block, entry);
        }
        Self(entries)
    }

    /// For each entry and purpose the first range that meets it, and how many more do.
    pub(super) fn met<'a, 'b>(
        &self,
        ranges: &'b [KnownRange<'a>],
    ) -> BTreeMap<(usize, Purpose), (&'b KnownRange<'a>, usize)> {
        let mut met = BTreeMap::new();
        for range in ranges {
            if let Some((_, entry)) = self.0.meets(&range.net) {
                met.entry((*entry, range.purpose))
                    .and_modify(|(_, more)| *more += 1)
                    .or_insert((range, 0));
            }
        }
        met
    }
}
