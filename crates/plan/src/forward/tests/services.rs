//! From objects as the API server has them to the fates of packets: what kube-proxy's own tests ask
//! of it (`pkg/proxy/nftables`, `iptables`, its trackers of Services and EndpointSlices), asked here.

use serde_json::{Value, json};

use super::*;
use crate::world::tests::Told;
use crate::world::{Event, Node, Service, Slice};

const ME: &str = "me";
const PODS: &str = "10.0.0.0/8 fd00:10::/32";
/// A local Pod, this node, its other address, and somebody outside.
const POD: &str = "10.0.0.2";
const HOST: &str = "192.168.0.2";
const SECOND: &str = "192.168.1.2";
const OUTSIDE: &str = "203.0.113.2";
const BLOCKED: &str = "203.0.113.130";

/// A node with Services.
struct Town {
    told: Told,
    names: Vec<String>,
    sources: Sources,
    node_ports: NodePorts,
}

impl Town {
    fn new() -> Self {
        let mut told = Told::common("");
        let node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": ME},
            {"type": "ExternalIP", "address": "198.51.100.1"},
            {"type": "InternalIP", "address": HOST},
            {"type": "InternalIP", "address": SECOND},
            {"type": "ExternalIP", "address": "2001:db8::2"},
        ]}});
        let node: api::core::Node = serde_json::from_value(node).expect("a node");
        told.tell(Event::Node {
            name: ME.into(),
            form: Some(Node::from(node)),
        });
        Self {
            told,
            names: Vec::new(),
            sources: Sources {
                detector: Detector::ClusterCidr(ranges(PODS)),
                masquerade_all: false,
            },
            node_ports: NodePorts::default(),
        }
    }

    /// A Service with port 80 and node port 3001, and what else is said.
    fn service(mut self, name: &str, spec: Value, ingress: &[Value]) -> Self {
        let mut object = json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"name": "p80", "port": 80, "protocol": "TCP"}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        for (field, value) in spec.as_object().expect("fields") {
            object["spec"][field] = value.clone();
        }
        let object: api::core::Service = serde_json::from_value(object).expect("a Service");
        self.told.service(Service::from(object));
        self.names.push(name.to_owned());
        self
    }

    /// A slice with a port for each of `ports` (`name/protocol=number`).
    fn slice(mut self, name: &str, ports: &str, endpoints: Value) -> Self {
        let service = name.split_once('.').map_or(name, |(service, _)| service);
        let ports: Vec<Value> = ports
            .split_whitespace()
            .map(|port| {
                let (port, number) = port.split_once('=').expect("a number");
                let (name, protocol) = port.split_once('/').expect("a protocol");
                let number: u16 = number.parse().expect("a port");
                json!({"name": name, "protocol": protocol, "port": number})
            })
            .collect();
        let object = json!({
            "metadata": {
                "name": name, "namespace": "default",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        });
        let object = serde_json::from_value(object).expect("a slice");
        self.told
            .slice(name, Slice::of(object).expect("of a Service"));
        self
    }

    fn tracer(&self) -> Tracer {
        let mut table = Table::default();
        for name in &self.names {
            let key = ServiceKey::new("default", name);
            let ports = plan(&self.told.world, ME, Mode::All, &self.node_ports, &key);
            for (key, port) in ports {
                table.set(&key, Some(port));
            }
        }
        let elements: Vec<Element> = table
            .keys()
            .flat_map(|key| table.elements(key).iter().copied().collect::<Vec<_>>())
            .collect();
        let locality = self.sources.on(self.told.world.node(ME));
        let locality = locality.within(ranges("172.30.0.0/16"));
        elements.iter().collect::<Tracer>().with(locality)
    }

    /// Connections from `source` to `destination` (`address:port/protocol`), many of them: where
    /// they go, `*` with another source.
    fn fate(&self, source: &str, destination: &str) -> String {
        let tracer = self.tracer();
        let (destination, protocol) = destination.split_once('/').unwrap_or((destination, "TCP"));
        let from = match source {
            HOST | SECOND => Origin::Host,
            _ if source.starts_with("10.") => Origin::Interface("veth0"),
            _ => Origin::Interface("eth0"),
        };
        let fates: BTreeSet<String> = (0..64_u16)
            .map(|n| {
                let packet = Packet {
                    from,
                    protocol: match protocol {
                        "UDP" => Protocol::Udp,
                        "SCTP" => Protocol::Sctp,
                        _ => Protocol::Tcp,
                    },
                    source: SocketAddr::new(source.parse().expect("an address"), 40_000 + 7 * n),
                    destination: destination.parse().expect("a socket"),
                };
                match tracer.trace(&packet) {
                    Fate::Dnat { to, masquerade } => {
                        format!("{to}{}", if masquerade { "*" } else { "" })
                    }
                    other => format!("{other:?}"),
                }
            })
            .collect();
        fates.into_iter().collect::<Vec<_>>().join(" ")
    }

    fn check(&self, cases: &[(&str, &str, &str)]) {
        for (source, destination, expected) in cases {
            let fate = self.fate(source, destination);
            assert_eq!(fate, *expected, "{source} to {destination}");
        }
    }
}

