//! From World to the Service table: which endpoints each port of a Service leads to on this node
//! (`spec/dataplane.md` §1.1 to 1.4).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use api::annotations::{IPVS_SCHEDULER, IPVS_WEIGHTS};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ipvs::Asked;
use super::{Frontend, FrontendKind, NodePorts, PortKey, ServicePort};
use crate::name::{Name, ServiceKey};
use crate::net::{Family, Protocol};
use crate::world::{Endpoint, Hints, Node, Policy, Port, Service, ServiceType, World, subnet};

/// Which addresses Corten forwards (design.md §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// None: another program forwards.
    #[default]
    Off,
    /// External addresses only, beside a service proxy.
    Vips,
    /// Cluster addresses as well, in a service proxy's place.
    All,
}

/// The desired forwarding of every port of `service` on node `me`, in both families.
pub fn plan(
    world: &World,
    me: &str,
    mode: Mode,
    node_ports: &NodePorts,
    service: &ServiceKey,
) -> BTreeMap<PortKey, ServicePort> {
    let mut table = BTreeMap::new();
    let Some(service) = world
        .service(service)
        .filter(|service| forwarded(service, mode))
    else {
        return table;
    };
    let here = Here {
        name: me,
        node: world.node(me),
        node_ports,
    };
    for family in [Family::V4, Family::V6] {
        // As kube-proxy: addresses of others are left out, and told of ([`super::foreign()`]).
        if !service.families.contains(&family) {
            continue;
        }
        let frontends = frontends(service, mode, family);
        if frontends.is_empty() {
            continue;
        }
        let sockets = world.endpoints().sockets(&service.key, family, me);
        let source_ranges = here.source_ranges(service, family, &frontends);
        let second: Vec<IpAddr> = frontends
            .iter()
            .filter(|(address, kind)| {
                **kind == FrontendKind::LoadBalancer && world.is_usurper(service, **address)
            })
            .map(|(address, _)| *address)
            .collect();
        let asked = service.annotations.get(IPVS_WEIGHTS);
        let asked = asked.map(|text| Asked::read(text));
        for port in &service.ports {
            let endpoints = sockets.get(&(port.name.clone(), port.protocol));
            let node_port = here.node_port(mode, port, family).into_iter();
            let node_port = node_port.map(|address| (address, FrontendKind::NodePort));
            let addresses = frontends.iter().map(|(address, kind)| (*address, *kind));
            let mut frontends: Vec<Frontend> = addresses
                .chain(node_port)
                .map(|(address, kind)| Frontend {
                    address,
                    port: match kind {
                        FrontendKind::NodePort => port.node_port,
                        _ => port.port,
                    },
                    kind,
                    policy: match kind {
                        FrontendKind::ClusterIp => service.internal_policy,
                        _ => external_policy(service),
                    },
                })
                .collect();
            frontends.sort_unstable();
            let key = PortKey {
                service: service.key.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
                family,
            };
            let (cluster, local) = endpoints
                .map(|found| choose(found, here))
                .unwrap_or_default();
            let usable_anywhere = endpoints.is_some_and(|found| {
                found
                    .values()
                    .any(|endpoint| endpoint.ready || fallback(endpoint))
            });
            let serving = endpoints
                .filter(|_| port.protocol == Protocol::Udp)
                .map_or_else(Vec::new, serving);
            let affinity_seconds = service.affinity_seconds;
            let source_ranges = source_ranges.clone();
            let of_node = here.own(&frontends);
            let scheduler = service.annotations.get(IPVS_SCHEDULER);
            let scheduler = scheduler.map(|text| Name::from(text.as_str()));
            let weights = asked.as_ref().map(|asked| {
                let all = endpoints.into_iter().flatten();
                let all = all.map(|((address, port), endpoint)| {
                    (SocketAddr::new(*address, *port), endpoint.node.as_deref())
                });
                Box::new(asked.weights(all))
            });
            table.insert(
                key,
                ServicePort {
                    frontends,
                    cluster,
                    local,
                    usable_anywhere,
                    affinity_seconds,
                    source_ranges,
                    serving,
                    second: second.clone(),
                    of_node,
                    scheduler,
                    weights,
                },
            );
        }
    }
    table
}

/// A headless Service has no address of its own, an ExternalName none at all. Where no API server
/// gives cluster IPs, families without cluster IPs are no headless Service.
pub(super) fn forwarded(service: &Service, mode: Mode) -> bool {
    let headless = service.cluster_ips.is_empty() && service.families.is_empty();
    mode != Mode::Off
        && service.kind != ServiceType::ExternalName
        && !headless
        && !service.other_proxy
}

/// The addresses of one family that lead to `service`, each once: what an allocator gave counts
/// more than `externalIPs`, which may name the same address and knows no source ranges. As with
/// kube-proxy the Service's type does not count: what its status still has is forwarded until it is
/// taken out of there.
fn frontends(service: &Service, mode: Mode, family: Family) -> BTreeMap<IpAddr, FrontendKind> {
    let cluster = service
        .cluster_ips
        .iter()
        .filter(|_| mode == Mode::All)
        .map(|address| (*address, FrontendKind::ClusterIp));
    let external = service
        .external_ips
        .iter()
        .map(|address| (*address, FrontendKind::ExternalIp));
    let balanced = service
        .ingress
        .iter()
        .filter(|entry| !entry.proxy)
        .filter_map(|entry| entry.ip)
        .map(|address| (address, FrontendKind::LoadBalancer));
    external
        .chain(balanced)
        .chain(cluster)
        .filter(|(address, _)| Family::of(*address) == family)
        .collect()
}

