//! API objects, cut down to what the planners read.
//!
//! What the API server would have refused cannot come from it; what comes from a directory of
//! manifests was checked by the source. So a value that does not parse is left out here, and the
//! place that needs it says so (an address that does not parse is an address nobody holds).

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::annotations::DRAIN;
use api::core as k8s;
use ipnet::IpNet;

use super::node::{OUT_OF_SERVICE, TO_BE_DELETED};
use super::{
    Endpoint, FamilyPolicy, Hints, Ingress, Interface, Node, NodeState, Policy, Port, Service,
    ServiceType, Slice, SlicePort,
};
use crate::name::{Name, ServiceKey};
use crate::net::{Family, Protocol};

/// Prefixes of the annotations that some planner reads.
const PREFIXES: [&str; 3] = ["metallb.io/", "metallb.universe.tf/", "corten.dev/"];
/// The label by which a Service asks the proxy to leave it alone.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// The label of slices that the proxy leaves alone. The EndpointSlice controller copies it from the
/// Service, which keeps its addresses: kube-proxy 1.36 rejects there
/// (`cmd/kube-proxy/app/server.go`), where older ones do not know the Service.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` when it is not given.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// Kubernetes took addresses with leading zeros, as decimals, until strict validation; such objects
/// still exist. An IPv4 address in IPv6's clothes is an IPv4 address to Go's programs.
fn ip(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let strict = text
        .parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical());
    strict.or_else(|| {
        let octets: Vec<u8> = text
            .split('.')
            .map(|octet| octet.parse().ok())
            .collect::<Option<_>>()?;
        <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
    })
}

/// A subnet, with the same leniency.
pub(crate) fn subnet(text: &str) -> Option<IpNet> {
    let (address, length) = text.trim().split_once('/')?;
    IpNet::new(ip(address)?, length.parse().ok()?).ok()
}

fn protocol(protocol: k8s::Protocol) -> Protocol {
    match protocol {
        k8s::Protocol::TCP => Protocol::Tcp,
        k8s::Protocol::UDP => Protocol::Udp,
        k8s::Protocol::SCTP => Protocol::Sctp,
    }
}

fn policy(policy: k8s::TrafficPolicy) -> Policy {
    match policy {
        k8s::TrafficPolicy::Cluster => Policy::Cluster,
        k8s::TrafficPolicy::Local => Policy::Local,
    }
}