fn ranges(text: &str) -> Vec<ipnet::IpNet> {
    let ranges = text.split_whitespace();
    ranges.map(|it| it.parse().expect("a range")).collect()
}

fn vip(address: &str) -> Value {
    json!({"ip": address})
}

/// `address@node` with conditions: ready, serving, terminating.
fn endpoint(text: &str, conditions: Option<[bool; 3]>) -> Value {
    let (address, node) = text.split_once('@').expect("a node");
    let mut endpoint = json!({"addresses": [address], "nodeName": node});
    if let Some([ready, serving, terminating]) = conditions {
        endpoint["conditions"] =
            json!({"ready": ready, "serving": serving, "terminating": terminating});
    }
    endpoint
}

fn endpoints(text: &str) -> Value {
    let all = text.split_whitespace();
    all.map(|text| endpoint(text, None)).collect()
}

#[test]
fn cluster_ips() {
    let port =
        |name, port: u16, protocol| json!({"name": name, "port": port, "protocol": protocol});
    let town = Town::new()
        .service("one", json!({"clusterIP": "172.30.0.41"}), &[])
        .service(
            "two",
            json!({"clusterIP": "172.30.0.42", "ports": [
                port("http", 80, "TCP"), port("https", 443, "TCP"), port("udp", 53, "UDP"),
                port("tcp", 53, "TCP"), port("sctp", 53, "SCTP"),
            ]}),
            &[],
        )
        .slice("one", "p80/TCP=80", endpoints("10.180.0.1@me"))
        .slice(
            "two",
            "http/TCP=80 https/TCP=8443 udp/UDP=53 tcp/TCP=5353 sctp/SCTP=53",
            endpoints("10.180.0.1@me 10.180.2.1@far"),
        );
    town.check(&[
        (POD, "172.30.0.41:80", "10.180.0.1:80"),
        ("10.180.0.1", "172.30.0.41:80", "10.180.0.1:80*"),
        (
            "10.180.0.1",
            "172.30.0.42:80",
            "10.180.0.1:80* 10.180.2.1:80",
        ),
        (POD, "172.30.0.42:443", "10.180.0.1:8443 10.180.2.1:8443"),
        (POD, "172.30.0.42:53", "10.180.0.1:5353 10.180.2.1:5353"),
        (POD, "172.30.0.42:53/UDP", "10.180.0.1:53 10.180.2.1:53"),
        (POD, "172.30.0.42:53/SCTP", "10.180.0.1:53 10.180.2.1:53"),
        (POD, "172.30.0.42:80/UDP", "Reject"),
        (POD, "172.30.0.41:443", "Reject"),
        (POD, "172.30.0.50:80", "Drop"),
        (OUTSIDE, "172.30.0.41:80", "10.180.0.1:80*"),
        (HOST, "172.30.0.41:80", "10.180.0.1:80*"),
    ]);
}