/// `externalTrafficPolicy`, which counts where the Service can be reached from outside.
fn external_policy(service: &Service) -> Policy {
    match service.kind {
        ServiceType::ClusterIP if service.external_ips.is_empty() => Policy::Cluster,
        _ => service.external_policy,
    }
}

/// Serving while it terminates: used when nothing is ready (KEP-1669).
fn fallback(endpoint: &Endpoint) -> bool {
    endpoint.terminating && endpoint.serving.unwrap_or(true)
}

/// Those that answer, as connections are judged by that exist already: no policy, topology or
/// readiness (`spec/dataplane.md` §1.11).
fn serving(endpoints: &BTreeMap<(IpAddr, u16), Endpoint>) -> Vec<SocketAddr> {
    let serving = |endpoint: &Endpoint| endpoint.serving.unwrap_or(true);
    let found = endpoints.iter().filter(|(_, it)| serving(it));
    found
        .map(|((address, port), _)| SocketAddr::new(*address, *port))
        .collect()
}

/// The node that forwards.
#[derive(Clone, Copy)]
struct Here<'a> {
    name: &'a str,
    /// What the API says of it.
    node: Option<&'a Node>,
    /// Its addresses with node ports.
    node_ports: &'a NodePorts,
}

/// Which ready endpoints are near enough.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nearness {
    SameNode,
    SameZone,
    Any,
}

impl Here<'_> {
    /// The addresses whose `nodePort` leads to `port`.
    fn node_port(self, mode: Mode, port: &Port, family: Family) -> Vec<IpAddr> {
        match mode == Mode::All && port.node_port != 0 {
            true => self.node_ports.addresses(self.node, family),
            false => Vec::new(),
        }
    }

    /// Who may connect to the addresses that an allocator gave. This node among them means these
    /// addresses too: what it sends to one that it has itself comes from there (kube-proxy's rule).
    fn source_ranges(
        self,
        service: &Service,
        family: Family,
        frontends: &BTreeMap<IpAddr, FrontendKind>,
    ) -> Vec<IpNet> {
        let ranges = service.source_ranges.iter();
        let mut ranges: Vec<IpNet> = ranges
            .filter_map(|range| subnet(range.trim()))
            .filter(|range| Family::of(range.addr()) == family)
            .map(|range| range.trunc())
            .collect();
        let mine = self.node.and_then(|node| node.primary(family));
        if mine.is_some_and(|mine| ranges.iter().any(|range| range.contains(&mine))) {
            let given = frontends
                .iter()
                .filter(|(_, kind)| **kind == FrontendKind::LoadBalancer);
            ranges.extend(given.map(|(address, _)| IpNet::from(*address)));
        }
        ranges
    }

    /// The node's own addresses among those of `frontends`.
    fn own(self, frontends: &[Frontend]) -> Vec<IpAddr> {
        let own = self.node.map_or(&[][..], |node| &node.addresses);
        let is_used = |address: &&IpAddr| frontends.iter().any(|it| it.address == **address);
        own.iter().filter(is_used).copied().collect()
    }

    /// Hints count only when every ready endpoint has them and one names this node, else this zone
    /// (kube-proxy's topology.go).
    fn nearness<'e>(self, ready: impl Iterator<Item = &'e Endpoint> + Clone) -> Nearness {
        let suits = |names: fn(&Hints) -> &[Name], mine: Option<&str>| {
            let named = ready
                .clone()
                .map(|endpoint| endpoint.hints.as_deref().map_or(&[][..], names));
            mine.is_some_and(|mine| {
                named.clone().all(|names| !names.is_empty())
                    && named.flatten().any(|name| **name == *mine)
            })
        };
        if suits(|hints| &hints.nodes, Some(self.name)) {
            Nearness::SameNode
        } else if suits(|hints| &hints.zones, self.zone()) {
            Nearness::SameZone
        } else {
            Nearness::Any
        }
    }

    fn zone(&self) -> Option<&str> {
        self.node?.zone()
    }

    fn is_near(self, endpoint: &Endpoint, nearness: Nearness) -> bool {
        let hints = endpoint.hints.as_deref();
        let names = |names: fn(&Hints) -> &[Name], mine: &str| {
            hints.is_some_and(|hints| names(hints).iter().any(|name| **name == *mine))
        };
        match nearness {
            Nearness::Any => true,
            Nearness::SameNode => names(|hints| &hints.nodes, self.name),
            Nearness::SameZone => self.zone().is_some_and(|zone| names(|h| &h.zones, zone)),
        }
    }
}

/// The endpoints for policy Cluster and for policy Local on this node; the two fall back to
/// terminating endpoints independently, wherever these are.
fn choose(
    endpoints: &BTreeMap<(IpAddr, u16), Endpoint>,
    here: Here<'_>,
) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let ready = || endpoints.values().filter(|endpoint| endpoint.ready);
    let nearness = here.nearness(ready());
    let pick = |local: bool| {
        let of = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
            let on_this_node = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(here.name);
            endpoints
                .iter()
                .filter(|(_, endpoint)| (!local || on_this_node(endpoint)) && wanted(endpoint))
                .map(|((address, port), _)| SocketAddr::new(*address, *port))
                .collect()
        };
        let ready = of(&|endpoint| endpoint.ready && (local || here.is_near(endpoint, nearness)));
        if ready.is_empty() {
            of(&fallback)
        } else {
            ready
        }
    };
    (pick(false), pick(true))
}
