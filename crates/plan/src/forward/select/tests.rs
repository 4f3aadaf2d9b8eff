//! Tables: from Service and slices to the service ports of a node (`spec/dataplane.md` §1.1 to 1.4).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::forward::compile;
use crate::net::Protocol;
use crate::world::tests::{Told, balancer, endpoint, ingress, ip, key, slice};
use crate::world::{Event, Node, Policy, Port, Slice, SlicePort};

const ME: &str = "me";

fn table(told: &Told, mode: Mode, service: &str) -> BTreeMap<PortKey, ServicePort> {
    plan(&told.world, ME, mode, &NodePorts::default(), &key(service))
}

/// The only port of `s`, in IPv4.
fn port(told: &Told, mode: Mode) -> ServicePort {
    let mut ports: Vec<_> = table(told, mode, "s").into_values().collect();
    assert_eq!(ports.len(), 1, "{ports:?}");
    ports.remove(0)
}

fn ips(sockets: &[SocketAddr]) -> String {
    let list: Vec<String> = sockets
        .iter()
        .map(|socket| {
            assert_eq!(socket.port(), 8080);
            socket.ip().to_string()
        })
        .collect();
    list.join(" ")
}

/// Frontends as `address kind policy`.
fn fronts(ports: &BTreeMap<PortKey, ServicePort>) -> Vec<String> {
    let all: BTreeSet<String> = ports
        .values()
        .flat_map(|port| &port.frontends)
        .map(|front| {
            format!(
                "{}:{} {:?} {:?}",
                front.address, front.port, front.kind, front.policy
            )
        })
        .collect();
    all.into_iter().collect()
}

#[test]
fn endpoints_and_their_fall_back() {
    // Endpoints → set of policy Cluster, set of policy Local, usable anywhere.
    let table = [
        ("", "", "", false),
        (
            "10.244.0.1@me 10.244.0.2@far",
            "10.244.0.1 10.244.0.2",
            "10.244.0.1",
            true,
        ),
        ("10.244.0.1@far", "10.244.0.1", "", true),
        ("10.244.0.1", "10.244.0.1", "", true),
        ("!10.244.0.1@me", "", "", false),
        // Ready ones first, for each set by itself.
        (
            "~10.244.0.1@me 10.244.0.2@far",
            "10.244.0.2",
            "10.244.0.1",
            true,
        ),
        (
            "10.244.0.1@me ~10.244.0.2@me",
            "10.244.0.1",
            "10.244.0.1",
            true,
        ),
        (
            "~10.244.0.1@me ~10.244.0.2@far",
            "10.244.0.1 10.244.0.2",
            "10.244.0.1",
            true,
        ),
        ("~10.244.0.1@far", "10.244.0.1", "", true),
        ("!10.244.0.1@me ~10.244.0.2@far", "10.244.0.2", "", true),
        // Terminating and not serving: never, even as the last.
        ("-10.244.0.1@me", "", "", false),
        ("-10.244.0.1@me 10.244.0.2@far", "10.244.0.2", "", true),
        // Sorted.
        (
            "10.244.0.9@me 10.244.0.10@me",
            "10.244.0.9 10.244.0.10",
            "10.244.0.9 10.244.0.10",
            true,
        ),
    ];
    for (endpoints, cluster, local, usable) in table {
        let mut told = Told::common("");
        told.service(balancer("s", "10.0.0.1"));
        told.slice("s", slice("s", endpoints));
        let port = port(&told, Mode::All);
        assert_eq!(ips(&port.cluster), cluster, "{endpoints}");
        assert_eq!(ips(&port.local), local, "{endpoints}");
        assert_eq!(port.usable_anywhere, usable, "{endpoints}");
    }
}