/// Nobody serves: rejected, wherever it is for; a port that the slices do not name as well.
#[test]
fn without_endpoints() {
    let spec = |address: &str| {
        json!({
            "type": "LoadBalancer", "clusterIP": address, "externalIPs": ["192.168.99.11"],
            "ports": [{"name": "p80", "port": 80, "protocol": "TCP", "nodePort": 3001}],
        })
    };
    let fronts = [
        "172.30.0.41:80",
        "192.168.99.11:80",
        "1.2.3.4:80",
        "192.168.0.2:3001",
    ];
    let none = Town::new().service("s", spec("172.30.0.41"), &[vip("1.2.3.4")]);
    let other = Town::new()
        .service("s", spec("172.30.0.41"), &[vip("1.2.3.4")])
        .slice("s", "other/TCP=80 p80/UDP=80", endpoints("10.180.0.1@me"));
    for town in [none, other] {
        for front in fronts {
            town.check(&[(POD, front, "Reject"), (OUTSIDE, front, "Reject")]);
        }
    }
}

#[test]
fn load_balancers_and_who_may_connect() {
    let town = Town::new()
        .service(
            "s",
            json!({
                "type": "LoadBalancer", "clusterIP": "172.30.0.41",
                "ports": [{"name": "p80", "port": 80, "protocol": "TCP", "nodePort": 3001}],
                "loadBalancerSourceRanges": ["192.168.0.0/24", " 203.0.113.0/25"],
            }),
            &[vip("1.2.3.4"), vip("5.6.7.8")],
        )
        .slice("s", "p80/TCP=80", endpoints("10.180.0.1@me"));
    let to = "10.180.0.1:80*";
    town.check(&[
        (POD, "172.30.0.41:80", "10.180.0.1:80"),
        (OUTSIDE, "192.168.0.2:3001", to),
        (BLOCKED, "192.168.0.2:3001", to),
        (OUTSIDE, "192.168.1.2:3001", "Pass"),
        (OUTSIDE, "1.2.3.4:80", to),
        (OUTSIDE, "5.6.7.8:80", to),
        (BLOCKED, "1.2.3.4:80", "Drop"),
        (BLOCKED, "5.6.7.8:80", "Drop"),
        (POD, "1.2.3.4:80", "Drop"),
        (HOST, "1.2.3.4:80", to),
        // From the address itself, if the node has it: as the node is among the sources.
        ("1.2.3.4", "1.2.3.4:80", to),
        ("5.6.7.8", "5.6.7.8:80", to),
        (OUTSIDE, "1.2.3.4:81", "Pass"),
    ]);
}

/// An address that another machine forwards, which sends connections to the node ports.
#[test]
fn a_balancers_address_that_is_no_address_of_ours() {
    for (mode, fate) in [
        (json!(null), "10.180.0.1:80*"),
        (json!("VIP"), "10.180.0.1:80*"),
        (json!("Proxy"), "Pass"),
        (json!("Other"), "Pass"),
    ] {
        let entry = json!({"ip": "1.2.3.4", "ipMode": mode});
        // The type does not count, nor that the same address is given once more.
        for kind in ["LoadBalancer", "ClusterIP"] {
            let spec = json!({"type": kind, "clusterIP": "172.30.0.41"});
            let entries = [json!({"hostname": "lb.example.org"}), entry.clone()];
            let town = Town::new().service("s", spec, &entries).slice(
                "s",
                "p80/TCP=80",
                endpoints("10.180.0.1@me"),
            );
            town.check(&[(OUTSIDE, "1.2.3.4:80", fate), (POD, "1.2.3.4:80", fate)]);
        }
    }
}

