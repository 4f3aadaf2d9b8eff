//! Services and EndpointSlices that a seed chooses, and what is asked of the proxies about them.

use std::collections::BTreeMap;

use lab::controlplane::{Verb, Write};
use plan::net::Protocol;
use serde_json::{Value, json};

use crate::random::Random;
use crate::side::{NODE, OWN_VIP, PRIMARY};

/// Services that there may be; each has its own numbers, so that no two want the same.
pub(crate) const SERVICES: u8 = 6;
/// Ports of a Service that there may be.
pub(crate) const PORTS: u8 = 3;
const NAMESPACE: &str = "default";
const ZONES: [Option<&str>; 3] = [Some("a"), Some("b"), None];
const CLUSTER_TCP_UDP: [&str; 2] = ["TCP", "UDP"];

pub(crate) fn services() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/services")
}

pub(crate) fn slices() -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    Headless,
    ExternalName,
}

/// A Service as it was last written.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    kind: Kind,
    /// Families in their order: IPv6 or not.
    families: Vec<bool>,
    /// Number, name, protocol.
    ports: Vec<(u8, String, usize)>,
    node_ports: bool,
    internal_local: bool,
    external_local: bool,
    affinity: Option<u32>,
    ranges: Vec<&'static str>,
    external_ips: Vec<String>,
    ingress: Vec<Value>,
    labels: BTreeMap<&'static str, &'static str>,
    not_ready: bool,
    distribution: Option<&'static str>,
}

impl Service {
    pub(crate) fn has_affinity(&self) -> bool {
        self.affinity.is_some()
    }

    /// Whether port number `port` exists with this protocol.
    pub(crate) fn has(&self, port: u8, protocol: Protocol) -> bool {
        let wanted = usize::from(protocol == Protocol::Udp);
        let mut ports = self.ports.iter();
        ports.any(|(number, _, protocol)| *number == port && *protocol == wanted)
    }
}

#[derive(Clone, Debug)]
struct Slice {
    service: u8,
    written: bool,
    endpoints: usize,
}

/// What changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(crate) writes: Vec<Write>,
    /// Services that are about to behave otherwise.
    pub(crate) services: Vec<u8>,
}

pub(crate) struct World {
    random: Random,
    services: BTreeMap<u8, Service>,
    slices: BTreeMap<String, Slice>,
    /// The Service that was changed last, as it was before.
    before: Option<(u8, Service)>,
}

pub(crate) fn port(service: u8, port: u8) -> u16 {
    1000 + 100 * u16::from(service) + u16::from(port)
}

pub(crate) fn node_port(service: u8, port: u8) -> u16 {
    30_000 + 10 * u16::from(service) + u16::from(port)
}

pub(crate) fn cluster_ip(service: u8, v6: bool) -> String {
    match v6 {
        false => format!("10.96.1.{service}"),
        true => format!("fd00:96::1:{service:x}"),
    }
}

pub(crate) fn external_ip(service: u8, v6: bool) -> String {
    match v6 {
        false => format!("192.0.2.{}", 20 + service),
        true => format!("fd99::{:x}", 0x20 + service),
    }
}