/// Conditions that are not given: ready and serving, and not terminating.
#[test]
fn conditions_that_are_not_given() {
    // Conditions → in the set.
    let table = [
        (json!({}), true),
        (json!({"ready": true, "terminating": true}), true),
        (json!({"ready": false}), false),
        (json!({"ready": false, "terminating": true}), true),
        (json!({"ready": false, "serving": true}), false),
        (
            json!({"ready": false, "serving": false, "terminating": true}),
            false,
        ),
    ];
    for (conditions, used) in table {
        let mut told = Told::common("");
        told.service(balancer("s", "10.0.0.1"));
        told.tell(Event::Slice {
            key: key("s"),
            form: decoded(
                json!([{"addresses": ["10.244.0.1", "10.244.0.2"], "conditions": conditions}]),
            ),
        });
        let port = port(&told, Mode::All);
        // Only the first address counts.
        let expected = if used { "10.244.0.1" } else { "" };
        assert_eq!(ips(&port.cluster), expected, "{conditions}");
    }
}

fn decoded(endpoints: Value) -> Option<Slice> {
    let manifest = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "s", "namespace": "default", "labels": {"kubernetes.io/service-name": "s"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "none"}, {"name": "zero", "port": 0}],
        "endpoints": endpoints,
    });
    Slice::of(serde_json::from_value(manifest).expect("a slice"))
}

#[test]
fn slices_that_count() {
    let slice = decoded(json!([
        {"addresses": ["10.244.0.1"]},
        {"addresses": ["2001:db8::1"]},
        {"addresses": ["nonsense"]},
        {"addresses": []},
    ]))
    .expect("a slice of a Service");
    let addresses: Vec<IpAddr> = slice.endpoints.iter().map(|e| e.address).collect();
    assert_eq!(addresses, [ip("10.244.0.1")]);
    let names: Vec<&str> = slice.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["http"]);
    for (field, value) in [
        ("addressType", json!("FQDN")),
        ("metadata", json!({"name": "s"})),
    ] {
        let mut manifest = json!({
            "addressType": "IPv4", "endpoints": [],
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}},
        });
        manifest[field] = value;
        let object = serde_json::from_value(manifest).expect("a slice");
        assert_eq!(Slice::of(object), None, "{field}");
    }
}

/// The same socket in several slices counts once: a copy that does not terminate, then the local
/// one, then one that is ready, in whatever order the slices come.
#[test]
fn copies_of_an_endpoint() {
    let table = [
        (
            "10.244.0.1@far",
            "10.244.0.1@me",
            "10.244.0.1",
            "10.244.0.1",
        ),
        ("10.244.0.1", "10.244.0.1@me", "10.244.0.1", "10.244.0.1"),
        ("!10.244.0.1@far", "10.244.0.1@far", "10.244.0.1", ""),
        (
            "!10.244.0.1@me",
            "10.244.0.1@me",
            "10.244.0.1",
            "10.244.0.1",
        ),
        (
            "~10.244.0.1@me",
            "-10.244.0.1@me",
            "10.244.0.1",
            "10.244.0.1",
        ),
        ("10.244.0.1@me", "10.244.0.1@me", "10.244.0.1", "10.244.0.1"),
        // A Pod elsewhere has the address of one here that is about to end.
        ("~10.244.0.1@me", "10.244.0.1@far", "10.244.0.1", ""),
        ("~10.244.0.1@me", "!10.244.0.1@far", "", ""),
    ];
    for (one, two, cluster, local) in table {
        for (first, second) in [(one, two), (two, one)] {
            let mut told = Told::common("");
            told.service(balancer("s", "10.0.0.1"));
            told.slice("s-1", slice("s", first));
            told.slice("s-2", slice("s", second));
            let port = port(&told, Mode::All);
            assert_eq!(ips(&port.cluster), cluster, "{first} {second}");
            assert_eq!(ips(&port.local), local, "{first} {second}");
        }
    }
    // In one slice the last copy counts that does not terminate, else the first one.
    for (endpoints, cluster, local) in [
        ("10.244.0.1@me 10.244.0.1@far", "10.244.0.1", ""),
        ("10.244.0.1@far 10.244.0.1@me", "10.244.0.1", "10.244.0.1"),
        ("10.244.0.1@me !10.244.0.1@me", "", ""),
        ("!10.244.0.1@far 10.244.0.1@far", "10.244.0.1", ""),
        ("10.244.0.1@far ~10.244.0.1@me", "10.244.0.1", ""),
        (
            "~10.244.0.1@me 10.244.0.1@me -10.244.0.1@far",
            "10.244.0.1",
            "10.244.0.1",
        ),
        ("~10.244.0.1@me -10.244.0.1@me", "10.244.0.1", "10.244.0.1"),
        ("-10.244.0.1@me ~10.244.0.1@me", "", ""),
    ] {
        let mut told = Told::common("");
        told.service(balancer("s", "10.0.0.1"));
        told.slice("s", slice("s", endpoints));
        let port = port(&told, Mode::All);
        assert_eq!(ips(&port.cluster), cluster, "{endpoints}");
        assert_eq!(ips(&port.local), local, "{endpoints}");
    }
    // Another port is another socket.
    let mut told = Told::common("");
    told.service(balancer("s", "10.0.0.1"));
    told.slice("s-1", slice("s", "10.244.0.1@me"));
    let mut other = slice("s", "10.244.0.1@me");
    other.ports[0].port = 8081;
    told.slice("s-2", other);
    assert_eq!(port(&told, Mode::All).cluster.len(), 2);
}

