//! From World to the Service table: which endpoints each port of a Service leads to on this node
//! (`spec/dataplane.md` §1.1 to 1.4).
//!
//! Topology hints, node ports and the short cut of external addresses under policy Local are the
//! next steps; sets and fates are already those of the whole.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Frontend, FrontendKind, PortKey, ServicePort};
use crate::name::{Name, ServiceKey};
use crate::net::Family;
use crate::world::{Endpoint, Service, ServiceType, World, subnet};

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
    service: &ServiceKey,
) -> BTreeMap<PortKey, ServicePort> {
    let mut table = BTreeMap::new();
    let Some(service) = world
        .service(service)
        .filter(|service| forwarded(service, mode))
    else {
        return table;
    };
    for family in [Family::V4, Family::V6] {
        let frontends = frontends(world, service, mode, family);
        if frontends.is_empty() {
            continue;
        }
        let sockets = world.endpoints().sockets(&service.key, family, me);
        let source_ranges: Vec<ipnet::IpNet> = service
            .source_ranges
            .iter()
            .filter_map(|range| subnet(range))
            .filter(|range| Family::of(range.addr()) == family)
            .map(|range| range.trunc())
            .collect();
        for port in &service.ports {
            let endpoints = sockets.get(&(port.name.clone(), port.protocol));
            let frontends: Vec<Frontend> = frontends
                .iter()
                .map(|(address, kind)| Frontend {
                    address: *address,
                    port: port.port,
                    kind: *kind,
                    policy: match kind {
                        FrontendKind::ClusterIp => service.internal_policy,
                        _ => service.external_policy,
                    },
                })
                .collect();
            let key = PortKey {
                service: service.key.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
                family,
            };
            let (cluster, local) = endpoints.map(|found| choose(found, me)).unwrap_or_default();
            let usable_anywhere = endpoints.is_some_and(|found| {
                found
                    .values()
                    .any(|endpoint| endpoint.ready || fallback(endpoint))
            });
            let affinity_seconds = service.affinity_seconds;
            let source_ranges = source_ranges.clone();
            table.insert(
                key,
                ServicePort {
                    frontends,
                    cluster,
                    local,
                    usable_anywhere,
                    affinity_seconds,
                    source_ranges,
                },
            );
        }
    }
    table
}

/// A headless Service has no address of its own, an ExternalName none at all. Where no API server
/// gives cluster IPs, families without cluster IPs are no headless Service.
fn forwarded(service: &Service, mode: Mode) -> bool {
    let headless = service.cluster_ips.is_empty() && service.families.is_empty();
    mode != Mode::Off
        && service.kind != ServiceType::ExternalName
        && !headless
        && !service.other_proxy
}

/// The addresses of one family that lead to `service`, each once: what an allocator gave counts
/// more than `externalIPs`, which may name the same address and knows no source ranges. An address
/// that another Service serves already is left to that one.
fn frontends(
    world: &World,
    service: &Service,
    mode: Mode,
    family: Family,
) -> BTreeMap<IpAddr, FrontendKind> {
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
        .filter(|entry| !entry.proxy && service.kind == ServiceType::LoadBalancer)
        .filter_map(|entry| entry.ip)
        .filter(|address| !world.is_usurper(service, *address))
        .map(|address| (address, FrontendKind::LoadBalancer));
    external
        .chain(balanced)
        .chain(cluster)
        .filter(|(address, _)| Family::of(*address) == family)
        .collect()
}

/// Serving while it terminates: used when nothing is ready (KEP-1669).
fn fallback(endpoint: &Endpoint) -> bool {
    endpoint.terminating && endpoint.serving.unwrap_or(true)
}

/// The endpoints for policy Cluster and for policy Local on node `me`; the two fall back to
/// terminating endpoints independently.
fn choose(
    endpoints: &BTreeMap<(IpAddr, u16), Endpoint>,
    me: &str,
) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let pick = |local: bool| {
        let near = |endpoint: &Endpoint| {
            !local
                || endpoint
                    .node
                    .as_ref()
                    .is_some_and(|node: &Name| &**node == me)
        };
        let of = |wanted: fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
            endpoints
                .iter()
                .filter(|(_, endpoint)| near(endpoint) && wanted(endpoint))
                .map(|((address, port), _)| SocketAddr::new(*address, *port))
                .collect()
        };
        let ready = of(|endpoint| endpoint.ready);
        if ready.is_empty() {
            of(fallback)
        } else {
            ready
        }
    };
    (pick(false), pick(true))
}
