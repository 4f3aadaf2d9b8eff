use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::tests::{any_port, frontend, key};
use super::*;
use crate::net::Family;
use crate::world::Policy;

const VIP: &str = "10.0.0.101";
const NODE: &str = "10.0.0.11";
const CLUSTER: &str = "10.96.0.1";
const POD: &str = "10.1.0.2:8080";
const FAR: &str = "10.1.0.3:8080";

fn sockets(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn port(policy: Policy) -> ServicePort {
    ServicePort {
        frontends: vec![
            frontend(VIP, FrontendKind::LoadBalancer, policy),
            frontend(NODE, FrontendKind::NodePort, policy),
            frontend(CLUSTER, FrontendKind::ClusterIp, Policy::Cluster),
        ],
        cluster: sockets(&[POD, FAR]),
        local: sockets(&[POD]),
        usable_anywhere: true,
        ..ServicePort::default()
    }
}

fn front(address: &str) -> Front {
    Front {
        address: address.parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
    }
}

/// Where a front leads.
fn destinations(servers: &Servers, address: &str) -> Vec<String> {
    let server = servers.get(&front(address)).expect("a server");
    server
        .destinations
        .keys()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn each_address_leads_where_its_policy_says() {
    let key = key("web", Family::V4);
    for (policy, wanted) in [(Policy::Cluster, &[POD, FAR][..]), (Policy::Local, &[POD])] {
        let mut servers = Servers::new("lc".parse().unwrap());
        let changes = servers.set(&key, Some(port(policy)));
        assert_eq!(changes.len(), 3);
        assert_eq!(destinations(&servers, CLUSTER), [POD, FAR]);
        assert_eq!(destinations(&servers, VIP), wanted);
        assert_eq!(destinations(&servers, NODE), wanted);
        assert!(servers.iter().all(|(_, it)| it.scheduling.name() == "lc"));
        assert_eq!(servers.holder(&front(VIP)), Some(&key));
    }
}

#[test]
fn destinations_have_the_weights_that_are_asked_for() {
    let far: SocketAddr = FAR.parse().unwrap();
    let asked = Weights {
        others: BTreeMap::from([(far, 3)]),
        bad: None,
    };
    let key = key("web", Family::V4);
    let mut servers = Servers::default();
    let plain = port(Policy::Cluster);
    servers.set(&key, Some(plain.clone()));
    let weighted = ServicePort {
        weights: Some(Box::new(asked)),
        ..plain
    };
    assert_eq!(servers.set(&key, Some(weighted)).len(), 3);
    for (_, server) in servers.iter() {
        let weights: Vec<u32> = server.destinations.values().copied().collect();
        assert_eq!(weights, [1, 3]);
    }
}

#[test]
fn addresses_of_the_node_are_not_put_up() {
    let mut servers = Servers::default();
    let key = key("web", Family::V4);
    let all = |servers: &Servers| {
        let addresses = servers.addresses();
        let needs = |text: &str| servers.needs(text.parse().unwrap());
        assert_eq!(addresses.contains(&VIP.parse().unwrap()), needs(VIP));
        assert!(!needs(NODE));
        addresses.len()
    };
    servers.set(&key, Some(port(Policy::Cluster)));
    assert_eq!(all(&servers), 2);
    let own = ServicePort {
        of_node: vec![VIP.parse().unwrap()],
        ..port(Policy::Cluster)
    };
    servers.set(&key, Some(own));
    assert_eq!(all(&servers), 1);
    servers.set(&key, None);
    assert_eq!(all(&servers), 0);
}

/// The own servers of the host are not reached by way of a Service's address, but the host's own
/// address is left alone.
#[test]
fn the_rule_set_guards_addresses_and_translates_short_cuts() {
    let key = key("web", Family::V4);
    for (policy, own, wanted) in [
        (Policy::Cluster, false, [VIP, CLUSTER].as_slice()),
        (Policy::Local, false, &[VIP, CLUSTER]),
        (Policy::Local, true, &[CLUSTER]),
    ] {
        let mut port = port(policy);
        port.of_node = own.then(|| VIP.parse().unwrap()).into_iter().collect();
        let mut table = Table::for_ipvs();
        table.set(&key, Some(port));
        let elements = table.elements(&key);
        let guarded = elements.iter().filter_map(|element| match element {
            Element::ClusterIp(address) => Some(address.to_string()),
            _ => None,
        });
        let mut guarded: Vec<String> = guarded.collect();
        guarded.sort_unstable();
        assert_eq!(guarded, wanted);
        let slots = elements
            .iter()
            .filter(|it| matches!(it, Element::Slot { .. }));
        let fronts = elements
            .iter()
            .filter(|it| matches!(it, Element::Front { .. }));
        let translates = policy == Policy::Local;
        assert_eq!((slots.count() > 0, fronts.count()), (translates, 3));
    }
}

#[test]
fn schedulers_are_read_and_shown() {
    for text in [
        "rr",
        "wlc",
        "lblcr",
        "twos",
        "sh,sh-fallback",
        "mh,mh-fallback,mh-port",
    ] {
        assert_eq!(text.parse::<Scheduling>().unwrap().to_string(), text);
    }
    let spaced: Scheduling = "mh, mh-port".parse().unwrap();
    assert!(spaced.uses_port() && !spaced.has_fallback());
    for (text, word) in [
        ("", "\"\""),
        ("random", "wlc, lblc"),
        ("rr,rr-port", "no flag of rr"),
        ("mh,sh-port", "no flag of mh"),
        ("mh,", "no flag of mh"),
    ] {
        let error = text.parse::<Scheduling>().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

proptest! {
    /// Changed step by step equals built anew, and what was told is what has changed.
    #[test]
    fn steps_equal_rebuilding(
        steps in prop::collection::vec((0u8..5, prop::option::weighted(0.8, any_port())), 1..30),
    ) {
        let (mut servers, mut told) = (Servers::default(), BTreeMap::new());
        let mut desired = BTreeMap::new();
        for (number, port) in steps {
            let key = key(&format!("p{number}"), Family::V4);
            for (front, server) in servers.set(&key, port.clone()) {
                match server {
                    Some(server) => told.insert(front, server),
                    None => told.remove(&front),
                };
            }
            match port {
                Some(port) => desired.insert(key, port),
                None => desired.remove(&key),
            };
        }
        let mut anew = Servers::default();
        for (key, port) in desired.iter().rev() {
            anew.set(key, Some(port.clone()));
        }
        let all = |servers: &Servers| -> BTreeMap<Front, Server> {
            servers.iter().map(|(front, server)| (*front, server.clone())).collect()
        };
        prop_assert_eq!(&told, &all(&servers));
        prop_assert_eq!(told, all(&anew));
        for (front, server) in anew.iter() {
            prop_assert_eq!(servers.holder(front), anew.holder(front));
            prop_assert!(server.is_nodes || servers.needs(front.address));
        }
        prop_assert!(anew.addresses().iter().all(|address| servers.needs(*address)));
    }
}

/// IPVS cannot route what has a loopback address: the rule set carries it there too.
#[test]
fn the_loopback_has_no_servers() {
    let key = key("web", Family::V4);
    for policy in [Policy::Cluster, Policy::Local] {
        let mut port = port(policy);
        let loopback = frontend("127.0.0.1", FrontendKind::NodePort, policy);
        port.frontends.push(loopback);
        let mut servers = Servers::new("rr".parse().unwrap());
        servers.set(&key, Some(port.clone()));
        assert!(servers.get(&front("127.0.0.1")).is_none());
        assert!(servers.get(&front(NODE)).is_some());
        let mut table = Table::for_ipvs();
        table.set(&key, Some(port));
        let elements = table.elements(&key);
        let slots = elements
            .iter()
            .filter(|it| matches!(it, Element::Slot { .. }));
        assert!(slots.count() > 0, "{policy:?}");
        let host = |it: &&Element| matches!(it, Element::Host { front, .. } if front.address.is_loopback());
        assert_eq!(elements.iter().filter(host).count(), 1, "{policy:?}");
    }
}