/// An endpoint moves between slices of one Service, and a slice between Services.
#[test]
fn slices_move() {
    let mut told = Told::common("");
    told.service(balancer("s", "10.0.0.1"));
    told.service(balancer("t", "10.0.0.2"));
    told.slice("x", slice("s", "10.244.0.1@me"));
    told.slice("y", slice("s", "10.244.0.1@me 10.244.0.2@me"));
    told.slice("x", slice("s", ""));
    assert_eq!(
        ips(&port(&told, Mode::All).cluster),
        "10.244.0.1 10.244.0.2"
    );
    let dirty = told.slice("y", slice("t", "10.244.0.2@me"));
    let both = BTreeSet::from([key("s"), key("t")]);
    assert_eq!(dirty.forward, both);
    assert_eq!(ips(&port(&told, Mode::All).cluster), "");
    let dirty = told.tell(Event::Slice {
        key: key("y"),
        form: None,
    });
    assert_eq!(dirty.forward, BTreeSet::from([key("t")]));
}

/// A node of a zone, with one address of each family.
fn place(told: &mut Told, zone: &str) -> crate::world::Dirty {
    let labels =
        crate::world::Labels::from([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())]);
    told.tell(Event::Node {
        name: ME.into(),
        form: Some(Node {
            labels,
            addresses: vec![ip("172.16.0.1"), ip("172.16.0.2"), ip("fd00::1")],
            ..Node::default()
        }),
    })
}

/// Hints narrow the set of policy Cluster, where all ready endpoints have them and one is for us.
#[test]
fn hints_keep_traffic_near() {
    // Endpoints (`#zone,=node`) → set of policy Cluster on node `me` in zone `a`.
    let table = [
        ("10.244.0.1#a 10.244.0.2#b", "10.244.0.1"),
        ("10.244.0.1#a,b 10.244.0.2#b", "10.244.0.1"),
        ("10.244.0.1#b 10.244.0.2#c", "10.244.0.1 10.244.0.2"),
        ("10.244.0.1#a 10.244.0.2", "10.244.0.1 10.244.0.2"),
        ("10.244.0.1#a,=me 10.244.0.2#a,=far", "10.244.0.1"),
        ("10.244.0.1#a,=x 10.244.0.2#b,=far", "10.244.0.1"),
        ("10.244.0.1#=me 10.244.0.2#a", "10.244.0.1 10.244.0.2"),
        // Only ready ones count; terminating ones are used without hints.
        ("10.244.0.1#a 10.244.0.2#b ~10.244.0.3", "10.244.0.1"),
        ("~10.244.0.1#a ~10.244.0.2#b", "10.244.0.1 10.244.0.2"),
    ];
    for (endpoints, cluster) in table {
        let mut told = Told::common("");
        place(&mut told, "a");
        told.service(balancer("s", "10.0.0.1"));
        told.slice("s", slice("s", endpoints));
        assert_eq!(ips(&port(&told, Mode::All).cluster), cluster, "{endpoints}");
    }
    // Policy Local knows no hints; and a node without a zone is near to nobody.
    let mut told = Told::common("");
    place(&mut told, "a");
    told.service(balancer("s", "10.0.0.1"));
    told.slice("s", slice("s", "10.244.0.1@me#b 10.244.0.2#a"));
    assert_eq!(ips(&port(&told, Mode::All).local), "10.244.0.1");
    let dirty = place(&mut told, "b");
    assert_eq!(dirty.places, BTreeSet::from([ME.into()]));
    assert_eq!(ips(&port(&told, Mode::All).cluster), "10.244.0.1");
    told.tell(Event::Node {
        name: ME.into(),
        form: None,
    });
    let all = "10.244.0.1 10.244.0.2";
    assert_eq!(ips(&port(&told, Mode::All).cluster), all);
}

