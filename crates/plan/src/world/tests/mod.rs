//! Builders for the tables and properties of World and of what is planned from it.

mod costs;
mod inputs;
mod properties;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::name::{Name, ServiceKey};
use crate::net::{Family, Protocol};

pub(crate) const NAMESPACE: &str = "metallb-system";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

/// `a=b c=` as labels.
pub(crate) fn labels(text: &str) -> Labels {
    text.split_whitespace()
        .map(|label| {
            let (key, value) = label.split_once('=').expect("key=value");
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// A Service of type LoadBalancer with port tcp/80 called `http` that has `addresses`.
pub(crate) fn balancer(name: &str, addresses: &str) -> Service {
    Service {
        key: key(name),
        uid: "".into(),
        resource_version: "".into(),
        created: "".into(),
        labels: Labels::new(),
        other_proxy: false,
        annotations: BTreeMap::new(),
        kind: ServiceType::LoadBalancer,
        class: None,
        cluster_ips: vec![ip("10.96.0.1")],
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
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: 0,
        }],
        ingress: ingress(addresses),
    }
}

pub(crate) fn ingress(addresses: &str) -> Vec<Ingress> {
    addresses
        .split_whitespace()
        .map(|address| Ingress {
            ip: Some(ip(address)),
            proxy: false,
        })
        .collect()
}

pub(crate) fn local(service: Service) -> Service {
    Service {
        external_policy: Policy::Local,
        ..service
    }
}

/// `10.1.0.1@n1`, with `!` for unready, `~` for serving while it terminates, `-` for terminating
/// and not serving any more; without `@` it names no node.
pub(crate) fn endpoint(text: &str) -> Endpoint {
    let kind = text.chars().next().expect("an endpoint");
    let rest = text.trim_start_matches(['!', '~', '-']);
    let (rest, hints) = match rest.split_once('#') {
        Some((rest, hints)) => (rest, Some(hints)),
        None => (rest, None),
    };
    let hints = hints.map(|text| {
        let (nodes, zones): (Vec<&str>, Vec<&str>) =
            text.split(',').partition(|name| name.starts_with('='));
        let names = |list: Vec<&str>| {
            let names = list.into_iter();
            names
                .map(|name| name.trim_start_matches('=').into())
                .collect()
        };
        Box::new(Hints {
            zones: names(zones),
            nodes: names(nodes),
        })
    });
    let (address, node) = match rest.split_once('@') {
        Some((address, node)) => (address, Some(Name::from(node))),
        None => (rest, None),
    };
    let (ready, serving, terminating) = match kind {
        '!' => (false, Some(false), false),
        '~' => (false, Some(true), true),
        '-' => (false, Some(false), true),
        _ => (true, Some(true), false),
    };
    Endpoint {
        address: ip(address),
        node,
        ready,
        serving,
        terminating,
        hints,
    }
}

/// A slice of the Service `service` with port `http` → 8080.
pub(crate) fn slice(service: &str, endpoints: &str) -> Slice {
    let endpoints: Vec<Endpoint> = endpoints.split_whitespace().map(endpoint).collect();
    Slice {
        triggered: None,
        foreign: None,
        service: key(service),
        family: endpoints
            .first()
            .map_or(Family::V4, |endpoint| Family::of(endpoint.address)),
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints,
    }
}

/// The state of a node whose interfaces are up: `eth0:192.0.2.0/24,2001:db8::/64 eth1:`; `!eth0:`
/// is down.
pub(crate) fn state(version: u64, interfaces: &str) -> NodeState {
    let one = |text: &str| {
        let (name, subnets) = text.split_once(':').expect("name:subnets");
        let interface = Interface {
            up: !name.starts_with('!'),
            subnets: subnets
                .split(',')
                .filter(|net| !net.is_empty())
                .map(|net| net.parse().expect("a subnet"))
                .collect(),
            mac: None,
        };
        (Name::from(name.trim_start_matches('!')), interface)
    };
    NodeState {
        interfaces: interfaces.split_whitespace().map(one).collect(),
        incarnation: 1,
        version,
        ..NodeState::default()
    }
}

/// A configuration object of `metallb.io`.
pub(crate) fn object(kind: &str, name: &str, labels: &str, spec: Value) -> config::Object {
    let version = if kind == "BGPPeer" {
        "v1beta2"
    } else {
        "v1beta1"
    };
    let manifest = json!({
        "apiVersion": format!("metallb.io/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": self::labels(labels)},
        "spec": spec,
    });
    let decoded = api::object::Object::decode(manifest).expect("an object");
    assert_eq!(decoded.unknown_fields, [""; 0]);
    config::Object::try_from(decoded.object).expect("a configuration object")
}

/// An Advertisement of `corten.dev`.
pub(crate) fn native(name: &str, spec: Value) -> config::Object {
    let manifest = json!({
        "apiVersion": "corten.dev/v1alpha1",
        "kind": "Advertisement",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    });
    let decoded = api::object::Object::decode(manifest).expect("an object");
    config::Object::try_from(decoded.object).expect("a configuration object")
}

pub(crate) fn configured(object: config::Object) -> Event {
    Event::Config {
        object: object.reference(),
        form: Some(Arc::new(object)),
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        namespace: NAMESPACE.into(),
        ..Settings::default()
    }
}

/// A World in sync, told step by step.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) world: World,
    versions: u64,
}