pub(crate) fn balanced(service: u8, v6: bool) -> String {
    match v6 {
        false => format!("198.51.100.{}", 20 + service),
        true => format!("fd98::{:x}", 0x20 + service),
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            before: None,
        }
    }

    pub(crate) fn service(&self, number: u8) -> Option<&Service> {
        self.services.get(&number)
    }

    /// The most endpoints that a Service may have.
    pub(crate) fn endpoints(&self, service: u8) -> usize {
        let slices = self.slices.values();
        let of_it = slices.filter(|slice| slice.service == service && slice.written);
        of_it.map(|slice| slice.endpoints).sum()
    }

    /// The next change.
    pub(crate) fn next(&mut self) -> Step {
        match self.random.below(20) {
            0 => self.zone(),
            1..8 => {
                let number = self.random.below(SERVICES.into()) as u8;
                self.change_service(number)
            }
            8 => self.flip_label(),
            9 => self.status(),
            _ => self.change_slice(),
        }
    }

    fn zone(&mut self) -> Step {
        let zone = self.random.of(&ZONES);
        let body = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
        let path = format!("/api/v1/nodes/{NODE}");
        Step {
            writes: vec![Write::patch(path, body)],
            services: (0..SERVICES).collect(),
        }
    }

    /// A Service is written as it was, but for one thing or all; or goes.
    fn change_service(&mut self, number: u8) -> Step {
        let path = format!("{}/s{number}", services());
        let old = self.services.remove(&number);
        let mut writes = Vec::new();
        let fresh = self.make_service(number);
        match old {
            Some(_) if self.random.one_in(8) => {
                writes.push(Write::delete(path));
            }
            Some(old) if !self.random.one_in(5) => {
                self.before = Some((number, old.clone()));
                let mut new = self.mix(&old, fresh);
                new.families = old.families.clone();
                let settled = |kind| !matches!(kind, Kind::Headless | Kind::ExternalName);
                if settled(old.kind) != settled(new.kind) {
                    new.kind = old.kind;
                }
                writes.push(Write::patch(path.clone(), object(number, &new)));
                writes.extend(status(&path, &new));
                self.services.insert(number, new);
            }
            old => {
                if old.is_some() {
                    writes.push(Write::delete(path.clone()));
                }
                writes.push(Write::create(services(), object(number, &fresh)));
                writes.extend(status(&path, &fresh));
                self.services.insert(number, fresh);
            }
        }
        Step {
            writes,
            services: vec![number],
        }
    }

    fn mix(&mut self, old: &Service, fresh: Service) -> Service {
        let mut new = old.clone();
        match self.random.below(12) {
            0 => new.kind = fresh.kind,
            1 => new.ports = fresh.ports,
            2 => new.internal_local = !new.internal_local,
            3 | 4 => new.external_local = !new.external_local,
            5 => new.affinity = fresh.affinity,
            6 | 7 => new.ranges = fresh.ranges,
            8 => new.external_ips = fresh.external_ips,
            9 => new.ingress = fresh.ingress,
            10 => new.node_ports = !new.node_ports,
            _ => return fresh,
        }
        new
    }

    fn make_service(&mut self, number: u8) -> Service {
        let random = &mut self.random;
        let kinds = [
            Kind::ClusterIp,
            Kind::NodePort,
            Kind::NodePort,
            Kind::LoadBalancer,
            Kind::LoadBalancer,
            Kind::LoadBalancer,
            Kind::LoadBalancer,
        ];
        let kind = match random.below(14) {
            0 => Kind::Headless,
            1 => Kind::ExternalName,
            _ => random.of(&kinds),
        };
        let families = random.of(&[
            vec![false],
            vec![true],
            vec![false, true],
            vec![true, false],
            vec![false, true],
        ]);
        let count = 1 + random.below(PORTS.into()) as u8;
        let mut ports: Vec<(u8, String, usize)> = (0..count)
            .map(|port| {
                let protocol = usize::from(random.one_in(3));
                let name = random.of(&["p", "p", "p", "q"]);
                (port, format!("{name}{port}"), protocol)
            })
            .collect();
        if random.one_in(4) {
            // The same number for the other protocol.
            let (port, name, protocol) = ports[0].clone();
            ports.push((port, format!("{name}-too"), 1 - protocol));
        }
        let v6_too = |random: &mut Random| random.one_in(2);
        let mut external_ips = Vec::new();
        if random.one_in(3) {
            external_ips.push(external_ip(number, false));
        }
        if random.one_in(3) {
            external_ips.push(external_ip(number, true));
        }
        let mut ingress = Vec::new();
        for (v6, own) in [(false, OWN_VIP[0]), (true, OWN_VIP[1])] {
            if !v6_too(random) {
                continue;
            }
            let entry = json!({"ip": balanced(number, v6)});
            ingress.push(with_mode(random, entry));
            if random.one_in(4) {
                ingress.push(with_mode(random, json!({"ip": own})));
            }
        }
        if random.one_in(5) {
            ingress.push(json!({"hostname": "balancer.example.com"}));
        }
        let mut labels = BTreeMap::new();
        if random.one_in(15) {
            labels.insert("service.kubernetes.io/service-proxy-name", "other");
        }
        if random.one_in(20) {
            labels.insert("service.kubernetes.io/headless", "");
        }
        let ranges = [
            vec![],
            vec![],
            vec![],
            vec!["198.18.0.0/16"],
            vec![" 198.18.0.0/16 "],
            vec!["198.18.0.0/17", "198.18.64.0/18", "198.19.0.1/32"],
            vec!["198.18.0.0/16", "fd51::/64"],
            vec!["fd51::/64"],
            vec!["fd52::/64 ", "10.225.0.0/16"],
            vec!["10.225.0.0/16", "10.226.0.0/16", "fd01::/48"],
            vec!["172.18.0.0/24"],
            vec!["172.18.0.0/16", "fd18::/64", "198.18.0.0/16"],
            vec!["192.0.2.10/32", "fd99::10/128"],
            vec!["0.0.0.0/0"],
            vec!["0.0.0.0/0", "::/0"],
            vec!["::/0"],
            vec!["198.18.7.9/16"],
            vec!["nonsense"],
        ];
        Service {
            kind,
            families,
            ports,
            node_ports: !random.one_in(4),
            internal_local: random.one_in(4),
            external_local: random.one_in(2),
            affinity: random.one_in(4).then(|| random.of(&[10_800, 600, 86_400])),
            ranges: random.of(&ranges),
            external_ips,
            ingress,
            labels,
            not_ready: random.one_in(6),
            distribution: random.of(&[None, None, Some("PreferClose"), Some("PreferSameNode")]),
        }
    }

    fn flip_label(&mut self) -> Step {
        let Some(number) = self.any_service() else {
            return Step::default();
        };
        let Some(service) = self.services.get_mut(&number) else {
            return Step::default();
        };
        let label = self.random.of(&[
            "service.kubernetes.io/service-proxy-name",
            "service.kubernetes.io/headless",
        ]);
        let value = match service.labels.remove(label) {
            Some(_) => None,
            None => {
                let value = if label.ends_with("headless") {
                    ""
                } else {
                    "other"
                };
                service.labels.insert(label, value);
                Some(value)
            }
        };
        let body = json!({"metadata": {"labels": {label: value}}});
        Step {
            writes: vec![Write::patch(format!("{}/s{number}", services()), body)],
            services: vec![number],
        }
    }

    fn status(&mut self) -> Step {
        let Some(number) = self.any_service() else {
            return Step::default();
        };
        let fresh = self.make_service(number);
        let path = format!("{}/s{number}", services());
        let Some(service) = self.services.get_mut(&number) else {
            return Step::default();
        };
        service.ingress = fresh.ingress;
        Step {
            writes: status(&path, service).into_iter().collect(),
            services: vec![number],
        }
    }

    fn any_service(&mut self) -> Option<u8> {
        let all: Vec<u8> = self.services.keys().copied().collect();
        match all.is_empty() {
            true => None,
            false => Some(self.random.of(&all)),
        }
    }

    fn change_slice(&mut self) -> Step {
        let home = self.random.below(SERVICES.into()) as u8;
        let letter = self.random.of(&["a", "b", "c"]);
        let v6 = self.random.one_in(2);
        let name = format!("s{home}-{letter}-{}", if v6 { "v6" } else { "v4" });
        let path = format!("{}/{name}", slices());
        let old = self.slices.remove(&name).filter(|slice| slice.written);
        let mut touched = vec![home];
        touched.extend(old.as_ref().map(|slice| slice.service));
        let random = &mut self.random;
        let (writes, slice) = match old {
            Some(slice) if random.one_in(7) => (
                vec![Write::delete(path)],
                Slice {
                    written: false,
                    ..slice
                },
            ),
            old => {
                // A slice stays its Service's: kube-proxy reads the label of the new form alone, and
                // the old Service would keep the endpoints for ever.
                let service = match (&old, random.one_in(12)) {
                    (Some(old), _) => old.service,
                    (None, true) => random.below(SERVICES.into()) as u8,
                    (None, false) => home,
                };
                touched.push(service);
                let nobody = old.is_none() && random.one_in(25);
                let many = random.one_in(6);
                let count = random.below(if many { 6 } else { 4 }) as usize;
                let of_it = self.services.get(&service);
                // Which of several slices' copies of an endpoint counts is chance in kube-proxy.
                let strays = if service == home { 0 } else { 1 + home };
                let first = 2 + 15 * strays + 5 * (letter.as_bytes()[0] - b'a');
                let body = slice_object(random, (&name, first), service, of_it, v6, count);
                let body = if nobody { unlabelled(body) } else { body };
                let write = match old {
                    Some(_) => Write::patch(path, body),
                    None => Write::create(slices(), body),
                };
                let slice = Slice {
                    service,
                    written: true,
                    endpoints: count,
                };
                (vec![write], slice)
            }
        };
        self.slices.insert(name, slice);
        touched.sort_unstable();
        touched.dedup();
        Step {
            writes,
            services: touched,
        }
    }

    /// A write was refused: what it would have made is not there, what it would have changed is as it
    /// was.
    pub(crate) fn refused(&mut self, write: &Write) {
        if let Some((number, service)) = self.before.take_if(|(number, _)| {
            write.verb == Verb::Patch && write.path == format!("{}/s{number}", services())
        }) {
            self.services.insert(number, service);
        }
        let name = write.body["metadata"]["name"].as_str().unwrap_or_default();
        if write.verb != Verb::Create {
            return;
        }
        if let Some(slice) = self.slices.get_mut(name) {
            slice.written = false;
        }
        let mut numbers = 0..SERVICES;
        if let Some(number) = numbers.find(|number| name == format!("s{number}")) {
            self.services.remove(&number);
        }
    }
}