/// `nodePort` on the node's first address of each family, by the external policy.
#[test]
fn node_ports() {
    let with = |kind, node_port| {
        let mut told = Told::common("");
        place(&mut told, "a");
        let mut service = Service {
            kind,
            external_policy: Policy::Local,
            cluster_ips: vec![ip("10.96.0.1"), ip("fd01::1")],
            families: vec![Family::V4, Family::V6],
            ..balancer("s", "")
        };
        service.ports[0].node_port = node_port;
        told.service(service);
        told
    };
    let cluster = [
        "10.96.0.1:80 ClusterIp Cluster",
        "fd01::1:80 ClusterIp Cluster",
    ];
    let node = [
        "172.16.0.1:30080 NodePort Local",
        "fd00::1:30080 NodePort Local",
    ];
    // The API server lets no other type have one.
    for kind in [
        ServiceType::NodePort,
        ServiceType::LoadBalancer,
        ServiceType::ClusterIP,
    ] {
        let told = with(kind, 30080);
        let internal = kind == ServiceType::ClusterIP;
        let node = node.map(|text| match internal {
            true => text.replace("Local", "Cluster"),
            false => text.to_owned(),
        });
        let both = cluster.map(ToOwned::to_owned).into_iter().chain(node);
        let both = BTreeSet::from_iter(both);
        let both: Vec<_> = both.into_iter().collect();
        assert_eq!(fronts(&table(&told, Mode::All, "s")), both);
        assert!(fronts(&table(&told, Mode::Vips, "s")).is_empty());
        assert_eq!(fronts(&table(&with(kind, 0), Mode::All, "s")), cluster);
    }
}

/// `nodePort` on several addresses of the host.
#[test]
fn node_ports_on_several_addresses() {
    let mut told = Told::common("");
    place(&mut told, "a");
    let mut service = balancer("s", "");
    service.ports[0].node_port = 30080;
    told.service(service);
    let ports = |ranges: &[&str]| NodePorts {
        ranges: Some(
            ranges
                .iter()
                .map(|it| it.parse().expect("a range"))
                .collect(),
        ),
        primary: false,
        own: ["172.16.0.2", "192.168.0.1", "fd00::1"].map(ip).into(),
    };
    let all = ["172.16.0.2:30080", "192.168.0.1:30080"];
    for (ranges, expected) in [
        (&["0.0.0.0/0"][..], &all[..]),
        (&["fd00::/64"], &all),
        (&["192.168.0.0/16", "10.0.0.0/8"], &all[1..]),
        (&["10.0.0.0/8"], &[]),
    ] {
        let table = plan(&told.world, ME, Mode::All, &ports(ranges), &key("s"));
        let fronts = fronts(&table);
        let found: Vec<&str> = fronts
            .iter()
            .filter_map(|front| front.strip_suffix(" NodePort Cluster"))
            .collect();
        assert_eq!(found, expected, "{ranges:?}");
        assert!(plan(&told.world, ME, Mode::Vips, &ports(ranges), &key("s")).is_empty());
    }
}

