//! One service port to the elements that forward it (`dataplane.md` 1.4, 1.6, 1.7).

use std::net::SocketAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::element::{Class, Element, Elements, Front, SlotsId};
use super::{FrontendKind, PortKey, ServicePort, slots};
use crate::world::Policy;

/// The id of the slots of `key` under `policy`.
pub fn slots_id(key: &PortKey, policy: Policy) -> SlotsId {
    let digest = Sha256::digest(format!("{key} cluster"));
    let bytes: Option<&[u8; 8]> = digest.first_chunk();
    let id = SlotsId::new(bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes)));
    match policy {
        Policy::Cluster => id.of_port(),
        Policy::Local => SlotsId::new(id.bits() | SlotsId::LOCAL),
    }
}

/// The elements that forward `port`.
pub fn compile(key: &PortKey, port: &ServicePort) -> Elements {
    compile_with(slots_id, key, port)
}

/// The same with ids from elsewhere, so that tests can make two of them collide.
pub(super) fn compile_with(
    id: fn(&PortKey, Policy) -> SlotsId,
    key: &PortKey,
    port: &ServicePort,
) -> Elements {
    let mut out = Vec::with_capacity(2 * port.frontends.len() + 2 * port.cluster.len());
    let mut uses = [false; 2];
    let mut restricts = [false; 2];
    let keep = port.keep().unwrap_or(0);
    for frontend in &port.frontends {
        let external = frontend.kind != FrontendKind::ClusterIp;
        let restricted =
            frontend.kind == FrontendKind::LoadBalancer && !port.source_ranges.is_empty();
        let policy = frontend.policy;
        let front = Front {
            address: frontend.address,
            protocol: key.protocol,
            port: frontend.port,
        };
        let class = match slots::size(port.endpoints(policy).len()) {
            0 if port.usable_anywhere => Class::Drop,
            0 => Class::Reject,
            size => Class::Pick(size),
        };
        out.push(Element::Front {
            front,
            id: id(key, policy),
            class,
            masquerade: external && policy == Policy::Cluster,
            restricted,
            keep,
        });
        uses[policy as usize] = true;
        restricts[policy as usize] |= restricted;
        if !external {
            out.push(Element::ClusterIp(frontend.address));
        } else if (policy == Policy::Local || frontend.address.is_loopback())
            && !port.cluster.is_empty()
        {
            // On the loopback there are only this host's own, whatever the policy and back end.
            out.push(Element::Host {
                front,
                id: id(key, Policy::Cluster),
                modulus: slots::size(port.cluster.len()),
                keep,
            });
            uses[Policy::Cluster as usize] = true;
        }
    }
    for policy in [Policy::Cluster, Policy::Local] {
        let id = id(key, policy);
        if uses[policy as usize] {
            let endpoints = port.endpoints(policy);
            out.extend(slots::fill(id, endpoints));
            // Who is led to itself: one elsewhere is told apart by nobody's proxy but its own node's.
            let here = endpoints.iter().filter(|e| port.local.contains(e));
            out.extend(here.map(|e| Element::Hairpin(e.ip())));
            if keep > 0 {
                let member = |endpoint: &SocketAddr| Element::Member {
                    id,
                    endpoint: *endpoint,
                };
                out.extend(endpoints.iter().map(member));
            }
        }
        if restricts[policy as usize] {
            // The kernel refuses ranges that overlap.
            let sources = IpNet::aggregate(&port.source_ranges);
            out.extend(
                sources
                    .into_iter()
                    .map(|sources| Element::Range { id, sources }),
            );
        }
    }
    out.into_iter().collect()
}
