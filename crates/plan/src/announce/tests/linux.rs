//! Addresses on interfaces: tables.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::l2::{self, Interfaces};
use super::super::linux::plan;
use super::{NODES, node};
use crate::name::Name;
use crate::world::tests::{Told, balancer, ip, key, settings, slice, state};
use crate::world::{EXCLUDE_LABEL, Event, Node, Policy, Service};

fn told(nodes: &str) -> Told {
    Told::new(settings(), &["10.0.0.0/16", "2001:db8::/32"], nodes)
}

/// An owner, where it puts an address, and on which interfaces it answers for it.
type Owner = (String, Option<(Name, u8)>, Interfaces);

/// The owners of `address`.
fn placed(told: &Told, address: &str) -> Vec<Owner> {
    let names = told.world.node_names();
    names
        .filter_map(|name| {
            let found = l2::plan(&told.world, name, ip(address))?;
            Some((name.to_string(), found.placed, found.interfaces))
        })
        .collect()
}

#[test]
fn on_the_lan_a_node_with_the_subnet_has_it() {
    let only = |name: &str| Interfaces::Only(BTreeSet::from([Name::from(name)]));
    let table = [
        // Node-b would be first.
        (
            "eth0:10.0.0.0/24",
            "eth0:10.9.0.0/24",
            Some(("node-a", "eth0", 24)),
        ),
        (
            "eth0:10.0.0.0/24",
            "eth0:10.0.0.0/24",
            Some(("node-b", "eth0", 24)),
        ),
        ("eth0:10.9.0.0/24", "eth0:10.9.0.0/24", None),
        ("!eth0:10.0.0.0/24", "eth0:", None),
        // The smallest subnet, then the first name.
        (
            "eth0:10.0.0.0/16 eth1:10.0.0.0/24 eth2:10.0.0.0/24",
            "eth0:",
            Some(("node-a", "eth1", 24)),
        ),
    ];
    for (a, b, wanted) in table {
        let mut told = told("node-a node-b");
        told.native("lan", json!({"linux": {"device": "lan"}}));
        told.interfaces("node-a", a);
        told.interfaces("node-b", b);
        told.served(balancer("s", "10.0.0.1"));
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(node, name, length)| {
                (
                    node.to_owned(),
                    Some((Name::from(name), length)),
                    only(name),
                )
            })
            .collect();
        assert_eq!(placed(&told, "10.0.0.1"), wanted, "{a:?} {b:?}");
    }
}

#[test]
fn beside_an_advertisement_of_frames_both_hold() {
    let mut told = told("node-a");
    told.native("lan", json!({"linux": {"device": "lan"}}));
    told.native("frames", json!({"layer2": {}}));
    told.served(balancer("s", "10.0.0.1"));
    // Frames alone, where no subnet is.
    let frames = ("node-a".to_owned(), None, Interfaces::All);
    assert_eq!(placed(&told, "10.0.0.1"), [frames]);
    told.interfaces("node-a", "eth0:10.0.0.0/24");
    let both = Some(("eth0".into(), 24));
    assert_eq!(
        placed(&told, "10.0.0.1"),
        [("node-a".to_owned(), both, Interfaces::All)]
    );
}

#[test]
fn an_address_has_a_mac_address_of_its_own_where_that_is_said() {
    let mut told = told("node-a");
    told.advertise("theirs", json!({}));
    told.served(balancer("s", "10.0.0.1"));
    let mac = |told: &Told| {
        let found = l2::plan(&told.world, "node-a", ip("10.0.0.1")).expect("announced");
        found.mac.map(|mac| mac.to_string())
    };
    assert_eq!(mac(&told), None, "MetalLB's kinds never");
    told.native(
        "frames",
        json!({"layer2": {"mac": "Virtual"}, "nodeSelectors": [{"matchLabels": {"x": "y"}}]}),
    );
    assert_eq!(mac(&told), None, "on another node");
    told.native("frames", json!({"layer2": {"mac": "Virtual"}}));
    assert_eq!(mac(&told).as_deref(), Some("02:c0:0a:00:00:01"));
    // The kernel answers for what is on an interface, with the interface's.
    told.native("lan", json!({"linux": {"device": "lan"}}));
    told.interfaces("node-a", "eth0:10.0.0.0/24");
    assert_eq!(mac(&told), None);
}

/// The nodes that have `address` on kube-lb0, each with the prefix length.
fn having(told: &Told, address: &str) -> String {
    let names = told.world.node_names();
    let found = names.filter_map(|name| {
        let placing = plan(&told.world, name, ip(address))?;
        Some(format!("{name}/{}", placing.length))
    });
    found.collect::<Vec<_>>().join(" ")
}

#[test]
fn on_kube_lb0_every_node_that_may_has_it() {
    let spec = json!({"linux": {"device": "kube-lb0", "aggregationLength": 24}});
    let mut told = told(NODES);
    told.native("lb0", spec.clone());
    told.service(balancer("s", "10.0.0.1"));
    assert_eq!(having(&told, "10.0.0.1"), "", "no endpoint");
    told.slice("s", slice("s", "10.244.0.1@node-c"));
    assert_eq!(having(&told, "10.0.0.1"), "node-a/24 node-b/24 node-c/24");
    assert_eq!(having(&told, "10.0.0.2"), "", "nobody's");
    let local = Service {
        external_policy: Policy::Local,
        ..balancer("s", "10.0.0.1")
    };
    told.service(local);
    assert_eq!(having(&told, "10.0.0.1"), "node-c/24");
    told.service(balancer("s", "10.0.0.1"));

    // Nodes that may not.
    let mut excluded = Node::default();
    excluded
        .labels
        .insert(EXCLUDE_LABEL.to_owned(), String::new());
    node(&mut told, "node-a", excluded);
    let unavailable = Node {
        network_unavailable: true,
        ..Node::default()
    };
    node(&mut told, "node-b", unavailable);
    assert_eq!(having(&told, "10.0.0.1"), "node-c/24");
    let mut leaving = state(99, "eth0:");
    leaving.draining = true;
    told.tell(Event::State {
        node: "node-c".into(),
        form: Some(leaving),
    });
    assert_eq!(having(&told, "10.0.0.1"), "");
}

#[test]
fn selectors_choose_and_the_narrowest_prefix_counts() {
    let mut told = told("node-a node-b");
    told.node("node-a", "rack=a");
    let ad = |length: u8| {
        json!({"linux": {"device": "kube-lb0", "aggregationLength": length},
            "nodeSelectors": [{"matchLabels": {"rack": "a"}}],
            "serviceSelectors": [{"matchLabels": {"app": "x"}}]})
    };
    told.native("lb0", ad(24));
    told.native("narrow", ad(28));
    told.served(balancer("s", "10.0.0.1"));
    assert_eq!(having(&told, "10.0.0.1"), "");
    let mut service = balancer("s", "10.0.0.1");
    service.labels.insert("app".to_owned(), "x".to_owned());
    told.service(service);
    assert_eq!(having(&told, "10.0.0.1"), "node-a/28");
    let placing = plan(&told.world, "node-a", ip("10.0.0.1")).expect("a placing");
    assert_eq!(placing.services, [key("s")]);
}