/// Ports join by name and protocol.
#[test]
fn ports_join_by_name_and_protocol() {
    let service_port = |name: &str, protocol, port| Port {
        name: name.into(),
        protocol,
        port,
        node_port: 0,
    };
    let mut told = Told::common("");
    told.service(Service {
        ports: vec![
            service_port("dns", Protocol::Tcp, 53),
            service_port("dns-udp", Protocol::Udp, 53),
            service_port("web", Protocol::Tcp, 80),
        ],
        ..balancer("s", "10.0.0.1")
    });
    let slice_port = |name: &str, protocol, port| SlicePort {
        name: name.into(),
        protocol,
        port,
    };
    told.slice(
        "s",
        Slice {
            triggered: None,
            foreign: None,
            service: key("s"),
            family: Family::V4,
            ports: vec![
                slice_port("dns", Protocol::Tcp, 5353),
                slice_port("dns-udp", Protocol::Udp, 5454),
                slice_port("web", Protocol::Sctp, 8080),
            ],
            endpoints: vec![endpoint("10.244.0.1")],
        },
    );
    let got: Vec<String> = table(&told, Mode::All, "s")
        .into_iter()
        .map(|(key, port)| format!("{}/{} {:?}", key.port, key.protocol, port.cluster))
        .collect();
    let expected = [
        "dns/TCP [10.244.0.1:5353]",
        "dns-udp/UDP [10.244.0.1:5454]",
        "web/TCP []",
    ];
    assert_eq!(got, expected);
}

/// Which addresses of which Services are programmed, by mode.
#[test]
fn addresses_by_mode() {
    let full = Service {
        external_ips: vec![ip("192.0.2.5")],
        ..balancer("s", "10.0.0.1")
    };
    let proxied = Service {
        ingress: vec![
            crate::world::Ingress {
                ip: Some(ip("10.0.0.1")),
                proxy: true,
            },
            crate::world::Ingress {
                ip: None,
                proxy: false,
            },
        ],
        ..balancer("s", "")
    };
    let kind = |kind: ServiceType| Service {
        kind,
        ..full.clone()
    };
    let policies = Service {
        external_policy: Policy::Local,
        internal_policy: Policy::Local,
        ..full.clone()
    };
    let internal = Service {
        internal_policy: Policy::Local,
        ..full.clone()
    };
    let cluster = "10.96.0.1:80 ClusterIp Cluster";
    let external = "192.0.2.5:80 ExternalIp Cluster";
    let vip = "10.0.0.1:80 LoadBalancer Cluster";
    let table: Vec<(&str, Service, Mode, Vec<&str>)> = vec![
        ("off", full.clone(), Mode::Off, vec![]),
        ("vips", full.clone(), Mode::Vips, vec![vip, external]),
        ("all", full.clone(), Mode::All, vec![vip, cluster, external]),
        ("ipMode Proxy", proxied.clone(), Mode::All, vec![cluster]),
        ("ipMode Proxy", proxied, Mode::Vips, vec![]),
        (
            "ClusterIP",
            kind(ServiceType::ClusterIP),
            Mode::All,
            vec![vip, cluster, external],
        ),
        (
            "NodePort",
            kind(ServiceType::NodePort),
            Mode::Vips,
            vec![vip, external],
        ),
        (
            "type ClusterIP, policy Local, reached from outside",
            Service {
                kind: ServiceType::ClusterIP,
                ..policies.clone()
            },
            Mode::Vips,
            vec![
                "10.0.0.1:80 LoadBalancer Local",
                "192.0.2.5:80 ExternalIp Local",
            ],
        ),
        (
            "type ClusterIP, policy Local that counts for nothing",
            Service {
                kind: ServiceType::ClusterIP,
                external_ips: Vec::new(),
                ..policies.clone()
            },
            Mode::Vips,
            vec![vip],
        ),
        (
            "ExternalName",
            kind(ServiceType::ExternalName),
            Mode::All,
            vec![],
        ),
        (
            "other proxy",
            Service {
                other_proxy: true,
                ..full.clone()
            },
            Mode::All,
            vec![],
        ),
        (
            "headless",
            Service {
                kind: ServiceType::ClusterIP,
                cluster_ips: Vec::new(),
                families: Vec::new(),
                ..full.clone()
            },
            Mode::All,
            vec![],
        ),
        (
            "no API server that gives cluster IPs",
            Service {
                cluster_ips: Vec::new(),
                ..full.clone()
            },
            Mode::All,
            vec![vip, external],
        ),
        (
            "another class",
            Service {
                class: Some("x".into()),
                ..full.clone()
            },
            Mode::Vips,
            vec![vip, external],
        ),
        (
            "Local, both",
            policies,
            Mode::All,
            vec![
                "10.0.0.1:80 LoadBalancer Local",
                "10.96.0.1:80 ClusterIp Local",
                "192.0.2.5:80 ExternalIp Local",
            ],
        ),
        (
            "Local, internal",
            internal,
            Mode::All,
            vec![vip, "10.96.0.1:80 ClusterIp Local", external],
        ),
        (
            "no port",
            Service {
                ports: Vec::new(),
                ..full
            },
            Mode::All,
            vec![],
        ),
    ];
    for (name, service, mode, expected) in table {
        let mut told = Told::common("");
        told.served(service);
        assert_eq!(fronts(&table_of(&told, mode)), expected, "{name} {mode:?}");
    }
}

