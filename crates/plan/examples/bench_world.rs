//! How long World takes for one change: a table, and as its last line one JSON object.
// The library has no clock; what measures it does.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use plan::config::Object;
use plan::desired::{Agent, Desired};
use plan::forward::Mode;
use plan::name::ServiceKey;
use plan::net::{Family, Protocol};
use plan::world::{
    Endpoint, Event, FamilyPolicy, Ingress, Interface, Node, NodeState, Policy, Port, Service,
    ServiceType, Settings, Slice, SlicePort, World,
};
use serde_json::{Value, json};

const NAMESPACE: &str = "metallb-system";

fn config(kind: &str, spec: Value) -> Event {
    let manifest = json!({"apiVersion": "metallb.io/v1beta1", "kind": kind,
        "metadata": {"name": "one", "namespace": NAMESPACE}, "spec": spec});
    let decoded = api::object::Object::decode(manifest).expect("an object");
    let object = Object::try_from(decoded.object).expect("a configuration object");
    Event::Config {
        object: object.reference(),
        form: Some(Arc::new(object)),
    }
}

fn key(n: usize) -> ServiceKey {
    ServiceKey::new("default", &format!("service-{n}"))
}

fn address(n: usize) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(10, 0, 0, 0));
    IpAddr::V4(Ipv4Addr::from(base + u32::try_from(n).expect("small")))
}

fn service(n: usize) -> Event {
    let service = Service {
        key: key(n),
        uid: "".into(),
        resource_version: "".into(),
        created: "".into(),
        labels: BTreeMap::new(),
        other_proxy: false,
        annotations: BTreeMap::new(),
        kind: ServiceType::LoadBalancer,
        class: None,
        cluster_ips: Vec::new(),
        families: vec![Family::V4],
        family_policy: FamilyPolicy::SingleStack,
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
            port: 80,
            node_port: 0,
        }],
        ingress: vec![Ingress {
            ip: Some(address(n)),
            proxy: false,
        }],
    };
    Event::Service {
        key: key(n),
        form: Some(Box::new(service)),
    }
}

fn slice(n: usize, ready: bool) -> Event {
    let endpoint = |last: u8| Endpoint {
        address: IpAddr::V4(Ipv4Addr::new(10, 244, 0, last)),
        node: Some(format!("node-{last}").into()),
        ready,
        serving: Some(ready),
        terminating: false,
        hints: None,
    };
    Event::Slice {
        key: key(n),
        form: Some(Slice {
            triggered: None,
            foreign: None,
            service: key(n),
            family: Family::V4,
            ports: vec![SlicePort {
                name: "".into(),
                protocol: Protocol::Tcp,
                port: 8080,
            }],
            endpoints: vec![endpoint(1), endpoint(2)],
        }),
    }
}

fn node(n: usize) -> Event {
    Event::Node {
        name: format!("node-{n}").into(),
        form: Some(Node::default()),
    }
}

fn state(n: usize) -> Event {
    let interface = Interface {
        up: true,
        subnets: vec!["10.0.0.0/8".parse().expect("a subnet")],
        mac: None,
    };
    Event::State {
        node: format!("node-{n}").into(),
        form: Some(NodeState {
            interfaces: BTreeMap::from([("eth0".into(), interface)]),
            incarnation: 1,
            version: 1,
            ..NodeState::default()
        }),
    }
}

fn member(n: usize, alive: bool) -> Event {
    Event::Member {
        node: format!("node-{n}").into(),
        alive: Some(alive),
    }
}

fn main() {
    println!(
        "{:>8} {:>6} {:<22} {:>10} {:>10}",
        "Services", "nodes", "change", "ms", "addresses"
    );
    let mut figures = serde_json::Map::new();
    for (services, nodes) in [(1_000, 100), (10_000, 3), (10_000, 100)] {
        let mut world = World::new(Settings {
            namespace: NAMESPACE.into(),
            ..Settings::default()
        });
        let agent = Agent {
            node: "node-1".into(),
            mode: Mode::Vips,
            sources: plan::forward::Sources::default(),
            node_ports: plan::forward::NodePorts::default(),
        };
        let mut desired = Desired::default();
        let mut measure = |what: &str, events: Vec<Event>| {
            let start = Instant::now();
            let mut touched = 0;
            for event in events {
                let dirty = world.apply(event);
                touched += dirty.addresses.len();
                desired.replan(&world, &agent, &dirty);
            }
            let ms = start.elapsed().as_secs_f64() * 1e3;
            println!("{services:>8} {nodes:>6} {what:<22} {ms:>10.3} {touched:>10}");
            let name = format!("{}_{services}x{nodes}_ms", what.replace(' ', "_"));
            figures.insert(name, json!((ms * 1e3).round() / 1e3));
        };
        let mut events: Vec<Event> = (0..nodes).flat_map(|n| [node(n), state(n)]).collect();
        events.extend((0..services).flat_map(|n| [service(n), slice(n, true)]));
        events.push(config(
            "IPAddressPool",
            json!({"addresses": ["10.0.0.0/8"]}),
        ));
        events.push(config("L2Advertisement", json!({})));
        measure("told", events);
        measure("in sync", vec![Event::Synced]);
        measure("endpoint unready", vec![slice(7, false)]);
        measure("endpoint ready", vec![slice(7, true)]);
        measure("member heard", vec![member(2, true)]);
        measure("member dead", vec![member(2, false)]);
        measure("member back", vec![member(2, true)]);
        measure("node joins", vec![node(nodes), state(nodes)]);
    }
    println!("{}", json!({"bench": "world", "figures": figures}));
}