/// Both policies at every address, for every client, with every way of telling Pods from others.
#[test]
fn policies_and_sources() {
    let spec = |n: u8, external: &str, internal: &str| {
        json!({
            "type": "LoadBalancer", "clusterIP": format!("172.30.0.4{n}"),
            "ports": [{"name": "p80", "port": 80, "protocol": "TCP", "nodePort": 3000 + u16::from(n)}],
            "externalIPs": [format!("192.168.99.1{n}")],
            "externalTrafficPolicy": external, "internalTrafficPolicy": internal,
        })
    };
    let mut town = Town::new();
    for (n, external, internal) in [
        (1, "Cluster", "Cluster"),
        (2, "Local", "Cluster"),
        (3, "Cluster", "Local"),
        (4, "Local", "Local"),
    ] {
        let name = format!("s{n}");
        let own = format!("10.180.0.{n}@me 10.180.1.{n}@far");
        let ingress = [vip(&format!("1.2.3.{n}"))];
        town = town
            .service(&name, spec(n, external, internal), &ingress)
            .slice(&name, "p80/TCP=80", endpoints(&own));
    }
    let detector = || Detector::ClusterCidr(ranges(PODS));
    for (detector, all) in [
        (detector(), false),
        (Detector::default(), false),
        (detector(), true),
        (Detector::default(), true),
    ] {
        let known = detector != Detector::default();
        town.sources = Sources {
            detector,
            masquerade_all: all,
        };
        for n in 1..=4_u8 {
            let (external_local, internal_local) = (n == 2 || n == 4, n >= 3);
            let led = |local: bool, masquerade: bool| {
                let star = if masquerade { "*" } else { "" };
                match local {
                    true => format!("10.180.0.{n}:80{star}"),
                    false => format!("10.180.0.{n}:80{star} 10.180.1.{n}:80{star}"),
                }
            };
            for source in [POD, HOST, OUTSIDE] {
                let pod = known && source == POD;
                let cluster_ip = format!("172.30.0.4{n}:80");
                let expected = led(internal_local, all || (known && !pod));
                town.check(&[(source, &cluster_ip, &expected)]);
                // The host and local Pods go to all; who is not known to be a Pod is from outside.
                let short = external_local && (pod || source == HOST);
                let expected = match (external_local, short) {
                    (false, _) => led(false, true),
                    (true, true) => led(false, !pod),
                    (true, false) => led(true, false),
                };
                for front in [
                    format!("1.2.3.{n}:80"),
                    format!("192.168.99.1{n}:80"),
                    format!("192.168.0.2:300{n}"),
                ] {
                    town.check(&[(source, &front, &expected)]);
                }
            }
        }
    }
}

/// Which endpoints are used while others end: endpoints with their conditions; then what a Pod meets
/// at the cluster IP, and somebody outside at the balancer's address.
#[test]
fn endpoints_that_end() {
    const READY: [bool; 3] = [true, true, false];
    const ENDS: [bool; 3] = [false, true, true];
    const ENDED: [bool; 3] = [false, false, true];
    const STARTS: [bool; 3] = [false, false, false];
    type Case<'a> = (&'a str, &'a [(&'a str, [bool; 3])], &'a str, &'a str);
    let cases: [Case<'_>; 9] = [
        (
            "Local",
            &[
                ("10.0.1.1@me", READY),
                ("10.0.1.2@me", READY),
                ("10.0.1.3@me", ENDS),
                ("10.0.1.4@me", ENDED),
                ("10.0.1.5@far", READY),
            ],
            "10.0.1.1:80 10.0.1.2:80 10.0.1.5:80",
            "10.0.1.1:80 10.0.1.2:80",
        ),
        (
            "Local",
            &[
                ("10.0.1.2@me", ENDS),
                ("10.0.1.3@me", ENDS),
                ("10.0.1.4@me", ENDED),
                ("10.0.1.5@far", READY),
            ],
            "10.0.1.5:80",
            "10.0.1.2:80 10.0.1.3:80",
        ),
        ("Local", &[("10.0.1.5@far", ENDS)], "10.0.1.5:80", "Drop"),
        (
            "Local",
            &[("10.0.1.4@me", ENDED), ("10.0.1.5@far", ENDED)],
            "Reject",
            "Reject",
        ),
        (
            "Local",
            &[("10.0.1.4@me", STARTS), ("10.0.1.5@far", READY)],
            "10.0.1.5:80",
            "Drop",
        ),
        (
            "Cluster",
            &[
                ("10.0.1.1@me", READY),
                ("10.0.1.3@me", ENDS),
                ("10.0.1.4@me", ENDED),
                ("10.0.1.5@far", READY),
            ],
            "10.0.1.1:80 10.0.1.5:80",
            "10.0.1.1:80* 10.0.1.5:80*",
        ),
        (
            "Cluster",
            &[
                ("10.0.1.2@me", ENDS),
                ("10.0.1.4@me", ENDED),
                ("10.0.1.5@far", ENDS),
            ],
            "10.0.1.2:80 10.0.1.5:80",
            "10.0.1.2:80* 10.0.1.5:80*",
        ),
        (
            "Cluster",
            &[("10.0.1.5@far", ENDS)],
            "10.0.1.5:80",
            "10.0.1.5:80*",
        ),
        (
            "Cluster",
            &[("10.0.1.4@me", ENDED), ("10.0.1.5@far", STARTS)],
            "Reject",
            "Reject",
        ),
    ];
    for (policy, list, internal, external) in cases {
        let list: Value = list
            .iter()
            .map(|(text, conditions)| endpoint(text, Some(*conditions)))
            .collect();
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": "172.30.1.1", "externalTrafficPolicy": policy,
        });
        let town = Town::new()
            .service("s", spec, &[vip("1.2.3.4")])
            .slice("s", "p80/TCP=80", list);
        town.check(&[
            (POD, "172.30.1.1:80", internal),
            (OUTSIDE, "1.2.3.4:80", external),
        ]);
    }
}