impl From<k8s::Service> for Service {
    fn from(object: k8s::Service) -> Self {
        let k8s::Service {
            metadata,
            spec,
            status,
        } = object;
        let cluster_ips: Vec<IpAddr> = if spec.cluster_ips.is_empty() {
            ip(&spec.cluster_ip).into_iter().collect()
        } else {
            spec.cluster_ips
                .iter()
                .filter_map(|text| ip(text))
                .collect()
        };
        let headless = spec.cluster_ip == "None" || spec.cluster_ips.iter().any(|ip| ip == "None");
        let families = if cluster_ips.is_empty() && !headless {
            spec.ip_families
                .iter()
                .map(|family| match family {
                    k8s::IpFamily::IPv4 => Family::V4,
                    k8s::IpFamily::IPv6 => Family::V6,
                })
                .collect()
        } else {
            cluster_ips.iter().copied().map(Family::of).collect()
        };
        let selector: Vec<String> = spec
            .selector
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        Self {
            key: ServiceKey::new(&metadata.namespace, &metadata.name),
            uid: metadata.uid.into(),
            resource_version: metadata.resource_version.into(),
            created: metadata.creation_timestamp.unwrap_or_default().into(),
            other_proxy: metadata.labels.contains_key(OTHER_PROXY),
            labels: metadata.labels,
            annotations: metadata
                .annotations
                .into_iter()
                .filter(|(key, _)| PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
                .collect(),
            kind: match spec.type_ {
                k8s::ServiceType::ClusterIP => ServiceType::ClusterIP,
                k8s::ServiceType::NodePort => ServiceType::NodePort,
                k8s::ServiceType::LoadBalancer => ServiceType::LoadBalancer,
                k8s::ServiceType::ExternalName => ServiceType::ExternalName,
            },
            class: spec.load_balancer_class.map(Name::from),
            cluster_ips,
            families,
            family_policy: match spec.ip_family_policy {
                None | Some(k8s::IpFamilyPolicy::SingleStack) => FamilyPolicy::SingleStack,
                Some(k8s::IpFamilyPolicy::PreferDualStack) => FamilyPolicy::PreferDualStack,
                Some(k8s::IpFamilyPolicy::RequireDualStack) => FamilyPolicy::RequireDualStack,
            },
            load_balancer_ip: (!spec.load_balancer_ip.is_empty())
                .then(|| spec.load_balancer_ip.into()),
            external_ips: spec
                .external_ips
                .iter()
                .filter_map(|text| ip(text))
                .collect(),
            source_ranges: spec
                .load_balancer_source_ranges
                .iter()
                .map(|range| range.trim().into())
                .collect(),
            external_policy: policy(spec.external_traffic_policy),
            internal_policy: policy(spec.internal_traffic_policy),
            health_check_node_port: spec.health_check_node_port,
            affinity_seconds: (spec.session_affinity == k8s::SessionAffinity::ClientIP).then(
                || {
                    spec.session_affinity_config
                        .and_then(|config| config.client_ip)
                        .and_then(|client_ip| client_ip.timeout_seconds)
                        .unwrap_or(DEFAULT_AFFINITY_SECONDS)
                },
            ),
            selector: selector.join(",").into(),
            ports: spec
                .ports
                .into_iter()
                .map(|port| Port {
                    name: name(port.name),
                    protocol: protocol(port.protocol),
                    port: port.port,
                    node_port: port.node_port,
                })
                .collect(),
            ingress: status
                .load_balancer
                .ingress
                .iter()
                .map(|entry| Ingress {
                    ip: ip(&entry.ip),
                    proxy: entry.ip_mode.as_deref().is_some_and(|mode| mode != "VIP"),
                })
                .collect(),
        }
    }
}

/// Most names of ports are empty, and those share one place.
fn name(text: String) -> Name {
    if text.is_empty() {
        Name::default()
    } else {
        text.into()
    }
}

/// When what an EndpointSlice was made from changed.
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

impl Slice {
    /// The slice as the planners read it; `None` for one without a Service or of type FQDN.
    pub fn of(object: k8s::EndpointSlice) -> Option<Self> {
        let service = ServiceKey::new(&object.metadata.namespace, object.service_name()?);
        let family = match object.address_type {
            k8s::AddressType::IPv4 => Family::V4,
            k8s::AddressType::IPv6 => Family::V6,
            k8s::AddressType::FQDN => return None,
        };
        let mut annotations = object.metadata.annotations;
        let triggered = annotations.remove(TRIGGERED).map(String::into_boxed_str);
        let addresses = object.endpoints.iter();
        let addresses = addresses.filter_map(|endpoint| ip(endpoint.addresses.first()?));
        let foreign: Vec<IpAddr> = addresses.filter(|it| Family::of(*it) != family).collect();
        // Without ports nothing is forwarded there; who announces counts the endpoints still.
        let forwarded = !object.metadata.labels.contains_key(HEADLESS);
        Some(Self {
            foreign: (!foreign.is_empty()).then(|| foreign.into()),
            service,
            family,
            triggered,
            ports: object
                .ports
                .into_iter()
                .filter(|_| forwarded)
                .filter_map(|port| {
                    Some(SlicePort {
                        port: port.port.filter(|number| *number != 0)?,
                        name: name(port.name),
                        protocol: protocol(port.protocol),
                    })
                })
                .collect(),
            endpoints: object
                .endpoints
                .into_iter()
                .filter_map(|endpoint| {
                    let address = ip(endpoint.addresses.first()?)?;
                    (Family::of(address) == family).then(|| Endpoint {
                        address,
                        node: endpoint.node_name.map(Name::from),
                        ready: endpoint.conditions.ready.unwrap_or(true),
                        serving: endpoint.conditions.serving,
                        terminating: endpoint.conditions.terminating.unwrap_or(false),
                        hints: endpoint.hints.and_then(hints),
                    })
                })
                .collect(),
        })
    }
}

/// Hints that name nobody are none.
fn hints(hints: k8s::EndpointHints) -> Option<Box<Hints>> {
    let zones = hints.for_zones.into_iter().map(|zone| zone.name.into());
    let nodes = hints.for_nodes.into_iter().map(|node| node.name.into());
    let hints = Hints {
        zones: zones.collect(),
        nodes: nodes.collect(),
    };
    (hints != Hints::default()).then(|| Box::new(hints))
}

/// The addresses of type InternalIP; of a family without one those of type ExternalIP, as with every
/// program that asks Kubernetes for a node's address.
fn node_addresses(addresses: &[k8s::NodeAddress]) -> Vec<IpAddr> {
    let of = |wanted: &'static str| {
        let addresses = addresses.iter().filter(move |it| it.type_ == wanted);
        addresses.filter_map(|it| ip(&it.address))
    };
    let mut found: Vec<IpAddr> = of("InternalIP").collect();
    let lacks = [Family::V4, Family::V6]
        .map(|family| (family, !found.iter().any(|it| Family::of(*it) == family)));
    let is_lacking = |address: &IpAddr| lacks.contains(&(Family::of(*address), true));
    found.extend(of("ExternalIP").filter(is_lacking));
    found
}