fn with_mode(random: &mut Random, mut entry: Value) -> Value {
    match random.below(4) {
        0 => entry["ipMode"] = json!("Proxy"),
        1 => entry["ipMode"] = json!("VIP"),
        _ => {}
    }
    entry
}

fn status(path: &str, service: &Service) -> Option<Write> {
    let body = json!({"status": {"loadBalancer": {"ingress": service.ingress}}});
    (service.kind == Kind::LoadBalancer).then(|| Write::patch(format!("{path}/status"), body))
}

/// A Service with every field, so that a patch with it leaves nothing of what was.
fn object(number: u8, service: &Service) -> Value {
    let label = |name: &str| service.labels.get(name);
    let metadata = json!({
        "name": format!("s{number}"),
        "labels": {
            "service.kubernetes.io/service-proxy-name":
                label("service.kubernetes.io/service-proxy-name"),
            "service.kubernetes.io/headless": label("service.kubernetes.io/headless"),
        },
    });
    if service.kind == Kind::ExternalName {
        return json!({
            "metadata": metadata,
            "spec": {"type": "ExternalName", "externalName": "example.com"},
        });
    }
    let kind = match service.kind {
        Kind::NodePort => "NodePort",
        Kind::LoadBalancer => "LoadBalancer",
        _ => "ClusterIP",
    };
    let balancer = service.kind == Kind::LoadBalancer;
    let node_ports = match service.kind {
        Kind::NodePort => true,
        Kind::LoadBalancer => service.node_ports,
        _ => false,
    };
    let external = !service.external_ips.is_empty() && service.kind != Kind::Headless;
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|(index, name, protocol)| {
            let mut entry = json!({
                "name": name,
                "port": port(number, *index),
                "targetPort": "named",
                "protocol": CLUSTER_TCP_UDP[*protocol],
            });
            if node_ports {
                entry["nodePort"] = node_port(number, *index).into();
            }
            entry
        })
        .collect();
    let of_family: Vec<&str> = service
        .families
        .iter()
        .map(|v6| if *v6 { "IPv6" } else { "IPv4" })
        .collect();
    let addresses: Vec<String> = match service.kind {
        Kind::Headless => vec!["None".to_owned()],
        _ => service
            .families
            .iter()
            .map(|v6| cluster_ip(number, *v6))
            .collect(),
    };
    let policy = |local: bool| if local { "Local" } else { "Cluster" };
    let affinity = service.affinity.filter(|_| service.kind != Kind::Headless);
    json!({
        "metadata": metadata,
        "spec": {
            "type": kind,
            "externalName": null,
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": of_family,
            "ipFamilyPolicy": if service.families.len() == 2 { "RequireDualStack" } else { "SingleStack" },
            "ports": ports,
            "internalTrafficPolicy": policy(service.internal_local),
            "externalTrafficPolicy": (external || node_ports || balancer)
                .then(|| policy(service.external_local)),
            "healthCheckNodePort": (balancer && service.external_local)
                .then(|| 31_000 + u16::from(number)),
            "allocateLoadBalancerNodePorts": balancer.then_some(node_ports),
            "sessionAffinity": if affinity.is_some() { "ClientIP" } else { "None" },
            "sessionAffinityConfig": affinity
                .map(|seconds| json!({"clientIP": {"timeoutSeconds": seconds}})),
            "loadBalancerSourceRanges": balancer.then_some(&service.ranges),
            "externalIPs": external.then_some(&service.external_ips),
            "publishNotReadyAddresses": service.not_ready,
            "trafficDistribution": service.distribution,
        },
    })
}