/// Fields of both families, and spellings that the API server once took.
#[test]
fn addresses_as_they_are_written() {
    let town = Town::new()
        .service(
            "s",
            json!({
                "type": "LoadBalancer", "clusterIP": "172.30.0.041",
                "externalIPs": ["192.168.099.022", "::ffff:192.168.99.23", "2001:db8::5"],
                "loadBalancerSourceRanges": ["203.0.113.000/025", "2001:db8::/64"],
            }),
            &[vip("1.2.3.004"), vip("2001:db8::4")],
        )
        .slice("s", "p80/TCP=80", endpoints("10.180.00.001@me"));
    town.check(&[
        (POD, "172.30.0.41:80", "10.180.0.1:80"),
        (OUTSIDE, "192.168.99.22:80", "10.180.0.1:80*"),
        (OUTSIDE, "192.168.99.23:80", "10.180.0.1:80*"),
        (OUTSIDE, "1.2.3.4:80", "10.180.0.1:80*"),
        (BLOCKED, "1.2.3.4:80", "Drop"),
        // The Service has no IPv6.
        ("2001:db8:9::1", "[2001:db8::5]:80", "Pass"),
        ("2001:db8:9::1", "[2001:db8::4]:80", "Pass"),
    ]);
    // A range with everything means the same as none, beside others.
    let town = Town::new()
        .service(
            "s",
            json!({
                "type": "LoadBalancer", "clusterIP": "172.30.0.41",
                "loadBalancerSourceRanges": ["203.0.113.0/25", "0.0.0.0/0"],
            }),
            &[vip("1.2.3.4")],
        )
        .slice("s", "p80/TCP=80", endpoints("10.180.0.1@me"));
    town.check(&[(BLOCKED, "1.2.3.4:80", "10.180.0.1:80*")]);
}

/// Node ports are on the node's primary addresses: of type InternalIP, and of ExternalIP in a family
/// that has no other.
#[test]
fn the_nodes_addresses() {
    let spec = json!({
        "type": "NodePort", "clusterIPs": ["172.30.0.41", "fd00:30::41"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ports": [{"name": "p80", "port": 80, "protocol": "TCP", "nodePort": 3001}],
    });
    let mut town = Town::new().service("s", spec, &[]).slice(
        "s",
        "p80/TCP=80",
        endpoints("10.180.0.1@me 10.180.2.1@far"),
    );
    let both = "10.180.0.1:80* 10.180.2.1:80*";
    town.check(&[
        (OUTSIDE, "192.168.0.2:3001", both),
        (HOST, "192.168.0.2:3001", both),
        (OUTSIDE, "192.168.1.2:3001", "Pass"),
        (OUTSIDE, "198.51.100.1:3001", "Pass"),
        ("2001:db8:9::1", "[2001:db8::2]:3001", "Reject"),
    ]);
    town.node_ports = NodePorts {
        ranges: Some(ranges("192.168.0.0/24 192.168.1.0/24 2001:db8::/64")),
        primary: false,
        own: [HOST, SECOND, "198.51.100.1"]
            .map(|it| it.parse().expect("an address"))
            .into(),
    };
    town.check(&[
        (OUTSIDE, "192.168.0.2:3001", both),
        (OUTSIDE, "192.168.1.2:3001", both),
        (OUTSIDE, "198.51.100.1:3001", "Pass"),
    ]);
}
