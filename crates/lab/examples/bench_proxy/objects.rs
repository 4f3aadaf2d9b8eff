//! The Services of the bench: number `n` has a cluster IP, port 80 and endpoints of its own, as
//! objects of the API and as what World knows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plan::name::ServiceKey;
use plan::net::{Family, Protocol};
use plan::world::{
    Endpoint, Event, FamilyPolicy, Policy, Port, Service, ServiceType, Slice, SlicePort,
};
use serde_json::{Value, json};

/// Where they are.
pub(crate) const NAMESPACE: &str = "bench";
/// What every endpoint listens on.
pub(crate) const TARGET: u16 = 8080;
/// The port of every Service.
pub(crate) const PORT: u16 = 80;
/// All endpoints' addresses; the server of a gate answers for all of them.
pub(crate) const ENDPOINTS: [&str; 2] = ["172.16.0.0/12", "fd02::/64"];
/// The first cluster IP's number in the range 10.96.0.0/14.
const FIRST: u32 = 512;

/// Names sort as numbers do.
pub(crate) fn name(n: u32) -> String {
    format!("service-{n:06}")
}

/// The cluster IP of a Service.
pub(crate) fn cluster_ip(n: u32, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + FIRST + n).into(),
        Family::V6 => Ipv6Addr::from(0xfd00_0096_u128 << 96 | u128::from(FIRST + n)).into(),
    }
}

/// Endpoint number `e` of a Service with `count` of them.
pub(crate) fn endpoint(n: u32, e: u32, count: u32, family: Family) -> IpAddr {
    // Services that come later share those of the first ones: the range has an end.
    let number = n % 50_000 * count + e + 256;
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + number).into(),
        Family::V6 => Ipv6Addr::from(0xfd02_u128 << 112 | u128::from(number)).into(),
    }
}

/// Without a selector: its slice is written by the bench.
pub(crate) fn service_object(n: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name(n)},
        "spec": {
            "clusterIP": cluster_ip(n, Family::V4),
            "ports": [{"port": PORT, "targetPort": TARGET}],
        },
    })
}

/// Its endpoints.
pub(crate) fn endpoint_objects(n: u32, count: u32) -> Value {
    (0..count)
        .map(|e| {
            json!({
                "addresses": [endpoint(n, e, count, Family::V4)],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("elsewhere-{}", e % 2),
            })
        })
        .collect()
}

/// Its slice.
pub(crate) fn slice_object(n: u32, count: u32) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name(n), "labels": {"kubernetes.io/service-name": name(n)}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": TARGET, "protocol": "TCP"}],
        "endpoints": endpoint_objects(n, count),
    })
}

fn key(n: u32) -> ServiceKey {
    ServiceKey::new(NAMESPACE, &name(n))
}

/// What the agent is told of the Service and its slices, with `count` endpoints in each of
/// `families`.
pub(crate) fn events(n: u32, count: u32, families: &[Family]) -> Vec<Event> {
    let service = Service {
        key: key(n),
        uid: "".into(),
        resource_version: "".into(),
        created: "".into(),
        labels: BTreeMap::new(),
        other_proxy: false,
        annotations: BTreeMap::new(),
        kind: ServiceType::ClusterIP,
        class: None,
        cluster_ips: families
            .iter()
            .map(|family| cluster_ip(n, *family))
            .collect(),
        families: families.to_vec(),
        family_policy: FamilyPolicy::PreferDualStack,
        load_balancer_ip: None,
        external_ips: Vec::new(),
        source_ranges: Vec::new(),
        external_policy: Policy::Cluster,
        internal_policy: Policy::Cluster,
        health_check_node_port: 0,
        affinity_seconds: None,
        selector: "".into(),
        ports: vec![Port {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: PORT,
            node_port: 0,
        }],
        ingress: Vec::new(),
    };
    let mut events = vec![Event::Service {
        key: key(n),
        form: Some(Box::new(service)),
    }];
    events.extend(families.iter().map(|&family| {
        let endpoints = (0..count).map(|e| Endpoint {
            address: endpoint(n, e, count, family),
            node: Some(format!("elsewhere-{}", e % 2).into()),
            ready: true,
            serving: Some(true),
            terminating: false,
            hints: None,
        });
        Event::Slice {
            key: ServiceKey::new(NAMESPACE, &format!("{}-{family}", name(n))),
            form: Some(Slice {
                triggered: None,
                foreign: None,
                service: key(n),
                family,
                ports: vec![SlicePort {
                    name: "".into(),
                    protocol: Protocol::Tcp,
                    port: TARGET,
                }],
                endpoints: endpoints.collect(),
            }),
        }
    }));
    events
}

/// The same, gone.
pub(crate) fn gone(n: u32, families: &[Family]) -> Vec<Event> {
    let mut events = vec![Event::Service {
        key: key(n),
        form: None,
    }];
    events.extend(families.iter().map(|family| Event::Slice {
        key: ServiceKey::new(NAMESPACE, &format!("{}-{family}", name(n))),
        form: None,
    }));
    events
}