fn table_of(told: &Told, mode: Mode) -> BTreeMap<PortKey, ServicePort> {
    table(told, mode, "s")
}

/// Labels and fields as they come from the API.
#[test]
fn services_from_the_api() {
    let decode = |metadata: Value, spec: Value| {
        let manifest = json!({"metadata": metadata, "spec": spec});
        Service::from(serde_json::from_value::<api::core::Service>(manifest).expect("a Service"))
    };
    let labelled = |label: &str| {
        let metadata = json!({"name": "s", "namespace": "default", "labels": {label: "x"}});
        decode(metadata, json!({"clusterIP": "10.96.0.1"})).other_proxy
    };
    assert!(labelled("service.kubernetes.io/service-proxy-name"));
    // The EndpointSlice controller copies this one, and the slices are left out.
    assert!(!labelled("service.kubernetes.io/headless"));
    assert!(!labelled("app"));
    let named = || json!({"name": "s", "namespace": "default"});
    for spec in [
        json!({"clusterIP": "None", "ipFamilies": ["IPv4"]}),
        json!({"clusterIPs": ["None"], "ipFamilies": ["IPv4"]}),
        json!({"type": "ExternalName", "externalName": "example.org"}),
    ] {
        let service = decode(named(), spec.clone());
        assert!(!forwarded(&service, Mode::All), "{spec}");
    }
    for spec in [
        json!({"clusterIP": "10.96.0.1"}),
        json!({"clusterIPs": ["10.96.0.1", "2001:db8::a"]}),
        json!({"type": "LoadBalancer", "ipFamilies": ["IPv6"]}),
    ] {
        let service = decode(named(), spec.clone());
        assert!(forwarded(&service, Mode::All), "{spec}");
    }
}

/// Labels of slices that come from the API: label, ports that are forwarded, endpoints that count
/// for who announces.
#[test]
fn slices_from_the_api() {
    for (label, ports) in [
        ("app", 1),
        ("service.kubernetes.io/service-proxy-name", 1),
        ("service.kubernetes.io/headless", 0),
    ] {
        let manifest = json!({
            "metadata": {
                "name": "s-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "s", label: ""},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.244.0.1"]}],
        });
        let slice = serde_json::from_value(manifest).expect("a slice");
        let slice = Slice::of(slice).expect("of a Service");
        let found = (slice.ports.len(), slice.endpoints.len());
        assert_eq!(found, (ports, 1), "{label}");
    }
}