/// A slice of no Service.
fn unlabelled(mut slice: Value) -> Value {
    slice["metadata"]["labels"]["kubernetes.io/service-name"] = Value::Null;
    slice
}

/// A slice: endpoints here, elsewhere and of nowhere, in any condition.
fn slice_object(
    random: &mut Random,
    (name, first): (&str, u8),
    number: u8,
    service: Option<&Service>,
    v6: bool,
    count: usize,
) -> Value {
    let here = random.one_in(3);
    let hinted = random.below(5);
    let endpoints: Vec<Value> = (0..count)
        .map(|_| {
            let local = here || random.one_in(2);
            let host = u64::from(first) + random.below(5);
            let address = match (random.below(12), local, v6) {
                (0, _, false) => format!("10.245.0.{host}"),
                (0, _, true) => format!("fd45::{host}"),
                (1, _, false) if first == 2 => PRIMARY[0].to_owned(),
                (1, _, true) if first == 2 => PRIMARY[1].to_owned(),
                (_, true, false) => format!("10.244.1.{host}"),
                (_, true, true) => format!("fd01:0:0:1::{host}"),
                (_, false, false) => format!("10.244.2.{host}"),
                (_, false, true) => format!("fd01:0:0:2::{host}"),
            };
            let conditions = random.of(&[
                json!({"ready": true, "serving": true, "terminating": false}),
                json!({"ready": true, "serving": true, "terminating": false}),
                json!({"ready": true}),
                json!({}),
                json!({"ready": false, "serving": true, "terminating": true}),
                json!({"ready": false, "serving": true, "terminating": true}),
                json!({"ready": false, "serving": false, "terminating": true}),
                json!({"ready": false, "serving": false, "terminating": false}),
                json!({"ready": false, "serving": true, "terminating": false}),
                json!({"ready": false, "terminating": true}),
                json!({"ready": false}),
                json!({"ready": true, "serving": true, "terminating": true}),
                json!({"ready": true, "serving": false, "terminating": false}),
                json!({"serving": true, "terminating": true}),
            ]);
            let node = match random.below(8) {
                0 => None,
                1 => Some("else"),
                _ if local => Some(NODE),
                _ => Some("else"),
            };
            let mut endpoint = json!({
                "addresses": [address], "conditions": conditions, "nodeName": node,
            });
            let names = |values: &[&str]| -> Vec<Value> {
                values.iter().map(|name| json!({"name": name})).collect()
            };
            let zones = [&["a"][..], &["b"], &["a", "b"], &["c"]];
            let nodes = [&[NODE][..], &["else"], &[NODE]];
            let mut hints = json!({});
            if hinted == 1 || hinted == 3 || random.one_in(8) {
                hints["forZones"] = names(random.of(&zones)).into();
            }
            if hinted == 2 || hinted == 3 || random.one_in(12) {
                hints["forNodes"] = names(random.of(&nodes)).into();
            }
            // One without hints turns them off.
            if hints != json!({}) && !random.one_in(12) {
                endpoint["hints"] = hints;
            }
            endpoint
        })
        .collect();
    let known = service.map_or(&[][..], |service| &service.ports);
    let mut ports: Vec<Value> = Vec::new();
    for (index, name, protocol) in known {
        if random.one_in(10) {
            continue;
        }
        let target = 8000 + 10 * u64::from(*index) + random.below(2);
        let other = random.one_in(15);
        let protocol = CLUSTER_TCP_UDP[if other { 1 - protocol } else { *protocol }];
        let mut entry = json!({"name": name, "port": target, "protocol": protocol});
        if random.one_in(20) {
            entry["port"] = Value::Null;
        }
        ports.push(entry);
    }
    if random.one_in(8) {
        ports.push(json!({"name": "unknown", "port": 9, "protocol": "TCP"}));
    }
    let mut labels = json!({
        "kubernetes.io/service-name": format!("s{number}"),
        "endpointslice.kubernetes.io/managed-by": random.of(&[None, Some("someone")]),
        "service.kubernetes.io/headless": null,
        "service.kubernetes.io/service-proxy-name": null,
    });
    match random.below(25) {
        0 => labels["service.kubernetes.io/headless"] = json!(""),
        1 => labels["service.kubernetes.io/service-proxy-name"] = json!("other"),
        _ => {}
    }
    json!({
        "metadata": {"name": name, "labels": labels},
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": ports,
        "endpoints": endpoints,
    })
}