impl Told {
    /// In sync, with the pool `pool` and the node names of `nodes`, all with `eth0` up.
    pub(crate) fn new(settings: Settings, pool: &[&str], nodes: &str) -> Self {
        let mut told = Self {
            world: World::new(settings),
            versions: 0,
        };
        told.tell(Event::Synced);
        told.configure("IPAddressPool", "pool", json!({ "addresses": pool }));
        for node in nodes.split_whitespace() {
            told.node(node, "");
            told.interfaces(node, "eth0:");
        }
        told
    }

    /// The pool 10.0.0.0/16 and 2001:db8::/32, one advertisement for all of it, and these nodes.
    pub(crate) fn common(nodes: &str) -> Self {
        let mut told = Self::new(settings(), &["10.0.0.0/16", "2001:db8::/32"], nodes);
        told.advertise("all", json!({}));
        told
    }

    pub(crate) fn tell(&mut self, event: Event) -> Dirty {
        self.world.apply(event)
    }

    pub(crate) fn configure(&mut self, kind: &str, name: &str, spec: Value) -> Dirty {
        self.tell(configured(object(kind, name, "", spec)))
    }

    pub(crate) fn advertise(&mut self, name: &str, spec: Value) -> Dirty {
        self.configure("L2Advertisement", name, spec)
    }

    pub(crate) fn native(&mut self, name: &str, spec: Value) -> Dirty {
        self.tell(configured(native(name, spec)))
    }

    pub(crate) fn node(&mut self, name: &str, labels: &str) -> Dirty {
        self.tell(Event::Node {
            name: name.into(),
            form: Some(Node {
                labels: self::labels(labels),
                ..Node::default()
            }),
        })
    }

    pub(crate) fn interfaces(&mut self, node: &str, interfaces: &str) -> Dirty {
        self.versions += 1;
        let form = state(self.versions, interfaces);
        self.tell(Event::State {
            node: node.into(),
            form: Some(form),
        })
    }

    pub(crate) fn member(&mut self, node: &str, alive: bool) -> Dirty {
        self.tell(Event::Member {
            node: node.into(),
            alive: Some(alive),
        })
    }

    pub(crate) fn service(&mut self, service: Service) -> Dirty {
        self.tell(Event::Service {
            key: service.key.clone(),
            form: Some(Box::new(service)),
        })
    }

    /// The slice `name`, of the Service that `slice` names.
    pub(crate) fn slice(&mut self, name: &str, slice: Slice) -> Dirty {
        self.tell(Event::Slice {
            key: key(name),
            form: Some(slice),
        })
    }

    /// A Service with one endpoint somewhere.
    pub(crate) fn served(&mut self, service: Service) {
        let name = service.key.name.to_string();
        self.service(service);
        self.slice(&name, slice(&name, "10.244.0.1"));
    }

    /// The names of the nodes that plan to announce `address`.
    pub(crate) fn announcers(&self, address: &str) -> Vec<&str> {
        let announces = |node: &&Name| l2::plan(&self.world, node, ip(address)).is_some();
        self.world
            .node_names()
            .filter(announces)
            .map(|name| &**name)
            .collect()
    }
}

/// `corten drain`, and kubelet's graceful node shutdown: each makes a node leave.
#[test]
fn a_node_leaves_when_it_is_asked_to_or_shuts_down() {
    let leaves = |annotations: Value, ready: &str, message: &str| {
        let node: api::core::Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "annotations": annotations},
            "status": {"conditions": [
                {"type": "MemoryPressure", "status": "False", "message": "node is shutting down"},
                {"type": "Ready", "status": ready, "message": message},
            ]},
        }))
        .expect("a Node");
        let node = Node::from(node);
        (node.drain_asked, node.shutting_down, node.leaves())
    };
    let posting = "kubelet is posting ready status";
    for (annotations, ready, message, wanted) in [
        (json!({}), "True", posting, (false, false, false)),
        (
            json!({"corten.dev/drain": "true"}),
            "True",
            posting,
            (true, false, true),
        ),
        (
            json!({"corten.dev/drain": "false"}),
            "True",
            posting,
            (false, false, false),
        ),
        (
            json!({}),
            "False",
            "[container runtime is down, node is shutting down]",
            (false, true, true),
        ),
        (
            json!({}),
            "True",
            "node is shutting down",
            (false, false, false),
        ),
        (
            json!({}),
            "Unknown",
            "Kubelet stopped posting node status.",
            (false, false, false),
        ),
    ] {
        assert_eq!(
            leaves(annotations, ready, message),
            wanted,
            "{ready} {message}"
        );
    }
}