/// An address that is given twice is one front; the one with source ranges counts more.
#[test]
fn an_address_in_two_fields() {
    let mut told = Told::common("");
    told.served(Service {
        external_ips: vec![ip("10.0.0.1"), ip("10.0.0.1"), ip("10.96.0.1")],
        ingress: ingress("10.0.0.1 10.0.0.1"),
        source_ranges: vec!["192.0.2.0/24".into()],
        ..balancer("s", "")
    });
    let ports = table(&told, Mode::All, "s");
    let expected = [
        "10.0.0.1:80 LoadBalancer Cluster",
        "10.96.0.1:80 ClusterIp Cluster",
    ];
    assert_eq!(fronts(&ports), expected);
    let (key, port) = ports.first_key_value().expect("a port");
    assert_eq!(port.frontends.len(), 2);
    let elements = compile(key, port);
    let keys: BTreeSet<_> = elements.iter().map(|element| element.key()).collect();
    assert_eq!(keys.len(), elements.len(), "the kernel takes each key once");
}

/// Of two Services with one address that need not share it, the one known first has the ports that
/// both want, whatever their names; the other's own ports are forwarded, as with kube-proxy.
#[test]
fn an_address_that_two_services_have() {
    let mut told = Told::common("");
    let with_port = |name: &str, port: u16| {
        let mut service = balancer(name, "10.0.0.1");
        service.ports.push(Port {
            name: "own".into(),
            port,
            ..service.ports[0].clone()
        });
        service
    };
    told.served(with_port("t", 81));
    told.served(with_port("s", 82));
    let winners = |told: &Told| {
        let mut all = crate::forward::Table::default();
        for name in ["s", "t"] {
            for (key, port) in table(told, Mode::Vips, name) {
                all.set(&key, Some(port));
            }
        }
        let mut found = Vec::new();
        for key in all.keys() {
            for element in &all.elements(key) {
                if let crate::forward::Element::Front { front, .. } = element {
                    found.push(format!("{} {}", key.service.name, front.port));
                }
            }
        }
        found.sort_unstable();
        found.join(", ")
    };
    assert_eq!(winners(&told), "s 82, t 80, t 81");
    // Its first holder leaves it.
    let dirty = told.service(balancer("t", ""));
    assert!(dirty.forward.contains(&key("s")), "{dirty:?}");
    assert_eq!(winners(&told), "s 80, s 82");
}

/// Addresses of a family that the Service has not are left out, as kube-proxy does.
#[test]
fn foreign_families_are_left_out() {
    let mut told = Told::common("");
    let service = Service {
        external_ips: vec![ip("192.0.2.1"), ip("2001:db8::2")],
        ..balancer("s", "10.0.0.1 2001:db8::1")
    };
    for mode in [Mode::All, Mode::Vips] {
        told.service(service.clone());
        told.slice("six", slice("s", "2001:db8:2::1@me"));
        let ports = table(&told, mode, "s");
        assert!(
            ports.keys().all(|key| key.family == Family::V4),
            "{ports:?}"
        );
        let all = fronts(&ports).join("\n");
        assert!(
            all.contains("192.0.2.1:80") && all.contains("10.0.0.1:80"),
            "{all}"
        );
        told.service(Service {
            families: vec![Family::V4, Family::V6],
            ..service.clone()
        });
        let all = fronts(&table(&told, mode, "s")).join("\n");
        assert!(
            all.contains("2001:db8::1:80") && all.contains("2001:db8::2:80"),
            "{all}"
        );
    }
}

