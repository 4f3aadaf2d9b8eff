//! Nodes: what the API says of them, what their agents say, and whether they are heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Labels;
use crate::name::Name;
use crate::net::Family;

/// Presence of this label on a Node takes it out of every election.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// This taint on a Node says that the cluster autoscaler is about to delete it.
pub const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// This taint on a Node says that it is off and will not come back by itself.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The fields of a Node that some planner reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its labels.
    pub labels: Labels,
    /// `status.addresses` of type InternalIP; of ExternalIP in a family that has none.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_ranges: Vec<IpNet>,
    /// Condition `NetworkUnavailable` is True.
    pub network_unavailable: bool,
    /// `spec.unschedulable`.
    pub cordoned: bool,
    /// `corten drain` asks for everything to be given away.
    pub drain_asked: bool,
    /// Its kubelet says that the machine is being shut down.
    pub shutting_down: bool,
    /// Taint `node.kubernetes.io/out-of-service`: somebody has made sure that it is off.
    pub out_of_service: bool,
    /// It is being taken away: the Node is being deleted, or the cluster autoscaler says so.
    #[serde(default)]
    pub going: bool,
    /// Condition `Ready` is Unknown: nothing is heard of its kubelet.
    pub unreachable: bool,
}

impl Node {
    /// Whether its agent is to give everything away, layer 2 first.
    pub const fn leaves(&self) -> bool {
        self.drain_asked || self.shutting_down
    }
}

/// The label with a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

impl Node {
    /// The zone it is in.
    pub fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE_LABEL).map(String::as_str)
    }

    /// Its primary address of one family: the first.
    pub fn primary(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
    }
}

/// One network interface as its agent reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Administratively and physically up, and fit for layer 2.
    pub up: bool,
    /// The subnets of its addresses.
    pub subnets: Vec<IpNet>,
    /// Its MAC address; `None`: it was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<[u8; 6]>,
}

/// Counts the owners of an address that stays with its owner: of two that say they have it the one
/// with the later term does.
pub type Term = u32;

/// Addresses with the terms in which a node has them.
pub type Tenures = BTreeMap<IpAddr, Term>;

/// What an agent says of its node (`NodeState`). A node without one runs no agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its interfaces by name.
    pub interfaces: BTreeMap<Name, Interface>,
    /// It hands its addresses over and takes none.
    pub draining: bool,
    /// The addresses that it has and that stay with it (`handBack: false`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenures: Tenures,
    /// The addresses that it would announce and does not: strangers on the link have them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub withheld: BTreeSet<IpAddr>,
    /// Grows with every start of the agent: of two forms the one with the higher holds.
    pub incarnation: u64,
    /// Grows with every change within one incarnation.
    pub version: u64,
}

impl NodeState {
    /// Whether `other` is older than this form.
    pub const fn newer_than(&self, other: &Self) -> bool {
        self.incarnation > other.incarnation
            || (self.incarnation == other.incarnation && self.version > other.version)
    }

    /// Whether both say the same of the node, though perhaps not at the same time.
    pub fn says_as(&self, other: &Self) -> bool {
        self.is_able_as(other) && self.tenures == other.tenures && self.withheld == other.withheld
    }

    /// Whether the node can do the same by both, whatever it has.
    pub(super) fn is_able_as(&self, other: &Self) -> bool {
        self.interfaces == other.interfaces && self.draining == other.draining
    }

    /// The addresses of which both do not say the same.
    pub(super) fn moved<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpAddr> + 'a {
        let both = self.tenures.keys().chain(other.tenures.keys());
        both.copied()
            .filter(|ip| self.tenures.get(ip) != other.tenures.get(ip))
    }
}
