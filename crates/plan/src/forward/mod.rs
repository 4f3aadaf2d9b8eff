//! The Service table: which address and port leads to which endpoints, and its compilation.
//!
//! [`ServicePort`] is the desired state of one port of one Service in one family on one node; it
//! has no choices left in it. Back ends (`dataplane`) bring it to the kernel.
//!
//! [`compile()`] turns one into [`Elements`] of the flat rule set (`spec/dataplane.md` §2.3);
//! [`Table`] holds them all and says what a change changes; [`Tracer`] walks a packet through.

mod compile;
mod element;
mod foreign;
mod health;
pub mod ipvs;
mod jhash;
mod locality;
mod node_ports;
mod select;
mod serving;
pub mod slots;
mod table;
mod trace;

#[cfg(test)]
mod tests;

pub use compile::{compile, slots_id};
pub use element::{Class, Element, ElementKey, Elements, Front, SlotsId};
pub use foreign::{INCORRECT_IP_VERSION, foreign};
pub use health::{HealthCheck, health_check};
pub use jhash::SEED;
pub use locality::{Detector, Locality, Loopback, Pods, Sources, is_of};
pub use node_ports::NodePorts;
pub use select::{Mode, plan};
pub use serving::Serving;
pub use table::{Claim, Delta, Refusal, Table};
pub use trace::{Fate, Origin, Packet, Tracer};

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::name::{Name, ServiceKey};
use crate::net::{Family, Protocol};
use crate::world::Policy;

/// What identifies a forwarded port: kube-proxy's service port name, per family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortKey {
    /// The Service.
    pub service: ServiceKey,
    /// The port's name, empty when it has none.
    pub port: Name,
    /// Its protocol; two ports may share a number with different protocols.
    pub protocol: Protocol,
    /// IPv4 and IPv6 are programmed apart.
    pub family: Family,
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}/{}/{}",
            self.service, self.port, self.protocol, self.family
        )
    }
}

/// Where a frontend's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `spec.externalIPs`.
    ExternalIp,
    /// `status.loadBalancer.ingress`.
    LoadBalancer,
    /// The node's own address, with the number `nodePort`.
    NodePort,
}

/// An address and port that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Where it comes from.
    pub kind: FrontendKind,
    /// Which set of endpoints it leads to.
    pub policy: Policy,
}

/// The desired forwarding of one port on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Sorted, without duplicates.
    pub frontends: Vec<Frontend>,
    /// Endpoints for policy Cluster, sorted, without duplicates.
    pub cluster: Vec<SocketAddr>,
    /// Endpoints on this node, for policy Local, sorted.
    pub local: Vec<SocketAddr>,
    /// Some endpoint is usable somewhere: an empty set then means drop (policy Local with none
    /// here), otherwise reject.
    pub usable_anywhere: bool,
    /// Session affinity by client address, its timeout in seconds.
    pub affinity_seconds: Option<u32>,
    /// `loadBalancerSourceRanges` of this family; empty = open. Applies to load balancer addresses.
    pub source_ranges: Vec<ipnet::IpNet>,
    /// UDP only: all endpoints that serve, wherever they are and whether chosen or not, sorted.
    /// Connections to others are forgotten.
    #[serde(default)]
    pub serving: Vec<SocketAddr>,
    /// Load balancer addresses that another Service had first and need not share: it has the ports
    /// that both want.
    #[serde(default)]
    pub second: Vec<IpAddr>,
    /// Addresses of frontends that are the node's own.
    #[serde(default)]
    pub of_node: Vec<IpAddr>,
    /// How IPVS is to choose among the endpoints (`corten.dev/ipvs-scheduler`), as written.
    #[serde(default)]
    pub scheduler: Option<Name>,
    /// Which shares IPVS is to give the endpoints (`corten.dev/ipvs-weights`).
    #[serde(default)]
    pub weights: Option<Box<ipvs::Weights>>,
}

impl ServicePort {
    /// How long a client is kept at its endpoint, in seconds: the API server's maximum is a day.
    pub fn keep(&self) -> Option<u32> {
        let seconds = self.affinity_seconds.filter(|seconds| *seconds > 0)?;
        Some(seconds.min(86_400))
    }

    /// How it is forwarded for a while after its last endpoint here has gone: load balancer
    /// addresses with policy Local lead elsewhere, as with policy Cluster, since clients and routers
    /// come to this node until they have learned where the address is now. `None`: nothing differs.
    #[must_use]
    pub fn lingering(&self) -> Option<Self> {
        let lingers =
            |it: &Frontend| it.kind == FrontendKind::LoadBalancer && it.policy == Policy::Local;
        if !self.local.is_empty() || self.cluster.is_empty() || !self.frontends.iter().any(lingers)
        {
            return None;
        }
        let mut port = self.clone();
        for frontend in port.frontends.iter_mut().filter(|it| lingers(it)) {
            frontend.policy = Policy::Cluster;
        }
        port.frontends.sort_unstable();
        Some(port)
    }

    /// The endpoints that `policy` leads to.
    pub fn endpoints(&self, policy: Policy) -> &[SocketAddr] {
        match policy {
            Policy::Cluster => &self.cluster,
            Policy::Local => &self.local,
        }
    }
}