/// The two families are apart: addresses, endpoints and source ranges.
#[test]
fn families_are_apart() {
    let mut told = Told::common("");
    let mut service = Service {
        cluster_ips: vec![ip("10.96.0.1"), ip("2001:db8:1::1")],
        families: vec![Family::V4, Family::V6],
        affinity_seconds: Some(60),
        ..balancer("s", "10.0.0.1 2001:db8::1")
    };
    let ranges = |service: &Service| {
        let mut told = Told::common("");
        told.service(service.clone());
        table_of(&told, Mode::All)
            .into_iter()
            .map(|(key, port)| {
                let ranges: Vec<String> =
                    port.source_ranges.iter().map(ToString::to_string).collect();
                format!("{}: {}", key.family, ranges.join(" "))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(ranges(&service), ["IPv4: ", "IPv6: "]);
    // No range of a family: open. Host bits are cut, old spellings taken.
    service.source_ranges = vec!["192.0.2.7/24".into(), "010.1.0.0/16".into()];
    assert_eq!(
        ranges(&service),
        ["IPv4: 192.0.2.0/24 10.1.0.0/16", "IPv6: "]
    );
    service.source_ranges = vec!["192.0.2.0/24".into(), "2001:db8:f::1/64".into()];
    assert_eq!(
        ranges(&service),
        ["IPv4: 192.0.2.0/24", "IPv6: 2001:db8:f::/64"]
    );
    told.service(service);
    told.slice("four", slice("s", "10.244.0.1@me"));
    told.slice("six", slice("s", "2001:db8:2::1@me ~2001:db8:2::2@me"));
    let ports = table(&told, Mode::All, "s");
    let got: Vec<String> = ports
        .iter()
        .map(|(key, port)| format!("{} {}", key.family, ips(&port.cluster)))
        .collect();
    assert_eq!(got, ["IPv4 10.244.0.1", "IPv6 2001:db8:2::1"]);
    assert!(ports.values().all(|port| port.affinity_seconds == Some(60)));
    let own = ports.iter().all(|(key, port)| {
        port.frontends
            .iter()
            .all(|front| Family::of(front.address) == key.family)
    });
    assert!(own, "{ports:?}");
}

/// A range that this node is in lets in what it sends to a balancer's address that it has itself:
/// that comes from the address (kube-proxy's rule). Spaces around a range mean nothing.
#[test]
fn a_node_among_the_sources_brings_the_balancers_addresses() {
    let ranges = |text: &str| {
        let mut told = Told::common("");
        place(&mut told, "a");
        told.service(Service {
            cluster_ips: vec![ip("10.96.0.1"), ip("2001:db8:1::1")],
            families: vec![Family::V4, Family::V6],
            external_ips: vec![ip("10.0.0.9")],
            source_ranges: vec![text.into()],
            ..balancer("s", "10.0.0.1 10.0.0.2 2001:db8::1")
        });
        let ports = table(&told, Mode::All, "s").into_values();
        let ranges = ports.flat_map(|port| port.source_ranges);
        let ranges: Vec<String> = ranges.map(|range| range.to_string()).collect();
        ranges.join(" ")
    };
    for (text, expected) in [
        ("192.0.2.0/24", "192.0.2.0/24"),
        (" 192.0.2.0/24 ", "192.0.2.0/24"),
        ("172.16.0.0/16", "172.16.0.0/16 10.0.0.1/32 10.0.0.2/32"),
        // The first address is the node's.
        ("172.16.0.2/32", "172.16.0.2/32"),
        ("fd00::/8", "fd00::/8 2001:db8::1/128"),
    ] {
        assert_eq!(ranges(text), expected, "{text:?}");
    }
}

/// Shares of IPVS, by node and by address.
#[test]
fn weights_that_the_service_asks_for() {
    let mut told = Told::common("");
    let mut service = balancer("s", "10.0.0.1");
    let asked = "far=3, 10.244.0.3=0, nonsense, 10.244.0.9=7".to_owned();
    service.annotations.insert(IPVS_WEIGHTS.to_owned(), asked);
    told.service(service);
    told.slice(
        "s",
        slice("s", "10.244.0.1@me 10.244.0.2@far 10.244.0.3@far"),
    );
    let port = port(&told, Mode::All);
    let weights = port.weights.expect("weights");
    let seen: Vec<u32> = port.cluster.iter().map(|at| weights.of(at)).collect();
    assert_eq!(
        (&*seen, weights.bad.as_deref()),
        (&[1, 3, 0][..], Some("nonsense"))
    );
}