/// In the message of the condition Ready, from the moment that systemd-logind announces the end of
/// the machine (kubelet's `nodeshutdown`).
const SHUTTING_DOWN: &str = "node is shutting down";

impl From<k8s::Node> for Node {
    fn from(object: k8s::Node) -> Self {
        let has = |type_: &str, status: &str| {
            let mut conditions = object.status.conditions.iter();
            conditions.any(|found| found.type_ == type_ && found.status == status)
        };
        Self {
            labels: object.metadata.labels.clone(),
            addresses: node_addresses(&object.status.addresses),
            pod_ranges: object
                .spec
                .pod_cidrs
                .iter()
                .filter_map(|range| range.parse().ok())
                .collect(),
            cordoned: object.spec.unschedulable,
            out_of_service: object
                .spec
                .taints
                .iter()
                .any(|taint| taint.key == OUT_OF_SERVICE),
            going: object.metadata.deletion_timestamp.is_some()
                || object
                    .spec
                    .taints
                    .iter()
                    .any(|taint| taint.key == TO_BE_DELETED),
            network_unavailable: has("NetworkUnavailable", "True"),
            unreachable: has("Ready", "Unknown"),
            drain_asked: object
                .metadata
                .annotations
                .get(DRAIN)
                .is_some_and(|value| value == "true"),
            // Kubelet's graceful node shutdown says it in the message alone.
            shutting_down: object.status.conditions.iter().any(|found| {
                found.type_ == "Ready"
                    && found.status != "True"
                    && found.message.contains(SHUTTING_DOWN)
            }),
        }
    }
}

impl From<api::corten::v1alpha1::NodeStateStatus> for NodeState {
    fn from(status: api::corten::v1alpha1::NodeStateStatus) -> Self {
        let interfaces: BTreeMap<Name, Interface> = status
            .interfaces
            .into_iter()
            .map(|interface| {
                let subnets = interface
                    .subnets
                    .iter()
                    .filter_map(|subnet| subnet.parse().ok())
                    .collect();
                (
                    interface.name.into(),
                    Interface {
                        up: interface.up,
                        subnets,
                        mac: interface.mac.as_deref().and_then(mac),
                    },
                )
            })
            .collect();
        let tenures = status.tenures.iter();
        let tenures = tenures.filter_map(|it| Some((it.address.parse().ok()?, it.term)));
        let withheld = status.withheld.iter();
        Self {
            interfaces,
            tenures: tenures.collect(),
            withheld: withheld.filter_map(|it| it.parse().ok()).collect(),
            draining: status.draining,
            incarnation: status.incarnation,
            version: status.version,
        }
    }
}

/// `02:00:00:00:00:01`.
fn mac(text: &str) -> Option<[u8; 6]> {
    let octets = text.split(':');
    let octets = octets.map(|octet| u8::from_str_radix(octet, 16).ok());
    octets.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// The ranges of a ServiceCIDR; one that does not parse is left out.
pub fn service_ranges(object: &k8s::ServiceCIDR) -> Vec<IpNet> {
    object
        .spec
        .cidrs
        .iter()
        .filter_map(|range| range.parse().ok())
        .collect()
}
